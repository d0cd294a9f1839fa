"""Several processes, started by torchrun: they come to what one comes to, and end together."""

import ast
import contextlib
import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from calls import call, narrow
from PIL import Image
from tools import leaves, rows_of, state_of

import main
from run import ranks

ROOT = Path(main.__file__).parent
TINY = "-im_size 16 -num_frames 12 -sample_steps 2 -precision fp32 -device cpu -step_size 0.5 -log_step 10"
RUNS = {  # what is spread: 9 chains as 5 and 4 in three mini-batches, 3 as 2 and 1, and the hidden pixels of one clip
    "clips": "-category three -num_chain 3 -chunk 2 -lr 0.0003",
    "field": "-category one -num_chain 3 -reference field -lr 0.00003",
    "hidden": "-category one -num_chain 2 -mask_type region -lr 0.0003",
}
SYSTEMS = {  # three clips as 2 and 1 in a mini-batch, or as 1 and 1, then 1 and 0
    "gan": "main_videogan.py -device cpu -category strips -batch_size 3 -held_out 0 -r1 0.5 -average 0.5 -workers 0 "
    "-spectral_norm -sync_batch_norm -num_iterations",
    "motion": "main_dyn_G.py -device cpu -category three -task motion -batch_size 2 -im_size 8 -state_size 6 -z_size 5 "
    "-content_size 3 -num_frames 7 -truncated_backprop_length 4 -sample_steps 3 -num_epochs",
    "hidden": "main_dyn_G.py -device cpu -category three -task recovery -mask_type region -batch_size 3 -im_size 8 "
    "-dynamic_mode stationary -state_size 4 -z_size 4 -num_frames 6 -likelihood_scale mean -num_epochs",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory, moving, write_clip):
    root = tmp_path_factory.mktemp("data")
    write_clip(root / "one/clip.mp4", moving(15))
    for k in range(3):
        write_clip(root / f"three/clip{k}.mp4", moving(13, phase=k))
    for k in range(4):
        (root / "strips").mkdir(exist_ok=True)
        Image.fromarray(moving(8, 16, 16, phase=k).reshape(-1, 16, 3)).save(root / f"strips/{k}.png")
    (root / "strips/2.png").write_bytes(b"no picture")
    (root / "strips/list.txt").write_text("".join(f"{k}.png\n" for k in range(4)))
    return root


@pytest.fixture
def one_thread():
    """As torchrun's processes have: sums depend on it, and Adam's first steps on the rounding of gradients near 0."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def started(script, *flags):
    """torchrun with two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", script]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen([*command, *map(str, flags)], cwd=ROOT, env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0)


def ended(process, timeout=300):
    """What it has printed: stdout, and the lines of stderr that are not torchrun's."""
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return out, [line for line in err.splitlines() if re.match(r"main\w*\.py( \(process \d\))?: ", line)]


def flags_of(name, data, output, epochs):
    return f"{RUNS[name]} {TINY} -num_epochs {epochs} -data_path {data} -output_dir {output}"


def folder(output, name):
    return output / RUNS[name].split()[1]


def assert_close(one, two, tolerance=1e-6):
    """All that two runs have logged and keep, but for rounding, which grows where it turns a unit on or off; tolerance:
    of what is nothing but rounding, as gradients of biases that batch norm takes away."""
    for row, other in zip(rows_of(one), rows_of(two), strict=True):
        for name in row.keys() - {"seconds_per_step", "seconds_per_iteration", "data_wait"}:
            assert (row[name] == "") == (other[name] == ""), name
            if row[name]:
                count = int(row.get("epoch") or row["iteration"])
                close = pytest.approx(float(other[name]), rel=1e-4 if count <= 10 else 0.02, abs=1e-6)
                assert float(row[name]) == close, (count, name)
    states = [leaves({**state_of(run), "settings": None, "fingerprints": None}) for run in (one, two)]
    assert states[0].keys() == states[1].keys()
    for name, x in states[0].items():
        if isinstance(x, torch.Tensor) and x.is_floating_point():
            y = states[1][name]
            assert x.stride() == y.stride() and (x - y).norm() <= 0.03 * y.norm() + tolerance, name


@pytest.mark.usefixtures("undrawn", "one_thread")
def test_two_processes_come_to_what_one_comes_to_and_each_goes_on_from_the_other(tmp_path, data):
    one, two, lines = tmp_path / "1", tmp_path / "2", tmp_path / "lines"
    assert main.main(flags_of("hidden", data, one / "hidden", 10).split()) == 0
    shutil.copytree(one / "hidden", two / "hidden")  # 1 -> 2
    for name in RUNS:
        assert main.main(flags_of(name, data, one / name, 20).split()) == 0
    lines.write_text("\n".join(f"main.py {flags_of(name, data, two / name, 20)}" for name in RUNS))
    out, err = ended(started("tests/run/programs.py", lines))
    assert [ast.literal_eval(Path(f"{lines}.{k}").read_text()) for k in (0, 1)] == [[0] * 3] * 2 and not err
    assert out.count("epochs 1 to 20") == 2 and "epochs 11 to 20" in out and out.count("done: 20 epochs") == 3
    for name in RUNS:
        assert_close(folder(one / name, name), folder(two / name, name))
    for output in (one, two):  # 2 -> 1
        assert main.main(flags_of("clips", data, output / "clips", 22).split()) == 0
    assert_close(folder(one / "clips", "clips"), folder(two / "clips", "clips"))


