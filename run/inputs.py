"""What a run reads: which part of the clips, what was found in them, and whether all that fits into memory."""

import argparse
import hashlib
import os
import re
from typing import NamedTuple

from run.flags import RunError, add_flag, positive_float, positive_int
from utils import FPS, in_threads

SHOWN = 12  # clips that are told one by one
MANY = 1000  # inputs whose fingerprints are kept one by one


class Inputs(NamedTuple):
    """lines: what was found, one line a clip or mask; fingerprints: SHA-256 by name of what was read; rate: frames a
    second of the outputs."""

    lines: list
    fingerprints: dict
    rate: float


def first_frame(text):
    """'31', or seconds as '3.5s' -> 31 or '3.5s'."""
    if re.fullmatch(r"\d+", text) and int(text) < 2**31:
        return int(text)
    if re.fullmatch(r"\d*\.?\d+s", text):
        return text
    raise argparse.ArgumentTypeError(f"'{text}' is neither a number of frames such as 30 nor seconds such as 3.5s")


def add_part_flags(group):
    """-start_frame, -frame_step and -fps."""
    add_flag(group, "start_frame", 0, "frames, or seconds as 3.5s, of each clip that are left out at its start",
             type=first_frame)
    add_flag(group, "frame_step", 1, "every how many frames one is used", type=positive_int)
    add_flag(group, "fps", None, "frames a second of the outputs (default the first clip's own; 25 of images)",
             type=positive_float)


def inputs_of(records, fps=None, masks=()):
    """The Inputs of a run from the Records of its clips, and of its masks."""
    everything = [*records, *masks]
    lines = [str(record) for record in everything[:SHOWN]]
    if len(everything) > SHOWN:
        lines.append(f"and {len(everything) - SHOWN} more clips")
    fingerprints = {}
    for record in everything:
        name = record.name
        while name in fingerprints:  # a mask may be called as its clip
            name += "'"
        fingerprints[name] = record.sha256
    own = records[0].out_rate if records else None
    return Inputs(lines, fingerprints, float(fps or own or FPS))


def inputs_of_files(paths, kind, fps=None):
    """The Inputs of a run that learns from many files, too many to be told one by one."""
    prints = in_threads(fingerprint_of_file, paths)
    if len(paths) > MANY:
        everything = hashlib.sha256("".join(prints).encode()).hexdigest()
        return Inputs([f"{len(paths)} {kind}"], {f"the {kind}": everything}, float(fps or FPS))
    names = [path.as_posix() for path in paths]
    shared = len(os.path.commonpath(names)) + 1 if len(names) > 1 else 0
    found = {name[shared:].encode("utf-8", "backslashreplace").decode(): each for name, each in zip(names, prints)}
    return Inputs([f"{len(paths)} {kind}"], found, float(fps or FPS))


def fingerprint_of_file(path):
    """SHA-256 of a file, or of nothing if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return hashlib.sha256().hexdigest()


def compare_inputs(folder, earlier, now):
    """RunError where the fingerprints of a run's inputs are not those that it began with; names and places may have
    changed. Runs of before there were fingerprints have none, and are not compared."""
    if not earlier or sorted(earlier.values()) == sorted(now.values()):
        return
    known = set(earlier.values())
    changed = [name for name, value in now.items() if value not in known]
    gone = [name for name in earlier if name not in now]
    what = [f"'{name}' is not what it learned from" for name in changed[:3]]
    what += [f"'{name}' is gone" for name in gone[:3]] if not what or len(earlier) != len(now) else []
    what = "; ".join(what) or "there are fewer, or more"
    raise RunError(f"'{folder}' holds a run of other inputs ({what}): put them back, choose another -output_dir, or "
                   "-overwrite to delete the run", code=2)


def check_memory(needed, free, hint):
    """RunError where a run that needs so many bytes cannot fit into those that are free. hint: what to lower."""
    if needed > free:
        raise RunError(f"this run needs about {needed / 2**30:.1f} GiB of memory, but {max(free, 0) / 2**30:.1f} GiB "
                       f"are free: {hint}", code=2)
