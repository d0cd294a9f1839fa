"""The commands of an experiment: what is to be run, where its clips are, and what is finished."""

import itertools
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import utils
from data import InputError, is_image, is_video
from papers.recipes import SOURCES
from run.flags import RunError, Terminated

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "trainingVideo"
RENDERED = " (rendered)"  # behind the name of a clip that ships
DEEP = 4  # folders below -data_path in which clips are looked for
TERMINATED = 143  # exit code of a program that was stopped by SIGTERM
INTERRUPTED = (130, TERMINATED)


class Command(NamedTuple):
    """One command of an experiment: the program and its flags; the folder of the run; the clip's name in tables; the
    values of what the step goes over; and the name of the step's folder."""

    words: tuple[str, ...]
    run: Path
    clip: str
    over: dict
    variant: str

    @property
    def text(self):
        """As a user types it, where the user is."""
        return f"python {shlex.join(self.words)}"


def locate(name, roots):
    """The first file, or folder with videos or pictures, whose path below one of the roots ends in `name`, or None."""
    patterns = ["*/" * depth + name for depth in range(DEEP)]
    found = (path for root in roots for pattern in patterns for path in sorted(root.glob(pattern)))
    return next((path for path in found if path.is_file() or any(is_video(p) or is_image(p) for p in path.iterdir())),
                None)


def from_here(path):
    """A path as seen from the working folder."""
    return os.path.relpath(path)


def expand(experiment, scale, output, data_path=None):
    """The Commands of an experiment whose outputs are in the folder `output`, and the names of what its steps want and
    is neither below data_path nor among the shipped clips."""
    roots = [*([Path(data_path)] if data_path else []), SHIPPED]
    commands, missing = [], []
    for step in experiment.steps:
        if getattr(step, scale) is None:
            continue
        for clip, *values in itertools.product(step.clips, *step.over.values()):
            paths = {word: locate(name, roots) for word, name in {"clip": clip, **step.find}.items()}
            lacking = [name for word, name in {"clip": clip, **step.find}.items() if paths[word] is None]
            missing += lacking
            if not lacking:
                commands.append(command_of(step, scale, output, paths, dict(zip(step.over, values, strict=True))))
    return commands, list(dict.fromkeys(missing))


def command_of(step, scale, output, paths, over):
    """The Command of a step for one clip; paths: of the clip, and what the step names in `find`."""
    clip, folder = paths["clip"], output / step.folder.format(**over)
    data = clip if clip.is_file() else clip.parent
    words = over | {word: from_here(path) for word, path in paths.items()}
    category = clip.stem if clip.is_file() else clip.name
    words |= {"clip": category, "run": from_here(folder / category)}
    program, *flags = [part.format(**words) for part in shlex.split(f"{step.command} {getattr(step, scale)}")]
    if program.startswith("main"):
        if from_here(data) != "trainingVideo":  # the programs' default
            flags += ["-data_path", from_here(data)]
        flags += ["-output_dir", from_here(folder)]
    name = f"{category}{RENDERED}" if clip.resolve().is_relative_to(SHIPPED) else category
    return Command((from_here(ROOT / program), *flags), folder / category, name, over, step.folder.format(**over))


def where_to_get(missing):
    """One line that says where clips are to be had, which are not here."""
    places = {source: [name for name in missing if SOURCES.get(name) == source] for source in SOURCES.values()}
    lines = [f"{', '.join(names)} from {source}" for source, names in places.items() if names]
    rest = [name for name in missing if name not in SOURCES]
    lines += [f"{', '.join(rest)} from trainingVideo/render.py"] if rest else []
    return f"left out: {'; '.join(lines)} (then -data_path says where they are)"


# ------------------------------------------------------------------------------------------------------------ running


class Finished:
    """What is finished of an experiment, in output/steps.json: {command: {"seconds": ..., "done": ...}}, in which
    seconds add up over interruptions."""

    def __init__(self, output):
        self.path = output / "steps.json"
        try:
            self.steps = json.loads(self.path.read_text())
        except OSError:
            self.steps = {}
        except ValueError:
            raise InputError(f"'{self.path}' is damaged: delete it, and finished runs are only looked at") from None

    def __contains__(self, command):
        return self.steps.get(command.text, {}).get("done", False) and command.run.is_dir()

    def add(self, command, seconds, done):
        earlier = self.steps.get(command.text, {}).get("seconds", 0)
        self.steps[command.text] = {"seconds": earlier + seconds, "done": done}
        utils.write_atomically(self.path, json.dumps(self.steps, indent=2).encode())

    def seconds(self, commands):
        """What commands have taken, in all."""
        return sum(self.steps.get(command.text, {}).get("seconds", 0) for command in commands)


def run_command(command, finished):
    """Run a program to its end, printed as it is typed. Returns its exit code. What stops this program stops that one
    first, which saves its state; then KeyboardInterrupt or Terminated is raised."""
    if command in finished:
        print(f"finished: {command.text}", flush=True)
        return 0
    print(f"\n$ {command.text}", flush=True)
    told, begun = [], time.monotonic()
    child = subprocess.Popen([sys.executable, *command.words])

    def pass_on(number, _):  # a terminal's Ctrl-C reaches both: the program answers it
        told.append(number)
        if number == signal.SIGTERM:
            child.terminate()

    previous = {each: signal.signal(each, pass_on) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        code = child.wait()
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)
    finished.add(command, time.monotonic() - begun, code == 0)
    if told or code in INTERRUPTED:
        raise (Terminated if signal.SIGTERM in told or code == TERMINATED else KeyboardInterrupt)(
            "stopped: the same command goes on from there")
    return code


def run_all(commands, finished, after):
    """Run commands in order, and after() after each that is done; those that fail are told of and left behind. Returns
    how many failed."""
    failed = 0
    for command in commands:
        known = command in finished
        code = run_command(command, finished)
        if code:
            failed += 1
            print(f"failed with exit code {code}, left out: {command.text}", file=sys.stderr, flush=True)
        elif not known:
            after()
    return failed


def check_output(output):
    """Make the folder of outputs, or RunError."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"-output_dir '{output}' cannot be a folder: {error.strerror}", code=2) from None
