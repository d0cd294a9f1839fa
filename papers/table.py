"""The table of an experiment: what the runs' own tables say, beside baselines and published numbers.

A row is {"clip": ..., "method": ..., column: value, ...}; columns are those of judge/tables.py, or kinds of masks,
whose values are mean absolute errors on hidden pixels.
"""

import csv
import io
import itertools
import math
import platform
import textwrap
import time
import tomllib
from functools import partial
from pathlib import Path

import numpy as np
import torch

import data
import utils
from judge import page
from judge.lds import fit_dynamics, sample_dynamics
from judge.tables import COLUMNS, in_pieces, set_report, texture_report
from papers.picture import strips
from papers.recipes import MASKS
from papers.steps import RENDERED

HEADINGS = {  # short ones, as RESULTS.md explains them
    "std_ratio": "std", "frame_diff_ratio": "diff", "mean_image": "mean", "std_map_corr": "map", "w1": "W1",
    "autocorr": "auto", "spatial_db": "spat.", "temporal_db": "temp.", "nearest_psnr": "near", "realism": "real",
    "coverage": "cover", "copying": "copy", "gamut": "gamut", "nearest": "to real", "held_out_nearest": "from real",
    "clips_near": "clips near", "hidden_mae": "error", "hidden_psnr": "PSNR",
    "missing_frames": "missing frames", "salt_pepper": "salt and pepper",
}  # fmt: skip
LEFT_OUT = ("name", "imprint", "chain_distance", "visible_error", "temporal_std", "frame_diff",
            "nearest_clip")  # of the runs' columns
WHOSE = {"ours": 0, "published:": 2}  # the order of methods, baselines between
COMPONENTS = 50  # of the linear dynamical systems that several clips are compared with
SYSTEMS = 10  # of these, at most


def published(name):
    """The groups of published numbers of an experiment: [(source, columns, rows)]."""
    groups = tomllib.loads((Path(__file__).parent / "published.toml").read_text()).get(name, [])
    return [(group["source"], group["columns"],
             [row_of(clip, f"published: {method}", dict(zip(group["columns"], values, strict=True)))
              for method, clips in group["rows"].items() for clip, values in clips.items()])
            for group in groups]


def row_of(clip, method, figures):
    """A row with those of the figures, by column, that are known and shown."""
    known = {c: v for c, v in figures.items() if c not in LEFT_OUT and v is not None and not math.isnan(v)}
    return {"clip": clip, "method": method} | known


# ----------------------------------------------------------------------------------------------------- what runs say


def learned(commands):
    """The commands that began a run, one for each run that is there."""
    return list({command.run: command for command in reversed(commands) if (command.run / "config.json").exists()}
                .values())[::-1]


def read_rows(path):
    return page.read_json(path).get("rows") or []


def videos_rows(commands, table_of_run):
    """Rows of new videos: ours, and what stands beside them in the tables of the runs."""
    rows = {}
    for command in learned(commands):
        named = {row["name"]: row for row in table_of_run(command.run) if row["name"] != "observed"}
        several = [name for name in named if page.role_of(name) == "main"]
        single = [name for name in named if page.role_of(name) == ""]
        methods = {name: name for name in named if page.role_of(name) == "reference"}
        methods |= {name: f"ours {command.variant.replace('_', ' ')}".strip() for name in (several or single)[:1]}
        for name, method in methods.items():
            rows.setdefault((command.clip, method), row_of(command.clip, method, named[name]))
    return list(rows.values())


def table_of_learning(run):
    """The table that a run ended with; that of several clips with a row for linear dynamical systems."""
    rows = read_rows(run / "evaluation.json")
    several = bool(rows) and rows[0]["name"] == "clips"
    return rows + several_systems(read_videos(run / "observed_sequence")) if several else rows


def table_of_test(run):
    """The table of the videos that -test has made of a run, in pieces as long as the clips that it learned from."""
    if not (run / "test/synthesized_sequence").is_dir():
        return []
    clips, made = (read_videos(run / name) for name in ("observed_sequence", "test/synthesized_sequence"))
    frames = min(clips.shape[1], made.shape[1])
    clips, pieces = clips[:, :frames], in_pieces(made, frames)
    if len(clips) == 1:
        return texture_report(pieces, clips[0])[0]
    return set_report(pieces, clips)[0] + several_systems(clips)


def several_systems(clips):
    """The row of linear dynamical systems beside several clips (N, T, H, W, 3): a draw for each of the first."""
    draws = {f"LDS {k}": sample_dynamics(fit_dynamics(clip, COMPONENTS), len(clip), np.random.default_rng(k))
             for k, clip in enumerate(clips[:SYSTEMS])}
    draws = {name: draw.round().astype(np.uint8).reshape(clips[0].shape) for name, draw in draws.items()}
    return [set_report(draws, clips)[0][-1] | {"name": "LDS"}]


def made_by(run):
    """The folders of the videos that a run has made: recovered ones, new ones of -test, or those of learning."""
    new = [run / name for name in ("test/synthesized_sequence", "synthesized_sequence")]
    return sorted(run.glob("recovered*_sequence")) or [folder for folder in new if folder.is_dir()][:1]


def read_videos(folder):
    """The videos of a folder of sequences, uint8 (N, T, H, W, 3)."""
    return np.stack([data.read_clip(path) for path in sorted(folder.glob("sequence_*"), key=data.natural_key)])


