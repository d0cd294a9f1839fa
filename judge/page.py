"""The page of a run: index.html in its folder, from what lies there, renewed while the run goes on.

    write_page("output/fire_pot")

It opens from disk, without a server or a network. Beside it lies page_parts.js, the same parts once more, from which an
open page renews itself: of what lies on disk, browsers let a page include scripts and pictures, and nothing else.
"""

import csv
import functools
import json
import math
import os
import re
import shlex
import time
import zlib
from pathlib import Path
from urllib.parse import quote

import av
import numpy as np
from PIL import Image

from judge.tables import COLUMNS
from utils import printable, write_atomically

PARTS = ("state", "films", "progress", "table", "metrics", "made", "settings", "files")
SHOWN = 12  # films that play in step; those after them play on their own
POINTS = 240  # of a curve, at most
CHART = (3000, 50, 1050)  # a curve's width, and where its highest and lowest values are
BLANK = re.compile(r"(?<=,)(?=,|$)")  # a field without a value
LOG_RANGE = 100  # largest over smallest value from which on a curve of positive values has a logarithmic scale
MANY = 12  # files of a kind in a folder, which are one line from so many on

PROGRAMS = {"main.py": "STGConvNet", "main_dyn_G.py": "dynamic generator", "main_videogan.py": "VideoGAN"}
FILMS = {  # by the name of a film, without its number: what it is called, and what it is
    "observed": ("observed", "the clip it learned from"),
    "masked": ("masked", "what the program saw: hidden pixels are grey"),
    "inferred": ("inferred", "the clip, as the model draws it"),
    "sequence": ("chain", "drawn from the model"),
    "sample": ("one sample", "hidden pixels as one sample of the model has them"),
    "gen": ("video", "what the generator makes: foreground over background, by the mask"),
    "video": ("foreground", "the moving stream, all of it"),
    "videomask": ("masked foreground", "what the mask shows of it"),
    "mask": ("mask", "white: foreground"),
    "static": ("background", "the still stream"),
}
TABLES = {"evaluation": "New videos beside the clip", "recovery": "Hidden pixels, recovered"}
ROWS = {  # what rows of a table are: their role, and their meaning
    "observed": ("reference", "the clip itself: the value of every ratio is 1, of every distance 0"),
    "clips": ("reference", "each clip beside the others, as a mean: what one more clip of the pattern would score"),
    "later frames": ("reference", "the same clip, later: what a perfect model would score"),
    "LDS": ("reference", "a linear dynamical system (Doretto et al. 2003), the classical method to beat"),
    "Gaussian field": ("reference", "what a stationary Gaussian field, fitted to the visible pixels, expects"),
    "linear interpolation": ("reference", "between the nearest visible pixels in time"),
    "nearest frame": ("reference", "the nearest visible pixel in time"),
    "temporal mean": ("reference", "the mean of the visible pixels at that place"),
    "MRF-l1": ("reference", "a draw from a Markov random field, |x - y| between neighbours: the paper's comparison"),
    "MRF-l2": ("reference", "the same with (x - y)^2"),
    "held out": ("reference", "windows of clips that learning did not see"),
    "training": ("reference", "windows that it saw: what a perfect model would score"),
    "average clip": ("reference", "the mean of these windows"),
    "noise": ("reference", "white noise of their mean and standard deviation"),
    "mean of samples": ("main", "what the model expects of hidden pixels: the least error"),
    "one sample": ("main", "hidden pixels drawn from the model: looks like the clip, 1.4 times as far off"),
    "recovered": ("main", ""),
    "generated": ("main", ""),
}
METRICS = {
    "f_obs": "f of the observed clip",
    "f_syn": "f of the chains",
    "gap": "f of the chains less f of the clip; far below 0 the model runs ahead of its chains",
    "drift_to_noise": "a Langevin step's drift over its noise",
    "chain_std": "of all the chains' pixels, grey levels",
    "recon_err": "squared difference of mean chain and mean clip",
    "alive": "share of the top layer's units that are not dead",
    "std_ratio": COLUMNS["std_ratio"][2].replace("the same", "standard deviation over time"),
    "frame_diff_ratio": COLUMNS["frame_diff_ratio"][2].replace("the same", "difference of successive frames"),
    "mean_image": COLUMNS["mean_image"][2],
    "std_map_corr": COLUMNS["std_map_corr"][2],
    "psnr": "of the reconstructed clip, dB",
    "recovery_error": "mean absolute error on hidden pixels, grey levels",
    "loss_D": "the discriminator's, halved",
    "loss_G": "the generator's",
    "accuracy_real": "the discriminator's on real clips; at 1 it has won",
    "accuracy_fake": "the discriminator's on generated clips",
    "mask_mean": "share of foreground",
    "data_wait": "share of the time spent waiting for data",
}


