"""The papers' experiments: every command is one that its program takes, tables say what the runs say, and what is
finished is not run again."""

import csv
import json
import os
import signal
import subprocess
import threading

import numpy as np
import pytest
from PIL import Image

import dyngen.settings
import evaluate
import reproduce
import stg.settings
import utils
import videogan.settings
from papers import steps, table
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


# ------------------------------------------------------------------------------------------------------------ tables


def put(path, rows):
    utils.write_atomically(path / "config.json", b"{}")
    for name, table_rows in rows.items():
        utils.write_atomically(path / f"{name}.json", json.dumps({"rows": table_rows}).encode())


def command(run, clip, variant="", **over):
    return Command(("main.py", str(run)), run, clip, over, variant)


def test_new_videos_stand_beside_baselines_and_published_numbers(tmp_path):
    rows = [{"name": "observed", "std_ratio": 1.0}, {"name": "chain 0", "std_ratio": 0.5, "imprint": 0.1},
            {"name": "chain 1", "std_ratio": 0.7}, {"name": "mean of 2", "std_ratio": 0.6, "gamut": None},
            {"name": "LDS", "std_ratio": 0.91, "autocorr": 0.1234}]
    for variant in ("quality", "released"):
        put(tmp_path / variant, {"evaluation": rows})
    commands = [command(tmp_path / v, "fire_pot (rendered)", v) for v in ("quality", "released")]
    groups = [("a page", ["std_ratio"], [{"clip": clip, "method": "published: x", "std_ratio": 0.83}
                                         for clip in ("another", "fire_pot")])]
    [rows] = table.tables_of("videos", groups, commands)
    assert table.markdown(rows) == [
        "| fire_pot (rendered) | std | auto |",
        "|---|---|---|",
        "| ours quality | 0.60 |  |",
        "| ours released | 0.60 |  |",
        "| LDS | 0.91 | 0.123 |",
        "| published: x, fire_pot | 0.83 |  |",
        "",
    ]


def test_recovery_has_a_column_for_each_mask_and_every_method_that_the_runs_name(tmp_path):
    commands = []
    for clip, error in (("ocean", 2.0), ("fire", 4.0)):
        for mask in ("region", "salt_pepper"):
            run = tmp_path / mask / clip
            put(run, {"recovery": [{"name": "a new name", "hidden_mae": error, "visible_error": 0.0},
                                   {"name": "linear interpolation", "hidden_mae": 2 * error}]})
            commands.append(command(run, clip, mask, mask=mask))
    groups = table.published("stg_recovery")
    [rows] = table.tables_of("recovery", groups, commands)
    assert {row["clip"] for row in rows} == {"mean of 2", "mean of 7", "ocean", "fire"}
    assert rows[0] == {"clip": "mean of 2", "method": "ours a new name", "region": 3.0, "salt_pepper": 3.0}
    assert rows[1]["method"] == "linear interpolation" and rows[1]["region"] == 6.0
    assert rows[2] == {"clip": "mean of 7", "method": "published: STGConvNet", "region": 6.3484,
                       "missing_frames": 6.7285, "salt_pepper": 5.3048}
    at = [row["clip"] for row in rows].index("ocean")
    assert [row["method"] for row in rows[at : at + 3]] == [
        "ours a new name", "linear interpolation", "published: STGConvNet"]
    read = list(csv.DictReader(table.csv_text([rows]).splitlines()))
    assert read[0]["missing_frames"] == "" and read[0]["region"] == "3"


def test_published_averages_are_those_of_their_columns():
    for name in ("stg_recovery", "dyn_recovery"):
        for _, columns, rows in table.published(name):
            for method in {row["method"] for row in rows}:
                clips = {row["clip"]: row for row in rows if row["method"] == method}
                mean = clips.pop("mean of 7", None)
                for column in columns if mean and clips else ():
                    values = [row[column] for row in clips.values() if column in row]
                    assert np.mean(values) == pytest.approx(mean[column], abs=6e-5) if values else True


def test_runs_on_several_clips_stand_beside_linear_systems_and_those_of_test_are_judged(tmp_path, moving):
    run = tmp_path / "runner"
    put(run, {"evaluation": [{"name": "clips", "std_ratio": 0.9}, {"name": "mean of 3", "std_ratio": 0.5}]})
    utils.save_frames(run / "observed_sequence", [moving(12, 16, 16, phase) for phase in (0, 1)])
    utils.save_frames(run / "synthesized_sequence", [moving(12, 16, 16, phase) for phase in (0, 2)])
    [rows] = table.tables_of("videos", [], [command(run, "runner")])
    assert [row["method"] for row in rows] == ["ours", "clips", "LDS"]
    assert rows[0]["std_ratio"] == 0.5 and rows[2]["nearest_psnr"] > 10
    assert table.tables_of("test", [], [command(run, "runner")]) == [[]]
    utils.save_frames(run / "test/synthesized_sequence", [moving(25, 16, 16)])
    [rows] = table.tables_of("test", [], [command(run, "runner")])
    assert rows[0]["method"] == "ours" and rows[0]["nearest_psnr"] > 40  # its first half is the first clip

    finished = Finished(tmp_path)
    for each in ("runner", "not there"):
        finished.add(command(tmp_path / each, "runner"), 60, done=True)
    table.write("stg_actions", EXPERIMENTS["stg_actions"], "small", tmp_path, [command(run, "runner")], finished)
    text = (tmp_path / "table.md").read_text()
    assert "| runner |" in text and "1 minutes" in text and "picture.png" in text
    width, height = Image.open(tmp_path / "picture.png").size
    assert width == 960 and height > 3 * 90  # two observed, one new


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
