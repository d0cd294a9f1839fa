"""Dynamic generator: learn how a state moves and how it looks, and generate new videos of any length (dyngen/)."""

import sys

from data import InputError
from dyngen.generate import generate
from dyngen.learn import learn
from dyngen.settings import parse
from run.flags import run_program


def main(argv=None):
    args, given = parse(argv)
    return run_program(lambda: generate(args, given) if args.test else learn(args), InputError, not args.test)


if __name__ == "__main__":
    sys.exit(main())