@functools.cache
def templates():
    """Templates, in which whatever a name holds is text: nothing that a file or a category is called becomes HTML."""
    from jinja2 import Environment, FileSystemLoader  # here, for it would delay every start of every program

    return Environment(loader=FileSystemLoader(Path(__file__).with_name("templates")), autoescape=True,
                       trim_blocks=True, lstrip_blocks=True)


def write_page(folder: str | Path) -> None:
    """Write folder/index.html, and page_parts.js beside it, from what the folder of a run holds; each is either the old
    file or the whole new one."""
    folder = Path(folder)
    run = read_run(folder)
    parts = {}
    for name in PARTS:
        html = templates().get_template(f"{name}.html").render(run=run).strip()
        parts[name] = {"version": f"{zlib.crc32(printable(html).encode()):08x}", "html": html}
    write_atomically(folder / "page_parts.js", f"renew({json.dumps(parts)});\n".encode())
    page = templates().get_template("page.html").render(run=run, parts=parts)
    write_atomically(folder / "index.html", printable(page).encode())


def read_run(folder):
    """All that the page of a run tells, by name."""
    config = read_json(folder / "config.json")
    settings = config.get("settings", {})
    program = program_of(config)
    unit, columns = read_metrics(folder / "metrics.csv")
    done, total, unit = how_far(folder, settings)
    films = films_of(folder, "final_results", settings)
    versions = {name: value for name, value in config.items() if not isinstance(value, dict | list)}
    now = time.time()
    return {
        "title": settings.get("category") or folder.resolve().name,
        "about": f"{PROGRAMS[program]}, {program}" if program else "videos",
        "progress": progress_line(unit, done, total),
        "finished": total is not None and done >= total,
        "written": round(now, 1),
        "written_utc": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now)),
        "unit": unit,
        "films": films[:SHOWN],
        "more_films": films[SHOWN:],
        "everything": [{"name": path.name, "url": url(folder, path)}
                       for path in sorted((folder / "final_results").glob("all.*")) if path.suffix != ".tmp"],
        "made": read_made(folder, settings),
        "sheets": sheets_of(folder),
        "tables": tables_of(folder),
        "picture": picture_of(folder, folder),
        "charts": [chart for name, points in columns.items() if (chart := chart_of(name, *points))],
        "command": command_of(program, config),
        "inputs": config.get("inputs", []),
        "settings": [(name, in_words(value)) for name, value in (settings | versions).items()],
        "files": files_of(folder),
    }


