"""VideoGAN: learn to generate short scenes, a moving foreground over a still background, from many clips."""

import sys

from data import InputError
from run.flags import run_program
from videogan.generate import generate
from videogan.learn import learn
from videogan.settings import parse


def main(argv=None):
    args, given = parse(argv)
    return run_program(lambda: generate(args, given) if args.test else learn(args), InputError, not args.test)


if __name__ == "__main__":
    sys.exit(main())
