"""The experiments of the three papers, each by its name: python reproduce.py stg_time. What is run is in papers/."""

import sys
from pathlib import Path

from data import InputError
from papers import table
from papers.recipes import EXPERIMENTS
from papers.steps import Finished, check_output, expand, run_all, where_to_get
from run.flags import ArgumentParser, RunError, add_flag, run_program

SCALES = {"small": "minutes for each, on two cores", "paper": "the papers' sizes, for a GPU"}


def build_parser():
    width = max(map(len, EXPERIMENTS))
    parser = ArgumentParser(
        prog="reproduce.py",
        description="Run an experiment of the papers, and print its table: ours beside baselines and published numbers."
        "\nWhat is finished is not run again; Ctrl-C stops, and the same command goes on from there.",
        epilog="experiments, in order of value:\n"
        + "\n".join(f"  {name:<{width}}  {experiment.about}" for name, experiment in EXPERIMENTS.items()),
    )
    parser.add_argument("experiment", metavar="EXPERIMENT", choices=("all", *EXPERIMENTS), help="one of those below, "
                        "or all")
    add_flag(parser, "data_path data_dir", None, "a folder with the authors' clips, however deep; rendered ones ship")
    add_flag(parser, "scale", "small", "; ".join(f"{name}: {meaning}" for name, meaning in SCALES.items()),
             choices=tuple(SCALES))
    add_flag(parser, "output_dir", None, "table.md, table.csv, picture.png and runs go to output_dir/EXPERIMENT "
             "(./output_SCALE)")
    add_flag(parser, "dry_run", help="print the commands, and stop", action="store_true")
    return parser


def reproduce(name, scale, output, data_path, dry_run):
    """Run an experiment, and print its table. Returns how many of its steps failed."""
    experiment = EXPERIMENTS[name]
    commands, missing = expand(experiment, scale, output, data_path)
    print(f"\n{name}: {experiment.about}", flush=True)
    if missing:
        print(where_to_get(missing), flush=True)
    if dry_run:
        print(*(command.text for command in commands), sep="\n")
        return 0
    check_output(output)
    finished = Finished(output)

    def write():
        return table.write(name, experiment, scale, output, commands, finished)

    failed = run_all(commands, finished, write)
    print("", *write(), "", f"table.md, table.csv and picture.png are in '{output}'", sep="\n", flush=True)
    return failed


def work(args):
    if args.data_path and not Path(args.data_path).is_dir():
        raise InputError(f"-data_path '{args.data_path}' is not a folder")
    names = EXPERIMENTS if args.experiment == "all" else [args.experiment]
    root = Path(args.output_dir or f"./output_{args.scale}")
    failed = sum(reproduce(name, args.scale, root / name, args.data_path, args.dry_run) for name in names)
    if failed:
        raise RunError(f"{failed} steps failed (above); the same command tries them again")


def main(argv=None):
    args = build_parser().parse_args(argv)
    return run_program(lambda: work(args), InputError)


if __name__ == "__main__":
    sys.exit(main())