def recovery_rows(commands):
    """Rows of recovery, whose columns are the masks: means over the clips, then clip by clip."""
    errors = {}  # {(clip, method): {mask: error}}
    for command in learned(commands):
        for row in read_rows(command.run / "recovery.json"):
            cells = errors.setdefault((command.clip, method_of(row["name"])), {})
            cells[command.over["mask"]] = row["hidden_mae"]
    clips, methods = (list(dict.fromkeys(key[k] for key in errors)) for k in (0, 1))

    def mean(method, mask):
        values = [cells[mask] for (_, each), cells in errors.items() if each == method and mask in cells]
        return float(np.mean(values)) if len(values) == len(clips) else None

    means = [row_of(f"mean of {len(clips)}", method, {mask: mean(method, mask) for mask in MASKS})
             for method in methods if len(clips) > 1]
    return means + [row_of(clip, method, cells) for (clip, method), cells in errors.items()]


def inpainting_rows(commands):
    """Rows of inpainting, of runs whose recovered clip was judged by the truth."""
    return [row_of(command.clip, method_of(row["name"]), row)
            for command in learned(commands) for row in read_rows(command.run / "truth/recovery.json")]


def method_of(name):
    """The method that a row of a run's table stands for."""
    return name if page.role_of(name) == "reference" else f"ours {name}"


ROWS = {"videos": partial(videos_rows, table_of_run=table_of_learning),
        "test": partial(videos_rows, table_of_run=table_of_test),
        "recovery": recovery_rows, "inpainting": inpainting_rows}


def tables_of(kind, groups, commands):
    """The tables of an experiment of this kind, each a list of rows: ours, with those of the published `groups` that
    have the same columns and are of clips of these names, or means; and the other groups."""
    rows, tables = [row for row in ROWS[kind](commands) if len(row) > 2], []  # 2: without a figure
    clips = list(dict.fromkeys(map(pattern_of, rows)))
    for _, columns, numbers in groups:
        if {*columns} <= {*MASKS, *COLUMNS}:
            rows += [row for row in numbers if pattern_of(row) in clips or is_mean(row)]
        else:
            tables.append(numbers)

    def place(row):
        whose = WHOSE.get(row["method"].partition(" ")[0], 1)
        return (0, 0, whose) if is_mean(row) else (1, clips.index(pattern_of(row)), whose)

    return [sorted(rows, key=place), *tables]


def pattern_of(row):
    """The name of a row's clip, the same for the authors' clip and a rendered one in its place."""
    return row["clip"].removesuffix(RENDERED)


def is_mean(row):
    return row["clip"].startswith("mean of ")


# ----------------------------------------------------------------------------------------------------------- writing


def columns_of(rows):
    """The columns that any row has, clip and method first."""
    order = ["clip", "method", *COLUMNS, *MASKS]
    return sorted(dict.fromkeys(c for row in rows for c in row),
                  key=lambda c: order.index(c) if c in order else len(order))


def markdown(rows):
    """Rows as lines of Markdown, a table for each clip."""
    columns, lines = columns_of(rows)[2:], []
    for _, group in itertools.groupby(rows, lambda row: "mean" if is_mean(row) else pattern_of(row)):
        group = list(group)
        head = [group[0]["clip"], *(HEADINGS.get(c, c) for c in columns)]
        lines += [row_text(head), "|---" * len(head) + "|"]
        for row in group:
            other = "" if row["clip"] == group[0]["clip"] else f", {row['clip']}"
            lines.append(row_text([row["method"] + other, *(cell(c, row.get(c)) for c in columns)]))
        lines.append("")
    return lines


def row_text(cells):
    return f"| {' | '.join(cells)} |"


def cell(column, value):
    """A value as text: "" where there is none."""
    decimals = COLUMNS[column][1] if column in COLUMNS else 2 if column in MASKS else 0
    return "" if value is None else f"{value:.{decimals}f}"


def csv_text(tables):
    """Tables as one of CSV, with the columns of all of them."""
    text, rows = io.StringIO(), [row for table in tables for row in table]
    writer = csv.DictWriter(text, columns_of(rows), restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({c: f"{v:.6g}" if isinstance(v, float) else v for c, v in row.items()})
    return text.getvalue()


def machine():
    """What the figures were made on."""
    cpu = platform.processor() or platform.machine()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{cpu}, {torch.get_num_threads()} threads"
    return f"{name}, torch {torch.__version__}"


def write(name, experiment, scale, output, commands, finished):
    """Write output/table.md, .csv and picture.png of what an experiment has so far. Returns the lines of its tables."""
    groups, done = published(name), [command for command in commands if command in finished]
    tables = tables_of(experiment.table, groups, done)
    lines = [line for rows in tables for line in markdown(rows)]
    shown = [row for rows in tables for row in rows]
    sources = [f"Published: {source}." for source, _, numbers in groups if any(row in shown for row in numbers)]
    lines += [textwrap.fill(text, 120) for text in [experiment.note, *sources] if text]
    minutes, today = finished.seconds(commands) / 60, time.strftime("%Y-%m-%d")
    about = [f"# {name}", "", f"{experiment.about}.", "",
             f"Scale {scale}, {len(done)} of {len(commands)} steps, {minutes:.0f} minutes in all, {today}.",
             f"{machine()}.", ""]
    typed = ["", "```bash", *(command.text for command in done), "```", ""]
    picture = strips([(command.clip, command.over.get("mask", command.variant), command.run, made_by(command.run))
                      for command in learned(done)])
    if picture is not None:
        utils.write_atomically(output / "picture.png", picture)
        lines += ["", f"![{experiment.about}](picture.png)"]
    utils.write_atomically(output / "table.md", "\n".join(about + lines + typed).encode())
    utils.write_atomically(output / "table.csv", csv_text(tables).encode())
    return lines