def read_json(path):
    """What a JSON file holds, or {} where it is missing or being written."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def how_far(folder, settings):
    """How many epochs (or iterations) are done, of how many, None where that is not known, and which of both they are:
    by the end of metrics.csv, whose first line may be far away."""
    try:
        with open(folder / "metrics.csv", "rb") as file:
            unit = file.readline().partition(b",")[0].decode().strip()
            file.seek(max(file.tell(), os.fstat(file.fileno()).st_size - 2**13))
            ends = [line.partition(b",")[0] for line in file.read().split(b"\n")[:-1]]
    except OSError:
        return 0, None, "epoch"
    numbers = [int(end) for end in ends if end.isdigit()]
    return (numbers or [0])[-1], settings.get(f"num_{unit}s"), unit


def progress_line(unit, done, total):
    if total is None:
        return f"{unit} {done}" if done else "new videos of a learned model"
    return f"finished: {done} {unit}s" if done >= total else f"{unit} {done} of {total}"


def url(folder, path):
    """The address of a file from a page in the folder. It changes with the file: no browser shows an old one."""
    try:
        return f"{link(folder, path)}?{path.stat().st_mtime_ns // 10**6 % 10**10}"
    except OSError:  # just deleted, by another program perhaps: a page must not end a run
        return link(folder, path)


def link(folder, path):
    """The address of a file from a page in the folder, whatever their names hold."""
    return quote(Path(os.path.relpath(path, folder)).as_posix())


# ----------------------------------------------------------------------------------------------------------- films


def films_of(folder, where, settings):
    """The films in folder/where, in the order in which they are to be compared."""
    videos = [path for path in (folder / where).glob("*.mp4") if path.stem != "all"]
    stills = [path for path in (folder / where).glob("*.png") if path.stem in FILMS]
    recovered = any(folder.glob("recovered_*"))
    films = [film_of(folder, path, recovered, settings) for path in [*videos, *stills]]
    order = list(FILMS)
    if recovered:  # what was seen, what was made of it, and the truth
        order.remove("observed")
        order.append("observed")
    films = sorted((film for film in films if film), key=lambda film: (order.index(film["kind"]), film["number"]))
    numbers = {kind: sum(film["kind"] == kind for film in films) for kind in order}
    for film in films:
        if numbers[film["kind"]] > 1:
            film["label"] += f" {film['number']}"
    return mark_wipe(films, recovered)


def film_of(folder, path, recovered, settings):
    """One film, or None if it cannot be read or is none of ours."""
    kind, _, number = path.stem.partition("_")
    if kind not in FILMS or not (number.isdecimal() or not number):
        return None
    try:
        width, height, frames, rate = probe(path, path.stat().st_mtime_ns)
    except (OSError, av.FFmpegError, IndexError):
        return None
    label, note = FILMS[kind]
    if kind == "sequence" and recovered:
        label, note = "recovered", "hidden pixels as the model fills them"
    elif kind == "sequence" and (path.parent.parent.name == "test" or "task" in settings):
        label = "new video"
    elif kind == "observed" and recovered:
        known = settings.get("mask_type") != "external"
        label, note = ("truth", "the clip before pixels were hidden") if known else ("observed", "the clip as it was")
    film = {"name": path.stem, "kind": kind, "number": int(number or 0), "label": label, "note": note}
    film |= {"path": path.relative_to(folder).as_posix(), "url": url(folder, path), "still": path.suffix == ".png"}
    return film | {"width": width, "height": height, "frames": frames, "rate": rate}


@functools.lru_cache(maxsize=4096)
def probe(path, _changed):
    """Width, height, number of frames and frames a second of a film or picture (which is one frame)."""
    if path.suffix == ".png":
        with Image.open(path) as picture:
            return *picture.size, 1, 25.0
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream.width, stream.height, max(stream.frames, 1), float(stream.average_rate or 25)


def mark_wipe(films, recovered):
    """Which two films a wipe shows at first: the clip and a chain, or what was recovered and the truth."""
    first = {film["kind"]: film for film in reversed(films)}
    pairs = [("sequence", "observed"), ("masked", "sequence")] if recovered else [
        ("observed", "sequence"), ("gen", "videomask")]
    for left, right in pairs:
        if left in first and right in first:
            first[left]["wipe"], first[right]["wipe"] = "left", "right"
            break
    return films


def read_made(folder, settings):
    """The videos that a learned model made later, in folder/test, beside the clip, or None."""
    films = films_of(folder, "test/final_results", settings)
    if films and not any(folder.glob("recovered_*")):
        clip = [film for film in films_of(folder, "final_results", settings) if film["kind"] == "observed"][:1]
        films = mark_wipe(clip + films, False)
    return films and {"films": films[:SHOWN], "more": films[SHOWN:], "tables": tables_of(folder / "test"),
                      "picture": picture_of(folder, folder / "test")}


def sheets_of(folder):
    """The contact sheets, [[epoch, address], ...]; what is new in an address is when the run was begun or resumed."""
    config = folder / "config.json"
    begun = url(folder, config).partition("?")[2] if config.exists() else ""
    numbered = [(path.stem.rpartition("_")[2], path.name) for path in (folder / "progress").glob("*_*.png")]
    return sorted([int(number), f"progress/{quote(name)}?{begun}"] for number, name in numbered if number.isdecimal())


def picture_of(folder, where):
    path = where / "evaluation.png"
    return url(folder, path) if path.exists() else None


# ---------------------------------------------------------------------------------------------------------- tables


def tables_of(folder):
    """The tables that judge what the folder holds, ready to be shown."""
    found = {name: read_json(folder / f"{name}.json").get("rows") for name in TABLES}
    return [table_of(TABLES[name], rows) for name, rows in found.items() if rows]


def table_of(title, rows):
    """Rows as evaluate.py writes them, with headings, meanings and references; columns that no row has are left out."""
    names = [c for c in rows[0] if c != "name" and any(row.get(c) is not None for row in rows)]
    columns = [COLUMNS.get(name, (name, 3, "")) for name in names]
    meanings = {row["name"]: ROWS.get(row["name"], ("", ""))[1] for row in rows}

    def cells(row):
        values = [row.get(name) for name in names]
        return ["" if value is None else f"{value:.{decimals}f}" for value, (_, decimals, _) in zip(values, columns)]

    return {
        "title": title,
        "columns": [{"heading": heading.split("|"), "name": one_line(heading), "meaning": meaning}
                    for heading, _, meaning in columns],
        "rows": [{"name": row["name"], "role": role_of(row["name"]), "cells": cells(row)} for row in rows],
        "references": [(name, meaning) for name, meaning in meanings.items() if meaning],
    }


def one_line(heading):
    """A heading of two lines as one."""
    return heading.replace("-|", "-").replace("|", " ")


def role_of(name):
    """What a row stands for: 'main', the run as a whole; 'reference'; or '', one of its videos."""
    return ROWS[name][0] if name in ROWS else "main" if re.fullmatch(r"mean of \d+", name) else ""


# ---------------------------------------------------------------------------------------------------------- curves


def read_metrics(path):
    """What metrics.csv counts, epochs or iterations, and its columns, {name: (numbers, values)}: finite ones only."""
    try:
        head, *lines = path.read_text().split("\n")[:-1]  # without a line that is being written
    except (OSError, ValueError):
        return "epoch", {}
    unit, *names = next(csv.reader([head]))
    lines = [BLANK.sub("nan", line) for line in lines if line.count(",") == len(names)]
    table = np.loadtxt(lines, delimiter=",", ndmin=2) if lines else np.empty((0, len(names) + 1))
    finite = np.isfinite(table)
    return unit, {name: (table[finite[:, k], 0], table[finite[:, k], k]) for k, name in enumerate(names, 1)}


def chart_of(name, x, y):
    """A column of metrics.csv as a polyline in a box of CHART, or None for fewer than two points."""
    if len(x) < 2:
        return None
    low, high = y.min(), y.max()
    log = bool(low > 0 and high > LOG_RANGE * low)
    x, y = thinned(x, y)
    width, top, bottom = CHART
    heights, lowest, highest = (np.log(y), math.log(low), math.log(high)) if log else (y, low, high)
    share = (heights - lowest) / (highest - lowest) if highest > lowest else np.full(len(y), 0.5)
    places = np.stack([width * (x - x[0]) / (x[-1] - x[0]), bottom - (bottom - top) * share], axis=1)
    points = " ".join([f"{a},{b}" for a, b in places.round().astype(int).tolist()])
    return {"name": name, "meaning": METRICS.get(name, ""), "points": points, "log": log,
            "x": [int(x[0]), int(x[-1])], "y": [float(low), float(high)],
            "first": f"{y[0]:.4g}", "last": f"{y[-1]:.4g}", "low": f"{low:.4g}", "high": f"{high:.4g}"}


def thinned(x, y):
    """At most POINTS points of a curve, among them the lowest and the highest of every stretch: no peak is lost."""
    if len(x) <= POINTS:
        return x, y
    length = -(-len(x) // (POINTS // 2 - 1))
    rows = np.append(y, np.full(-len(y) % length, y[-1])).reshape(-1, length)
    starts = length * np.arange(len(rows))
    kept = np.concatenate([[0, len(x) - 1], starts + rows.argmin(axis=1), starts + rows.argmax(axis=1)])
    kept = np.unique(np.minimum(kept, len(x) - 1))
    return x[kept], y[kept]


# -------------------------------------------------------------------------------------------------------- settings


def program_of(config):
    """The program whose settings these are, by what only it has, or None."""
    settings = config.get("settings", {})
    marks = {"net_type": "main.py", "dynamic_mode": "main_dyn_G.py", "num_iterations": "main_videogan.py"}
    return config.get("program") or next((program for name, program in marks.items() if name in settings), None)


def command_of(program, config):
    """The command that makes the run again, quoted for a shell, as words that belong on one line each."""
    if not program:
        return []
    words = [["python", program]]
    for name, value in config["settings"].items():
        if value is None or value is False:
            continue
        words.append([f"-{name}"] if value is True else [f"-{name}", in_words(value)])
    return [shlex.join(each) for each in words]


def in_words(value):
    """A setting as its flag takes it: a size as height x width."""
    return "x".join(map(str, value)) if isinstance(value, list) else str(value)


# ----------------------------------------------------------------------------------------------------------- files


def files_of(folder):
    """Links to all files, by folder; of many in one, such as a video's frames, one line for all."""
    groups = []
    for where, folders, names in os.walk(folder):
        folders.sort()
        names = sorted(name for name in names if not hidden(name))
        where = Path(where)
        if len(names) >= MANY:
            files = [{"name": f"{names[0]} to {names[-1]}", "url": f"{link(folder, where)}/",
                      "note": f"{len(names)} files"}]
        else:
            files = [{"name": name, "url": link(folder, where / name), "note": size(where / name)} for name in names]
        if files:
            groups.append({"folder": "" if where == folder else where.relative_to(folder).as_posix(), "files": files})
    return groups


def hidden(name):
    """Files being written, and the page's own."""
    return name.endswith(".tmp") or name in ("index.html", "page_parts.js")


def size(path):
    """How large a file is, or nothing if it has just been replaced by another."""
    try:
        count = path.stat().st_size
    except OSError:
        return ""
    return f"{count} B" if count < 1000 else f"{count / 1000:.0f} kB" if count < 10**6 else f"{count / 10**6:.1f} MB"
