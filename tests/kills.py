"""Kill the three programs at moments drawn at random, let the same command go on, and hold that no epoch which was
reported is lost, and that the end is, bit for bit, that of a run which nothing disturbed.

    python tests/kills.py -kills 50          of each program; signals in turn: SIGKILL, SIGTERM, SIGINT
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import av
import numpy as np
import torch

ROOT = Path(__file__).parents[1]
SIGNALS = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 143, signal.SIGINT: 130}  # and their exit codes
CPU = "-device cpu -seed 0 -log_step 1 -category clip"
PROGRAMS = {  # flags of a tiny run, the flag of its length
    "main.py": (f"{CPU} -net_type ST -im_size 24 -num_frames 16 -num_chain 1 -sample_steps 1 -precision fp32",
                "-num_epochs"),
    "main_dyn_G.py": (f"{CPU} -im_size 64 -num_frames 4 -state_size 4 -z_size 4 -sample_steps 1 "
                      "-num_sections_in_test 1 -num_batches_in_test 1", "-num_epochs"),
    "main_videogan.py": (f"{CPU} -batch_size 1 -workers 0 -streams 1 -precision fp32", "-num_iterations"),
}
NARROW = ("import runpy, sys; sys.path.insert(0, {root!r}); sys.argv = sys.argv[1:]; import videogan.nets as n; "
          "import videogan.learn as l; n.WIDTH, l.SAMPLES, l.JUDGED = 8, 2, 2; "
          "runpy.run_path({script!r}, run_name='__main__')")


def write_clip(path):
    t, y, x, c = np.ogrid[0:40, 0:32, 0:32, 0:3]
    video = (128 + 90 * np.sin(0.5 * t + 0.3 * y + 0.2 * x + 0.8 * c)).astype(np.uint8)
    path.parent.mkdir(parents=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        for frame in video:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def start(program, folder, output, total):
    """The process of a run of `total` steps."""
    flags, length = PROGRAMS[program]
    code = NARROW.format(root=str(ROOT), script=str(ROOT / program))
    command = [sys.executable, "-u", "-c", code, program, *flags.split(), length, str(total), "-data_path",
               str(folder / "data"), "-output_dir", str(output)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def reported(line):
    """The step that a line says is saved, or None."""
    found = re.match(r"(?:epoch|iteration) (\d+)/", line)
    return int(found[1]) if found else None


def state_of(output):
    return torch.load(output / "clip/model/latest.pt", weights_only=True)


def steps_of(state):
    return state.get("epoch", state.get("iteration"))


def tensors(state):
    """All tensors of nested dicts and lists."""
    if isinstance(state, torch.Tensor):
        return [state]
    values = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return [each for value in values for each in tensors(value)]


def kill_one(program, folder, output, total, number, rng):
    """Start a run, kill it once a few steps are reported, and hold what it leaves. Returns how many steps are saved."""
    process, last, wait = start(program, folder, output, total), 0, int(rng.integers(1, 3))
    for line in process.stdout:
        if reported(line):
            last, wait = reported(line), wait - 1
            if wait == 0:
                break
    if wait:
        raise AssertionError(f"{program} ended by itself: {process.stderr.read()}")
    process.send_signal(number)
    rest, err = process.communicate(timeout=300)
    last = max([last, *filter(None, map(reported, rest.splitlines()))])
    assert process.returncode == SIGNALS[number], (program, number, process.returncode, err)
    assert "Traceback" not in err, err
    saved = steps_of(state_of(output))
    assert saved >= last, f"{program} reported {last} and saved {saved} before {number.name}"
    return saved


def survive(program, folder, kills, seed=0):
    """Kill a program so often; AssertionError where something is lost. Returns the number of its steps."""
    rng, total, output = np.random.default_rng(seed), 4 * kills + 2, folder / program
    for k in range(kills):
        kill_one(program, folder, output, total, list(SIGNALS)[k % len(SIGNALS)], rng)
    for where in (output, folder / f"{program}.undisturbed"):
        process = start(program, folder, where, total)
        _, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
    ours, theirs = (state_of(where) for where in (output, folder / f"{program}.undisturbed"))
    assert steps_of(ours) == steps_of(theirs) == total
    pairs = list(zip(tensors(ours), tensors(theirs), strict=True))
    assert pairs and all(torch.equal(a, b) for a, b in pairs)
    return total


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-kills", type=int, default=50)
    parser.add_argument("-program", choices=PROGRAMS, nargs="+", default=list(PROGRAMS))
    args = parser.parse_args()
    for program in args.program:
        with tempfile.TemporaryDirectory() as folder:
            write_clip(Path(folder) / "data/clip/a.mp4")
            total = survive(program, Path(folder), args.kills)
        print(f"{program}: {args.kills} kills in {total} steps, nothing lost, the end bit-identical", flush=True)


if __name__ == "__main__":
    main()
