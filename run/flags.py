"""The command line that all programs share: a parser, types of values, and exit codes."""

import argparse
import contextlib
import itertools
import re
import shutil
import signal
import sys
import textwrap
from pathlib import Path

import torch

from run import ranks

BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
KEEP = 3  # numbered checkpoints that a run keeps if nothing else is said


class Terminated(KeyboardInterrupt):
    """SIGTERM, which is answered as Ctrl-C is."""


class RunError(Exception):
    """A run that cannot go on: the message says what happened and what to do; `code` is the exit code."""

    def __init__(self, message, code=1):
        super().__init__(message)
        self.code = code


class Spoilt(RunError):
    """A run whose state is of no use any more, and is not saved."""


class OneForm(argparse.RawDescriptionHelpFormatter):
    """Help that shows one form of each flag, though two dashes and older names work, too."""

    def __init__(self, prog):
        super().__init__(prog, max_help_position=30, width=min(max(shutil.get_terminal_size().columns, 80), 120))

    def _format_action_invocation(self, action):
        if not action.option_strings:
            return action.metavar
        values = "" if action.nargs in (0, "?") else f" {self._format_args(action, action.metavar or 'X')}"
        return action.option_strings[0] + values


class ArgumentParser(argparse.ArgumentParser):
    """Long flags with one dash or two, exact match only; an error is one line and exit code 2."""

    def __init__(self, **kwargs):
        super().__init__(formatter_class=OneForm, allow_abbrev=False, usage="%(prog)s [-flag value ...]", **kwargs)

    def _get_option_tuples(self, option_string):
        return []  # argparse still abbreviates long flags with one dash; never here

    def parse_known_args(self, args=None, namespace=None):
        """As argparse does, but a switch has the next argument for its value only where that is a boolean."""
        args = sys.argv[1:] if args is None else args
        switches = {flag for action in self._actions if action.nargs == "?" for flag in action.option_strings}
        spelled, valued = [], False
        for text, after in itertools.zip_longest(args, args[1:], fillvalue=""):
            if text in switches:
                valued = after.lower() in BOOLEANS
                spelled.append(f"{text}={after if valued else True}")
            elif not valued:
                spelled.append(text)
            else:
                valued = False
        return super().parse_known_args(spelled, namespace)

    def format_help(self):
        names = [[flag for flag in action.option_strings if flag[1] != "-"] for action in self._actions
                 if action.option_strings]
        older = "; ".join(f"{flag}: {' '.join(others)}" for flag, *others in names if others)
        text = "Flags are written in full, with one dash or two; a negative number as -flag=-1. "
        text += f"Older names work, too ({older}). " if older else ""
        return f"{super().format_help()}\n{textwrap.fill(text, self._get_formatter()._width)}\n"

    def parse_given(self, argv=None):
        """The settings, and by name those among them that the user gave."""
        args = self.parse_args(argv)
        unset = argparse.Namespace(**dict.fromkeys(vars(args)))
        return args, {name: value for name, value in vars(self.parse_args(argv, unset)).items() if value is not None}

    def _print_message(self, message, file=None):
        if ranks.rank() == 0:
            super()._print_message(message, file)

    def error(self, message):
        self.exit(2, f"{self.prog}: {message} ({self.prog} -h lists the flags)\n")


def add_flag(group, names, default=None, help="", **kwargs):
    """Add a flag under one name or, separated by blanks, more, each with one dash and with two; the default, which
    stands only here, is shown in the help. With the action store_true it may have a value: -test, -test=False."""
    flags = [dash + name for dash in ("-", "--") for name in names.split()]
    if kwargs.get("action") == "store_true":
        default, kwargs = False, {"nargs": "?", "type": boolean}
    elif default is not None:
        help += f" ({default})"
    kwargs.setdefault("metavar", "X")
    group.add_argument(*flags, dest=names.split()[0], default=default, help=help, **kwargs)


