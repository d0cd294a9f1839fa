"""The three programs are killed at moments drawn at random, and the same command goes on: no step that was reported is
lost, and the end is, bit for bit, that of a run which nothing disturbed. With --many, 50 kills of each; else one, by
another signal each, for test_loop.py has every moment of what they share."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from calls import PROGRAMS, narrow, succeeds, write_film
from tools import leaves, state_of

TESTS = Path(__file__).parents[1]
SIGNALS = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 143, signal.SIGINT: 130}  # and their exit codes
CODE = f"""if 1:
    import sys; sys.path[:0] = {[str(TESTS.parent), str(TESTS)]}; from calls import PROGRAMS, narrow
    with narrow():
        sys.exit(PROGRAMS[sys.argv[1]][0].main(sys.argv[2:]))"""


def reported(lines):
    """The steps that lines say are saved."""
    return (int(found[1]) for line in lines if (found := re.match(r"(?:epoch|iteration) (\d+)/", line)))


def kill_one(program, flags, number, wait):
    """Start a process, and kill it once so many steps are reported. Returns the last that was."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen([sys.executable, "-u", "-c", CODE, program, *map(str, flags)], env=environment,
                               text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    last = [step for _, step in zip(range(wait), reported(process.stdout))]
    assert len(last) == wait, f"{program} ended by itself: {process.stderr.read()}"
    process.send_signal(number)
    rest, err = process.communicate(timeout=300)
    assert process.returncode == SIGNALS[number] and "Traceback" not in err, (number, process.returncode, err)
    return max([*last, *reported(rest.splitlines())])


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_run_survives_kills(program, tmp_path, moving, request):
    write_film(tmp_path / "data/clip/a.mp4", moving(40, 32, 32))
    kills, first = 50 if request.config.getoption("--many") else 1, list(PROGRAMS).index(program)
    (module, small, unit), total, rng = PROGRAMS[program], 4 * kills + 2, np.random.default_rng(first)
    flags = [*small.split(), "-category", "clip", f"-num_{unit}s", total, "-data_path", tmp_path / "data",
             "-output_dir"]
    for k in range(kills):
        number = list(SIGNALS)[(first + k) % len(SIGNALS)]
        last = kill_one(program, [*flags, tmp_path / "killed"], number, int(rng.integers(1, 3)))
        assert state_of(tmp_path / "killed/clip")[unit] >= last, number.name
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the processes have: sums depend on it
    for name in ("killed", "undisturbed"):
        with narrow():
            succeeds(module, *flags, tmp_path / name)
    torch.set_num_threads(threads)
    ours, theirs = (leaves(state_of(tmp_path / f"{name}/clip")) for name in ("killed", "undisturbed"))
    assert ours.keys() == theirs.keys() and ours[f"/{unit}"] == total
    for name, value in ours.items():
        same = torch.equal(value, theirs[name]) if isinstance(value, torch.Tensor) else value == theirs[name]
        assert same or name == "/settings/output_dir", name
