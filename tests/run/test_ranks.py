"""Several processes, started by torchrun: they come to what one comes to, and end together."""

import ast
import contextlib
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
from tools import leaves, rows_of, state_of

import main
from run import ranks

ROOT = Path(main.__file__).parent
TINY = "-im_size 16 -num_frames 12 -sample_steps 2 -precision fp32 -device cpu -step_size 0.5 -lr 0.0003 -log_step 10"
RUNS = {  # what is spread: 9 chains as 5 and 4 in three mini-batches, 3 as 2 and 1, and the hidden pixels of one clip
    "clips": "-category three -num_chain 3 -chunk 2",
    "field": "-category one -num_chain 3 -reference field",
    "hidden": "-category one -num_chain 2 -mask_type region",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory, moving, write_clip):
    root = tmp_path_factory.mktemp("data")
    write_clip(root / "one/clip.mp4", moving(15))
    for k in range(3):
        write_clip(root / f"three/clip{k}.mp4", moving(13, phase=k))
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


def assert_close(one, two):
    """All that two runs have logged and keep, but for rounding, which grows where it turns a unit on or off."""
    for row, other in zip(rows_of(one), rows_of(two), strict=True):
        for name in row.keys() - {"seconds_per_step"}:
            assert (row[name] == "") == (other[name] == ""), name
            if row[name]:
                close = pytest.approx(float(other[name]), rel=1e-4 if int(row["epoch"]) <= 10 else 0.02, abs=1e-6)
                assert float(row[name]) == close, (row["epoch"], name)
    states = [leaves({**state_of(run), "settings": None, "fingerprints": None}) for run in (one, two)]
    assert states[0].keys() == states[1].keys()
    for name, x in states[0].items():
        if isinstance(x, torch.Tensor) and x.is_floating_point():
            y = states[1][name]
            assert x.stride() == y.stride() and (x - y).norm() <= 0.03 * y.norm() + 1e-6, name


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


def test_what_cannot_be_done_is_said_once_and_ends_all(tmp_path, data):
    lines = tmp_path / "lines"
    lines.write_text("\n".join([
        f"main.py {flags_of('field', data, tmp_path, 2)} -category nowhere",
        f"main.py {flags_of('field', data, tmp_path, 2)} -num_chain 1",
        f"main.py -test {flags_of('field', data, tmp_path, 2)}",
        "main_dyn_G.py", "main_videogan.py"]))
    out, err = ended(started("tests/run/programs.py", lines))
    assert [ast.literal_eval(Path(f"{lines}.{k}").read_text()) for k in (0, 1)] == [[2] * 5] * 2
    assert len(err) == 5 and not out
    assert "nowhere" in err[0] and "1 chains cannot be spread over 2" in err[1]
    assert all("takes one process, not 2" in line for line in err[2:])


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
@pytest.mark.parametrize("what", ["killed", "terminated"])
def test_whatever_ends_a_process_ends_all_with_a_state_saved(what, tmp_path, data):
    run = folder(tmp_path, "clips")
    process = started("main.py", *flags_of("clips", data, tmp_path, 10**6).split(), "-log_step", "1")
    while not (run / "model/epoch_0002.pt").exists():
        assert process.poll() is None
        time.sleep(0.05)
    begun = time.perf_counter()
    if what == "killed":
        os.kill(workers(process)[1], signal.SIGKILL)
    else:
        process.send_signal(signal.SIGTERM)
    _, [line] = ended(process)
    assert time.perf_counter() - begun < 60 and process.returncode != 0
    saved = f"epoch {state_of(run)['epoch']} is saved in '{run}'; the same command goes on from there"
    assert saved in line and ("of 2 has died" if what == "killed" else "interrupted: ") in line
    last = int(rows_of(run)[-1]["epoch"])
    assert state_of(run)["epoch"] in ((last, last - 1) if what == "killed" else (last,))


@pytest.mark.parametrize("counts", [[3], [3, 3, 3], [2, 1], [1] * 8])
def test_rows_are_spread_evenly_and_all_of_them(counts, monkeypatch):
    monkeypatch.setattr(ranks, "world", lambda: 3)
    found = [ranks.shares(counts, k) for k in range(3)]
    for b, count in enumerate(counts):
        assert [row for share in found for row in range(count)[share[b]]] == list(range(count))
    sizes = [sum(len(range(n)[rows]) for n, rows in zip(counts, share)) for share in found]
    assert max(sizes) - min(sizes) <= 1
