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

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from calls import PROGRAMS, narrow, succeeds, write_film  # noqa: E402
from tools import leaves  # noqa: E402

SIGNALS = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 143, signal.SIGINT: 130}  # and their exit codes
CODE = f"""
import sys; sys.path[:0] = {[str(ROOT), str(ROOT / "tests")]}; from calls import PROGRAMS, narrow
with narrow():
    sys.exit(PROGRAMS[sys.argv[1]][0].main(sys.argv[2:]))
"""


def flags_of(program, folder, output, total):
    """The command line of a tiny run of `total` steps."""
    _, flags, unit = PROGRAMS[program]
    return f"{flags} -category clip -num_{unit}s {total}".split() + ["-data_path", folder / "data", "-output_dir",
                                                                     output]


def reported(line):
    """The step that a line says is saved, or None."""
    found = re.match(r"(?:epoch|iteration) (\d+)/", line)
    return int(found[1]) if found else None


def state_of(output):
    return leaves(torch.load(output / "clip/model/latest.pt", weights_only=True))


def kill_one(program, flags, number, wait):
    """Start a process, and kill it once so many steps are reported. Returns the last that was."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen([sys.executable, "-u", "-c", CODE, program, *map(str, flags)], env=environment,
                               text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    steps = filter(None, map(reported, process.stdout))
    last = [step for step, _ in zip(steps, range(wait))]
    assert len(last) == wait, f"{program} ended by itself: {process.stderr.read()}"
    process.send_signal(number)
    rest, err = process.communicate(timeout=300)
    assert process.returncode == SIGNALS[number] and "Traceback" not in err, (program, number, process.returncode, err)
    return max([*last, *filter(None, map(reported, rest.splitlines()))])


def survive(program, folder, kills, first=0):
    """Kill a program so often, beginning with signal number `first`; AssertionError where something is lost. Returns
    the number of its steps."""
    rng, total, threads = np.random.default_rng(first), 4 * kills + 2, torch.get_num_threads()
    outputs = [folder / "killed", folder / "undisturbed"]
    for k in range(kills):
        number = list(SIGNALS)[(first + k) % len(SIGNALS)]
        last = kill_one(program, flags_of(program, folder, outputs[0], total), number, int(rng.integers(1, 3)))
        state = state_of(outputs[0])
        saved = state.get("/epoch", state.get("/iteration"))
        assert saved >= last, f"{program} reported {last} and saved {saved} before {number.name}"
    torch.set_num_threads(1)  # as the processes have: sums depend on it
    for output in outputs:
        with narrow():
            succeeds(PROGRAMS[program][0], *flags_of(program, folder, output, total))
    torch.set_num_threads(threads)
    ours, theirs = map(state_of, outputs)
    assert ours.keys() == theirs.keys() and ours.get("/epoch", ours.get("/iteration")) == total
    for name, value in ours.items():
        same = torch.equal(value, theirs[name]) if isinstance(value, torch.Tensor) else value == theirs[name]
        assert same or "output_dir" in name, name
    return total


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-kills", type=int, default=50)
    parser.add_argument("-program", choices=PROGRAMS, nargs="+", default=list(PROGRAMS))
    args = parser.parse_args()
    for program in args.program:
        with tempfile.TemporaryDirectory() as folder:
            write_clip(Path(folder))
            total = survive(program, Path(folder), args.kills)
        print(f"{program}: {args.kills} kills in {total} steps, nothing lost, the end bit-identical", flush=True)


def write_clip(folder):
    t, y, x, c = np.ogrid[0:40, 0:32, 0:32, 0:3]
    video = (128 + 90 * np.sin(0.5 * t + 0.3 * y + 0.2 * x + 0.8 * c)).astype(np.uint8)
    write_film(folder / "data/clip/a.mp4", video)


if __name__ == "__main__":
    main()
