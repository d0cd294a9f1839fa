"""Pages over many runs: a gallery of them, and a study that asks people which of two videos is real.

    python gallery.py                                        every run below ./output*, on one page
    python gallery.py output/fire_pot output/ocean
    python gallery.py -study output/fire_pot -pairs 40       a page to be sent to people, and what they send back:
    python gallery.py -tally answers-*.json                  the share of them that was fooled
"""

import base64
import itertools
import json
import os
import sys
import time
from collections import defaultdict
from pathlib import Path

import data
import utils
from judge import page
from run import flags

DEPTH = 3  # folders below those given in which runs are looked for
# what stands on a tile, of the table that judges a run, if it has it
FIGURES = ("std_ratio", "frame_diff_ratio", "std_map_corr", "mean_image", "nearest_psnr", "hidden_mae", "hidden_psnr",
           "nearest", "held_out_nearest", "coverage", "realism", "gamut", "copying")
PLACES = ("category", "output_dir", "data_path", "mask_path", "device", "log_step")  # no part of how videos are made
COMPARED = 4  # films of a run beside those of another
KINDS = {"synthesised": "synthesised", "later": "later frames"}  # what stands beside a real video
CONTROLS = 5  # one pair in so many shows later frames
CONFIDENCE = 0.95


# --------------------------------------------------------------------------------------------------------- gallery


def find_runs(folders):
    """The folders of runs at or below those given, in order, each once."""
    found = []
    for folder in folders:
        if not folder.is_dir():
            raise data.InputError(f"'{folder}' is not a folder")
        patterns = ["/".join(["*"] * depth + ["config.json"]) for depth in range(DEPTH + 1)]
        found += sorted(path.parent for pattern in patterns for path in folder.glob(pattern))
    if not found:
        raise data.InputError(f"no run in {' '.join(map(str, folders))}: the folder of a run has a config.json")
    return list({folder.resolve(): folder for folder in found}.values())


def tile_of(folder, base):
    """What the gallery in the folder `base` tells of a run."""
    config = page.read_json(folder / "config.json")
    settings, program = config.get("settings", {}), page.program_of(config)
    done, total, unit = page.how_far(folder, settings)
    figures = {name: value for name, value in main_row(folder).items() if name in FIGURES and value is not None}
    columns = {name: page.COLUMNS.get(name, (name, 3, "")) for name in figures}
    home = folder / "index.html"
    return {
        "about": f"{page.PROGRAMS.get(program, 'videos')}, {page.progress_line(unit, done, total)}",
        "url": page.url(base, home if home.exists() else folder).partition("?")[0],
        "poster": poster_of(folder, base),
        "films": films_of(folder, base, settings),
        "figures": [(page.one_line(heading), f"{figures[name]:.{decimals}f}", meaning)
                    for name, (heading, decimals, meaning) in columns.items()],
        "settings": settings,
        "program": program,
        "sortable": {"date": (folder / "config.json").stat().st_mtime, "done": done} | figures,
    }


def films_of(folder, base, settings):
    """A few films of a run for a page in the folder `base`: what it made, the first of which stands for the run
    ("main"), and what that is to be compared with."""
    films = page.films_of(folder, "final_results", settings)
    made = [film for film in films if film["kind"] in ("sequence", "gen")]
    beside = [film for film in films if film["kind"] in ("observed", "masked", "videomask")]
    chosen = [film | {"main": False, "url": page.url(base, folder / film["path"])} for film in made + beside[:1]]
    if made:
        chosen[0]["main"] = True
    return [chosen[-1], *chosen[: COMPARED - 1]] if len(chosen) > COMPARED else chosen


def main_row(folder):
    """The row of a run's table that stands for the run, or {}."""
    for name in page.TABLES:
        rows = page.read_json(folder / f"{name}.json").get("rows") or []
        marked = [row for row in rows if page.role_of(row["name"]) == "main"]
        if rows:
            return (marked or [row for row in rows if not page.role_of(row["name"])] or [{}])[0]
    return {}


