"""The papers' experiments: every command is one that its program takes, and what is finished is not run again."""

import os
import signal
import subprocess
import threading

import pytest

import dyngen.settings
import evaluate
import reproduce
import stg.settings
import videogan.settings
from papers import steps
from papers.recipes import EXPERIMENTS, Experiment, Step
from papers.steps import Command, Finished, expand, run_command

PARSERS = {"main.py": stg.settings.parse, "main_dyn_G.py": dyngen.settings.parse,
           "main_videogan.py": videogan.settings.parse, "evaluate.py": evaluate.parse}
SCALES = tuple(reproduce.SCALES)
TOY = Experiment("a toy", (Step("main.py -category {clip} -net_type {net} -device cpu -im_size 16 -num_frames 12 "
                                "-sample_steps 2 -num_chain 2", ("clip", "elsewhere"), paper=None,
                                small="-num_epochs 2", over={"net": ("FC_S",)}, folder="{net}"),))


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """A folder in which every clip that does not ship seems to be, each in a folder of its own kind."""
    root = tmp_path_factory.mktemp("data")
    wanted = [name for e in EXPERIMENTS.values() for step in e.steps for name in (*step.clips, *step.find.values())]
    for name in wanted:
        if steps.locate(name, [steps.SHIPPED]):
            continue
        path = root / "kind" / (name if "." in name else f"{name}/clip.mp4")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_command_is_one_that_its_program_takes(name, scale, everything, tmp_path):
    commands, missing = expand(EXPERIMENTS[name], scale, tmp_path, everything)
    assert commands and not missing
    for command in commands:
        program, *flags = command.words
        assert "{" not in command.text
        PARSERS[os.path.basename(program)](flags)  # SystemExit if a flag or a value is none


def test_commands_are_what_a_user_types_and_runs_do_not_meet(everything, tmp_path):
    inpainting = expand(EXPERIMENTS["stg_inpainting"], "small", tmp_path, everything)[0]
    boats = inpainting[-1].words
    assert boats[boats.index("-data_path") + 1] == os.path.relpath(everything / "kind/boats_input.mp4")
    assert boats[boats.index("-mask_file") + 1] == os.path.relpath(everything / "kind/boats/mask128.mat")
    for experiment in EXPERIMENTS.values():
        commands, _ = expand(experiment, "paper", tmp_path, everything)
        assert len({command.text for command in commands}) == len(commands)
        learning = [c.run for c in commands if not {"-test", "-animate", "-out"} & set(c.words)]
        assert len(set(learning)) == len(learning)


def test_missing_clips_are_one_line_and_the_others_go_on(tmp_path):
    commands, missing = expand(EXPERIMENTS["stg_actions"], "small", tmp_path)
    assert [command.clip for command in commands] == ["runner (rendered)"]
    assert missing == ["cows", "animals"]
    line = steps.where_to_get(missing)
    assert "cows, animals from www.stat.ucla.edu" in line and "\n" not in line


# ----------------------------------------------------------------------------------------------------------- running


def test_an_experiment_runs_to_its_table_once(tmp_path, write_clip, moving, monkeypatch, capfd):
    write_clip(tmp_path / "data/deep/clip/clip.mp4", moving(24))
    monkeypatch.setitem(EXPERIMENTS, "toy", TOY)
    flags = ["toy", "-data_path", str(tmp_path / "data"), "-output_dir", str(tmp_path / "out")]
    assert reproduce.main(flags) == 0
    out = capfd.readouterr().out
    assert "left out: elsewhere" in out and "$ python " in out and "| ours FC S |" in out
    for name in ("table.md", "table.csv", "picture.png", "FC_S/clip/evaluation.json"):
        assert (tmp_path / "out/toy" / name).stat().st_size

    monkeypatch.setattr(subprocess, "Popen", None)  # nothing is run again
    assert reproduce.main(flags) == 0
    assert "finished: python " in capfd.readouterr().out


def script(run, text):
    run.mkdir(exist_ok=True)
    return Command(("-c", text), run, "clip", {}, "")


def test_a_step_that_fails_is_told_and_one_that_is_stopped_stops_all(tmp_path, capfd):
    finished = Finished(tmp_path)
    after = []
    commands = [script(tmp_path / "run", text) for text in ("raise SystemExit(2)", "pass")]
    assert steps.run_all(commands, finished, lambda: after.append(1)) == 1 and after == [1]
    assert "failed with exit code 2" in capfd.readouterr().err
    stopped = script(tmp_path / "run", "raise SystemExit(130)")
    with pytest.raises(KeyboardInterrupt):
        steps.run_all([stopped], finished, None)
    known = Finished(tmp_path)  # as written
    assert commands[1] in known and commands[0] not in known and stopped not in known


def test_sigterm_reaches_the_program_that_runs(tmp_path):
    waiting = script(tmp_path / "run", "import time; time.sleep(60)")
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    with pytest.raises(steps.Terminated):
        run_command(waiting, Finished(tmp_path))


@pytest.mark.parametrize(
    "given, part", [("nothing", "nothing"), ("all -scale huge", "huge"), ("all -data_path no", "no")])
def test_mistakes_are_one_line_and_exit_2(given, part, capsys):
    try:
        code = reproduce.main(given.split())
    except SystemExit as stop:
        code = stop.code
    err = capsys.readouterr().err
    assert code == 2 and len(err.splitlines()) == 1 and part in err