@pytest.mark.usefixtures("undrawn", "one_thread")
def test_two_processes_of_the_other_systems_come_to_what_one_comes_to(tmp_path, data):
    def runs(count, output, *systems):
        return [f"{SYSTEMS[name]} {count} -lr 1e-7 -data_path {data} -output_dir {tmp_path / output / name}"
                for name in systems or SYSTEMS]

    def here(lines):
        for program, *flags in map(str.split, lines):
            assert call(importlib.import_module(program.removesuffix(".py")), *flags).code == 0

    def assert_all_close():
        for name in SYSTEMS:
            one, two = (next((tmp_path / output / name).iterdir()) for output in ("1", "2"))
            assert_close(one, two, tolerance=1e-4)

    with narrow(4):
        here(runs(1, "1", "gan", "motion"))
        shutil.copytree(tmp_path / "1", tmp_path / "2")  # 1 -> 2
        here(runs(2, "1"))
        apart = f"{runs(2, 'apart', 'gan')[0]} -sync_batch_norm False"
        (tmp_path / "lines").write_text("\n".join([*runs(2, "2"), apart]))
        out, err = ended(started("tests/run/programs.py", tmp_path / "lines"))
        assert out.count("2 to 2") == out.count("1 to 2") == 2 and out.count("done: 2") == 4 and not err
        assert_all_close()
        with pytest.raises(AssertionError):
            assert_close(tmp_path / "1/gan/strips", tmp_path / "apart/gan/strips", tolerance=1e-4)
        for output in ("1", "2"):  # 2 -> 1
            here(runs(3, output))
        assert_all_close()
    assert state_of(tmp_path / "2/gan/strips")["bad"].keys() == {2}


def test_what_cannot_be_done_is_said_once_and_ends_all(tmp_path, data):
    lines = tmp_path / "lines"
    lines.write_text("\n".join([
        f"main.py {flags_of('field', data, tmp_path, 2)} -category nowhere",
        f"main.py {flags_of('field', data, tmp_path, 2)} -num_chain 1",
        f"main.py -test {flags_of('field', data, tmp_path, 2)}",
        f"{SYSTEMS['gan']} 2 -test",
        f"{SYSTEMS['motion']} 2 -test",
        f"{SYSTEMS['gan']} 2 -data_path {data} -output_dir {tmp_path} -batch_size 1",
        f"{SYSTEMS['motion']} 2 -data_path {data} -output_dir {tmp_path} -category one"]))
    out, err = ended(started("tests/run/programs.py", lines))
    assert [ast.literal_eval(Path(f"{lines}.{k}").read_text()) for k in (0, 1)] == [[2] * 7] * 2
    assert len(err) == 7 and not out
    assert "nowhere" in err[0] and "1 chains cannot be spread over 2" in err[1]
    assert all("takes one process, not 2" in line for line in err[2:5])
    assert all("mini-batches of 1 clip(s) cannot be spread over 2" in line for line in err[5:])


def workers(process):
    """The processes that torchrun has started, by rank."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    pids = {}
    for pid in children:
        with contextlib.suppress(OSError):
            environment = Path(f"/proc/{pid}/environ").read_text().split("\0")
            pids |= {int(each[5:]): int(pid) for each in environment if each.startswith("RANK=")}
    return pids


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found in /proc")
@pytest.mark.parametrize("name, what", [("clips", "killed"), ("clips", "terminated"),
                                        ("gan", "terminated"), ("motion", "terminated")])
def test_whatever_ends_a_process_ends_all_with_a_state_saved(name, what, tmp_path, data):
    if name == "clips":
        run, unit = folder(tmp_path, "clips"), "epoch"
        process = started("main.py", *flags_of("clips", data, tmp_path, 10**6).split(), "-log_step", "1")
    else:
        run, unit = tmp_path / ("strips" if name == "gan" else "three"), "iteration" if name == "gan" else "epoch"
        (tmp_path / "lines").write_text(f"{SYSTEMS[name]} 999999 -data_path {data} -output_dir {tmp_path} -log_step 1"
                                        f"{' -workers 1' if name == 'gan' else ''}")
        process = started("tests/run/programs.py", tmp_path / "lines")
    while not (run / f"model/{unit}_0002.pt").exists():
        assert process.poll() is None
        time.sleep(0.05)
    begun = time.perf_counter()
    if what == "killed":
        os.kill(workers(process)[1], signal.SIGKILL)
    else:
        process.send_signal(signal.SIGTERM)
    _, [line] = ended(process)
    assert time.perf_counter() - begun < 60 and process.returncode != 0
    saved = f"{unit} {state_of(run)[unit]} is saved in '{run}'; the same command goes on from there"
    assert saved in line and ("of 2 has died" if what == "killed" else "interrupted: ") in line
    last = int(rows_of(run)[-1][unit])
    assert state_of(run)[unit] in ((last, last - 1) if what == "killed" else (last,))


@pytest.mark.parametrize("counts", [[3], [3, 3, 3], [2, 1], [1] * 8])
def test_rows_are_spread_evenly_and_all_of_them(counts, monkeypatch):
    monkeypatch.setattr(ranks, "world", lambda: 3)
    found = [ranks.shares(counts, k) for k in range(3)]
    for b, count in enumerate(counts):
        assert [row for share in found for row in range(count)[share[b]]] == list(range(count))
    sizes = [sum(len(range(n)[rows]) for n, rows in zip(counts, share)) for share in found]
    assert max(sizes) - min(sizes) <= 1
