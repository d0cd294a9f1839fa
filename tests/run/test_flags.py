"""The command line: exact flags, errors of one line, help, exit codes."""

import runpy
from pathlib import Path

import pytest
import torch

from run.flags import (
    ArgumentParser,
    RunError,
    Terminated,
    add_flag,
    device_name,
    image_size,
    positive_float,
    positive_int,
    run_program,
)


@pytest.fixture
def flags():
    parser = ArgumentParser(prog="some.py")
    add_flag(parser, "category", "fire", "what")
    add_flag(parser, "im_size image_size sz", "16", "side", type=image_size)
    add_flag(parser, "num_chain", 3, "chains", type=positive_int)
    add_flag(parser, "lr", 0.1, "rate", type=positive_float)
    add_flag(parser, "overwrite", help="delete", action="store_true")
    return parser


@pytest.mark.parametrize("dash", ["-", "--"])
def test_flags_take_one_dash_or_two_and_every_name(flags, dash):
    for name in ("im_size", "image_size", "sz"):
        assert flags.parse_args([f"{dash}{name}", "24"]).im_size == (24, 24)
    given = flags.parse_args([f"{dash}num_chain=5", f"{dash}sz", "100x200"])
    assert vars(given) == {"category": "fire", "im_size": (100, 200), "num_chain": 5, "lr": 0.1, "overwrite": False}


@pytest.mark.parametrize("given, on", [
    ("", False), ("-overwrite", True), ("--overwrite=True", True), ("-overwrite yes -lr 1", True),
    ("-overwrite 1", True), ("--overwrite false", False), ("-overwrite=NO", False), ("-overwrite 0 -lr 1", False)])
def test_a_switch_may_have_a_value(flags, given, on):
    args, said = flags.parse_given(given.split())
    assert args.overwrite is on and said.get("overwrite") == (on if given else None)


def test_a_switch_leaves_names_without_a_flag_alone(flags):
    flags.add_argument("names", nargs="*")
    args = flags.parse_args("-overwrite output yes -lr 1".split())
    assert args.overwrite and args.names == ["output", "yes"] and args.lr == 1


@pytest.mark.parametrize("given", [
    "-cat x", "--cat x", "-c x", "--im 3", "-num 3", "-over", "-nope 1", "x", "-category", "-lr -1", "-lr=-1e-3",
    "-lr 0", "-lr nan", "-lr inf", "-lr x", "-num_chain 0", "-num_chain -3", "-num_chain 1.5", "-num_chain 1e3",
    "-num_chain=", "-im_size 0", "-im_size 3x0", "-im_size 3x", "-im_size x", "-im_size 1x2x3", "-im_size -4",
    "-overwrite maybe"])
def test_bad_flags_are_one_line_and_exit_2(flags, given, capsys):
    with pytest.raises(SystemExit) as stop:
        flags.parse_args(given.split())
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and out == "" and len(err.splitlines()) == 1 and err.startswith("some.py: ")
    assert any(part.lstrip("-").split("=")[0] in err for part in given.split())


def test_help_shows_one_form_of_each_flag_its_default_and_older_names_at_the_end(flags, capsys):
    flags.add_argument("names", metavar="NAME", help="a name")
    with pytest.raises(SystemExit) as stop:
        flags.parse_args(["-h"])
    text = capsys.readouterr().out
    for part in ("-category X ", "what (fire)", "side (16)", "(0.1)", "-im_size: -image_size -sz", "-overwrite  ",
                 "NAME "):
        assert part in text
    assert stop.value.code == 0 and text.count("-category") == text.count("-sz") == 1 and "--" not in text


def test_auto_is_a_device_that_works_and_others_must_exist():
    torch.empty(1, device=device_name("auto"))
    assert device_name("cpu") == torch.device("cpu")
    for name in ("cuda:77", "tpu", "", "cpu cpu"):
        with pytest.raises(Exception, match="there is no device"):
            device_name(name)


class BadInput(Exception):
    pass


@pytest.mark.parametrize("error, code, part", [
    (BadInput("no such clip"), 2, "no such clip"),
    (RunError("diverged"), 1, "diverged"),
    (RunError("other settings", code=2), 2, "other settings"),
    (KeyboardInterrupt(), 130, "interrupted"),
    (KeyboardInterrupt("epoch 3 is saved"), 130, "epoch 3 is saved"),
    (Terminated("epoch 3 is saved"), 143, "epoch 3 is saved"),
    (OSError(28, "No space left on device"), 1, "No space left on device"),
    (PermissionError(13, "Permission denied", "/x/y"), 1, "/x/y"),
    (MemoryError(), 1, "out of memory"),
    (torch.OutOfMemoryError("CUDA out of memory"), 1, "out of memory"),
    (RuntimeError("[enforce fail at alloc_cpu.cpp:127] you tried to allocate 13271040000 bytes"), 1, "out of memory"),
], ids=repr)
def test_what_a_user_can_cause_is_one_line_and_an_exit_code(error, code, part, capsys):
    def program():
        raise error

    assert run_program(program, BadInput) == code
    [line] = capsys.readouterr().err.splitlines()
    assert part in line


def test_a_program_that_ends_well_is_exit_0_and_a_bug_is_a_traceback(capsys):
    assert run_program(lambda: None, BadInput) == 0 and capsys.readouterr().err == ""
    with pytest.raises(ZeroDivisionError):
        run_program(lambda: 1 / 0, BadInput)


@pytest.mark.parametrize("line", [
    "main.py -category nowhere", "main_dyn_G.py -category nowhere", "main_videogan.py -category nowhere",
    "evaluate.py -observed nowhere -synthesized nowhere", "stabilize.py -videos nowhere -output nowhere",
    "gallery.py nowhere"])
def test_a_script_ends_with_the_exit_code_of_its_program(line, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", line.split())
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(Path(__file__).parents[2] / line.split()[0]), run_name="__main__")
    [error] = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and error.startswith(f"{line.split()[0]}: ") and "nowhere" in error
