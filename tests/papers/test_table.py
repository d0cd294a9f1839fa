"""Tables and pictures of the papers' experiments, from made-up runs."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

import utils
from papers import table
from papers.recipes import EXPERIMENTS
from papers.steps import Command, Finished


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
