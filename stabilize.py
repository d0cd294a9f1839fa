"""Stabilise videos and cut them into the strips that VideoGAN learns from (videogan/stabilize.py)."""

import sys

from data import InputError
from run.flags import run_program
from videogan.stabilize import build_parser, stabilize


def main(argv=None):
    args = build_parser().parse_args(argv)
    return run_program(lambda: stabilize(args), InputError)


if __name__ == "__main__":
    sys.exit(main())
