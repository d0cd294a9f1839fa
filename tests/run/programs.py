"""Calls of programs one after the other in the same processes, for starting them takes longer than a tiny run:
torchrun programs.py FILE, which has a command on each line; their exit codes go to FILE.RANK."""

import importlib
import os
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import judge.pictures  # noqa: E402
import videogan.learn  # noqa: E402
import videogan.nets  # noqa: E402
from run import ranks  # noqa: E402

if __name__ == "__main__":
    codes, joined, end = [], [], ranks.end
    start, judge.pictures.texture_png = ranks.start, lambda *portraits: b""  # which takes longer than a tiny run
    videogan.nets.WIDTH, videogan.learn.SAMPLES, ranks.end = 4, 2, lambda: None
    ranks.start = lambda device: joined[0] if joined else joined.append(start(device)) or joined[0]
    for line in Path(sys.argv[1]).read_text().splitlines():
        name, *flags = shlex.split(line)
        sys.argv[0], stderr = name, sys.stderr
        codes.append(importlib.import_module(name.removesuffix(".py")).main(flags))
        sys.stderr = stderr
    Path(f"{sys.argv[1]}.{os.environ['RANK']}").write_text(repr(codes))
    end()