def add_run_flags(parser, *, output_dir, log_step, unit, auto, by_task=""):
    """Add the flags that mean the same in every program that learns, and return the last group, of the machine. auto:
    what -precision auto takes there."""
    group = parser.add_argument_group("output")
    add_flag(group, "output_dir", output_dir, "a run's outputs go to output_dir/category" + by_task)
    add_flag(group, "log_step", log_step, f"{unit}s between outputs", type=positive_int)
    add_flag(group, "ckpt ckpt_name", None, "checkpoint that a new run takes its weights from, or that makes new "
             "videos (the run's latest.pt): a file, or a name in the run's folder model")
    add_flag(group, "keep", KEEP, "how many numbered checkpoints are kept, the newest", type=positive_int)
    add_flag(group, "overwrite", help="delete an earlier run of this category first", action="store_true")
    add_flag(group, "dry_run", help="print settings, nets and the memory they need, and stop", action="store_true")
    group = parser.add_argument_group("machine")
    add_flag(group, "device", "auto", "auto, cpu, cuda, cuda:1, ...", type=device_name)
    add_flag(group, "precision", "auto", f"of products: fp32, bf16, or auto, which is {auto}",
             choices=("auto", "fp32", "bf16"))
    add_flag(group, "seed", 0, "seed of all randomness", type=non_negative_int)
    return group


def listed(settings):
    """Lines that name each setting and its value."""
    return [f"  -{name} {value}" for name, value in settings.items()]


def boolean(text):
    """'True', 'yes', '1' -> True; 'False', 'no', '0' -> False, in small letters or capitals."""
    if text.lower() not in BOOLEANS:
        raise argparse.ArgumentTypeError(f"'{text}' is neither True nor False")
    return BOOLEANS[text.lower()]


def positive_int(text):
    value = int(text) if text.isdecimal() else 0
    if not 0 < value < 2**31:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above 0 (and below 2^31)")
    return value


def non_negative_int(text):
    return 0 if text == "0" else positive_int(text)


def number(text):
    """The number that a text says, or nan."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


def positive_float(text):
    value = number(text)
    if not 1e-12 <= value <= 1e18:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number above 0 (from 1e-12 to 1e18)")
    return value


def non_negative_float(text):
    value = number(text)
    if not 0 <= value <= 1e18:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 0 to 1e18")
    return value


def share(text):
    value = number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 0 to 1")
    return value


def image_size(text):
    """'224' or 'height x width' such as '100x200' -> (H, W)."""
    sides = text.lower().split("x")
    if len(sides) > 2 or "" in sides:
        raise argparse.ArgumentTypeError(f"'{text}' is neither a side such as 224 nor height x width such as 100x200")
    height, width = positive_int(sides[0]), positive_int(sides[-1])
    return height, width


def device_name(text):
    """'auto', 'cpu', 'cuda', 'cuda:1', ... -> a torch.device that exists."""
    if text == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(text)
        torch.empty(1, device=device).item()  # which a device without memory of its own refuses
    except (RuntimeError, AssertionError, NotImplementedError):
        raise argparse.ArgumentTypeError(f"there is no device '{text}' here; 'auto' takes what there is") from None
    return device


def terminate(*_):
    raise Terminated


def run_program(program, bad_input, several=False):
    """Call program() and return its exit code: 0 done, 1 failed, 2 bad input (an exception of type bad_input), 130
    interrupted by Ctrl-C, 143 by SIGTERM. What a user can cause ends in one line on stderr, never in a traceback.
    several: whether it can work in the several processes of torchrun."""
    for stream in (sys.stdout, sys.stderr):  # a name may have letters that a terminal or a file's coding has not
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")
    name, previous = Path(sys.argv[0]).name, signal.signal(signal.SIGTERM, terminate)
    try:
        if not several:
            ranks.alone()
        program()
        return 0
    except bad_input as error:
        message, code = str(error), 2
    except RunError as error:
        message, code = str(error), error.code
    except ranks.Lost as error:
        message, code = str(error), 1
    except OSError as error:
        where = f" '{error.filename}'" if error.filename else ""
        message, code = f"cannot read or write{where}: {error.strerror or error}", 1
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if type(error) is not torch.OutOfMemoryError and not isinstance(error, MemoryError) and not re.search(
                r"out of memory|allocate", str(error)):
            raise
        message, code = "out of memory: use smaller frames or fewer of them, fewer chains or smaller batches", 1
    except KeyboardInterrupt as stop:
        message, code = str(stop) or "interrupted", 143 if isinstance(stop, Terminated) else 130
        ranks.hush()
    finally:
        ranks.end()
        signal.signal(signal.SIGTERM, previous)
    which = f" (process {ranks.rank()})" if ranks.rank() else ""
    print(f"{name}{which}: {message}", file=sys.stderr)
    return code