def poster_of(folder, base):
    """A picture of a run: a middle frame of its first video, the backgrounds of its scenes, or its newest sheet."""
    for where in ("recovered_mean_sequence", "recovered_sequence", "synthesized_sequence"):
        frames = sorted((folder / where / "sequence_0").glob("*.png"))
        if frames:
            return page.url(base, frames[len(frames) // 2])
    if (folder / "final_results/static.png").exists():
        return page.url(base, folder / "final_results/static.png")
    sheets = sorted((folder / "progress").glob("*.png"), key=lambda path: path.stat().st_mtime)
    return page.url(base, sheets[-1]) if sheets else None


def note_differences(tiles):
    """Write on each tile the settings in which the runs of its program differ."""
    programs = defaultdict(list)
    for tile in tiles:
        programs[tile["program"]].append(tile)
    for same in programs.values():
        names = dict.fromkeys(name for tile in same for name in tile["settings"] if name not in PLACES)
        values = {name: {page.in_words(tile["settings"].get(name)) for tile in same} for name in names}
        names = [name for name in names if len(values[name]) > 1]
        for tile in same:
            tile["different"] = [f"-{name} {page.in_words(tile['settings'].get(name))}" for name in names]


def write_gallery(folders, out):
    """The page `out` over all runs at or below the folders."""
    runs, base = find_runs(folders), out.parent
    tiles = [tile_of(folder, base) for folder in runs]
    note_differences(tiles)
    common = os.path.commonpath([folder.resolve().parent for folder in runs])
    for tile, folder in zip(tiles, runs):
        tile["name"] = tile["sortable"]["name"] = os.path.relpath(folder.resolve(), common)
    names = dict.fromkeys(name for tile in tiles for name in tile["sortable"])
    headings = {"name": "name", "date": "when it began", "done": "how far it is"}
    headings |= {name: page.one_line(page.COLUMNS.get(name, (name,))[0]) for name in names if name not in headings}
    html = page.templates().get_template("gallery.html").render(
        tiles=tiles, orders=list(headings.items()), written=time.strftime("%Y-%m-%d %H:%M"))
    utils.write_atomically(out, html.encode())
    print(f"{len(tiles)} runs are on '{out}'")


# ----------------------------------------------------------------------------------------------------------- study


def clips_below(folder):
    """The clips that a run left as frames, by name, or {}."""
    return {path.name: path for path in data.list_clips(folder)} if folder.is_dir() else {}


def videos_of(folder):
    """What a study shows of a run, videos uint8 (T, H, W, 3) of one size and length by name: real ones, synthesised
    ones and, where the clip goes on after what was learned, its later frames."""
    real = clips_below(folder / "observed_sequence")
    made = clips_below(folder / "synthesized_sequence") or clips_below(folder / "test/synthesized_sequence")
    if not real or not made:
        raise data.InputError(f"'{folder}' has not both observed_sequence and synthesized_sequence to compare")
    read = {kind: {name: data.read_clip(path) for name, path in clips.items()}
            for kind, clips in (("real", real), ("synthesised", made))}
    frames = min(len(video) for videos in read.values() for video in videos.values())
    read["later"] = later_frames(folder, frames, next(iter(read["real"].values())).shape[1:3])
    return {kind: {name: video[:frames] for name, video in videos.items()} for kind, videos in read.items()}


def later_frames(folder, frames, size):
    """{clip: what follows the frames that were learned}, as many frames as given, of clips that are long enough."""
    settings = page.read_json(folder / "config.json").get("settings", {})
    learned, later = settings.get("num_frames"), {}
    if not learned or settings.get("mask_type", "none") != "none":
        return later
    part = {"start": settings.get("start_frame", 0), "step": settings.get("frame_step", 1)}
    try:
        for path in data.list_clips(data.category_folder(settings["data_path"], settings["category"])):
            clip, _ = data.read(path, None, size, at_most=learned + frames, **part)
            if len(clip) == learned + frames:
                later[path.name] = clip[learned:]
    except (data.InputError, KeyError, OSError):  # the clip is not at hand
        return {}
    return later


def write_study(runs, pairs, seconds, out):
    """The page `out` with so many pairs of a real video and another, evenly of all runs; one pair in CONTROLS shows
    later frames of the clip as if they were synthesised, where there are any. All are encoded alike, into the page."""
    films, shown = {}, []
    for run in runs:
        videos = videos_of(run)
        if not videos["later"]:
            print(f"no control for '{run}': its clip has no later frames, or is not at hand")
        for kind, those in videos.items():
            films |= {f"{run}/{kind}/{name}": video for name, video in those.items()}
        reals, made, later = ([f"{run}/{kind}/{name}" for name in videos[kind]] for kind in videos)
        shown.append(pairs_of(str(run), reals, made, later))
    shown = list(itertools.islice(itertools.chain.from_iterable(zip(*shown)), pairs))
    used = {name: base64.b64encode(utils.mp4_bytes(films[name])).decode()
            for name in {pair[side] for pair in shown for side in ("real", "other")}}
    html = page.templates().get_template("study.html").render(
        films=used, pairs=shown, seconds=seconds, study=f"{out.stem} {time.strftime('%Y-%m-%d %H:%M:%S')}")
    utils.write_atomically(out, html.encode())
    controls = sum(pair["kind"] == "later" for pair in shown)
    print(f"{len(shown)} pairs, {controls} of them controls, are in '{out}' ({out.stat().st_size / 1e6:.1f} MB): open "
          "it, or send it to people; it saves their answers as a file, for -tally")


def pairs_of(run, reals, made, later):
    """Pairs of a run without end: real beside synthesised, and every CONTROLS-th time real beside later."""
    chains, controls = itertools.cycle(made), itertools.cycle(later)
    for k, real in enumerate(itertools.cycle(reals)):
        kind, other = ("later", controls) if later and k % CONTROLS == CONTROLS - 1 else ("synthesised", chains)
        yield {"run": run, "kind": kind, "real": real, "other": next(other)}


# ----------------------------------------------------------------------------------------------------------- tally


def read_answers(paths):
    """The answers of all files, one person's file counted once."""
    answers, seen = [], set()
    for path in paths:
        try:
            saved = json.loads(path.read_text())
            rows = [{key: str(row[key]) for key in ("run", "kind", "side", "answer")} for row in saved["answers"]]
            number = saved["id"]
        except OSError as error:
            raise data.InputError(f"cannot read '{path}': {error.strerror}") from None
        except (ValueError, KeyError, TypeError):
            raise data.InputError(f"'{path}' holds no answers of a study") from None
        if number in seen:
            print(f"'{path}' holds the same answers as a file before it: not counted again")
            continue
        seen.add(number)
        answers += rows
    return answers


def tally(answers):
    """For each run and kind of pair: how many were answered, the share that was fooled, which took the other video for
    the real one, and the share's Wilson interval: [(run, kind, pairs, share, low, high), ...]."""
    from scipy.stats import binomtest

    groups = defaultdict(list)
    for row in answers:
        groups[row["run"], row["kind"]].append(row["answer"] != row["side"])
    rows = []
    for (run, kind), fooled in sorted(groups.items(), key=lambda group: (group[0][0], group[0][1] == "later")):
        interval = binomtest(sum(fooled), len(fooled)).proportion_ci(CONFIDENCE, method="wilson")
        rows.append((run, KINDS.get(kind, kind), len(fooled), sum(fooled) / len(fooled), interval.low, interval.high))
    return rows


def print_tally(paths):
    rows = tally(read_answers(paths))
    if not rows:
        raise data.InputError("there are no answers in these files")
    width = max(len(run) for run, *_ in rows)
    print(f"{'run':<{width}}  {'beside real':<12}  pairs  fooled  {CONFIDENCE:.0%} interval")
    for run, kind, count, share, low, high in rows:
        print(f"{run:<{width}}  {kind:<12}  {count:5}  {share:6.0%}  {low:.0%} to {high:.0%}")
    print("50% is as good as real; later frames show how well people tell what is real from what is. (Wilson's "
          "interval takes every answer for one by itself; those of one person are less than that.)")


# ---------------------------------------------------------------------------------------------------- command line


def parse(argv=None):
    parser = flags.ArgumentParser(
        prog="gallery.py",
        description="One page over many runs, and a study that asks people which of two videos is real.",
        epilog="Flags take one dash or two, in full.")
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help="runs, or folders of runs (default ./output*)")
    add = flags.add_flag
    add(parser, "out", None, "the page (default gallery.html in the first folder, or study.html beside the first run)",
        metavar="FILE")
    group = parser.add_argument_group("two-choice study")
    add(group, "study", None, "make a page that shows real and synthesised videos of these runs", nargs="+",
        metavar="RUN")
    add(group, "pairs", 40, "how many pairs one person sees", type=flags.positive_int)
    add(group, "seconds", 3.6, "how long each pair is shown; shorter videos begin again", type=flags.positive_float)
    add(group, "tally", None, "print the share that was fooled, from the files that the page saved", nargs="+",
        metavar="FILE")
    args = parser.parse_args(argv)
    if sum(map(bool, (args.folders, args.study, args.tally))) > 1:
        parser.error("give folders, -study or -tally: one of them")
    return args


def work(args):
    if args.tally:
        return print_tally(list(map(Path, args.tally)))
    if args.study:
        runs = list(map(Path, args.study))
        return write_study(runs, args.pairs, args.seconds, Path(args.out or runs[0].parent / "study.html"))
    folders = list(map(Path, args.folders)) or sorted(path for path in Path(".").glob("output*") if path.is_dir())
    if not folders:
        raise data.InputError("there is no ./output: name a folder of runs")
    write_gallery(folders, Path(args.out or folders[0] / "gallery.html"))


def main(argv=None):
    args = parse(argv)
    return flags.run_program(lambda: work(args), data.InputError)


if __name__ == "__main__":
    sys.exit(main())
