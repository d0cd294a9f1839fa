"""Tables of figures: of synthesised videos, of recovered ones, of many short ones; printed, as CSV and as JSON."""

import csv
import io
import json
from pathlib import Path

import numpy as np

import utils
from judge.fillings import interpolate_field, interpolate_linear, interpolate_nearest, temporal_mean
from judge.lds import lds_samples
from judge.metrics import (
    LAGS,
    colour_distance,
    compare,
    motion_of,
    moving_pixels,
    pair_distances,
    recovery_metrics,
    rms_distances,
    summarise,
)
from judge.mrf import mrf_l1, mrf_l2
from judge.patches import Patches, hidden_realism
from judge.pictures import portrait

# column: (heading of two lines, decimals, meaning)
TEXTURE_COLUMNS = {
    "std_ratio": ("std|ratio", 2, "standard deviation over time, mean over pixels, over the clip's"),
    "frame_diff_ratio": ("diff.|ratio", 2, "mean absolute difference of successive frames, over the clip's"),
    "mean_image": ("mean|image", 2, "mean absolute difference of the mean images"),
    "std_map_corr": ("std-map|corr.", 3, "correlation of the maps of temporal std"),
    "w1": ("colour|W1", 2, "Wasserstein-1 distance of the colour marginals, mean of R, G, B"),
    "autocorr": ("auto-|corr.", 3, f"mean error of the temporal autocorrelation, lags 1-{LAGS}"),
    "spatial_db": ("spatial|dB", 2, "distance of the spatial power spectra"),
    "temporal_db": ("temp.|dB", 2, "distance of the temporal power spectra"),
    "nearest_psnr": ("nearest|PSNR", 2, "PSNR of the nearest frame of the clip, dB; far above later frames': copied"),
    "realism": ("patch|realism", 2, "distance of moving patches to the clip's nearest, over later frames'; low: copy"),
    "coverage": ("patch|coverage", 2, "distance of the clip's moving patches to the video's nearest, over the same"),
    "copying": ("copied|share", 2, "adjacent patches whose nearest patches in the clip are adjacent, too; a copy: 1"),
    "gamut": ("colour|gamut", 2, "mean distance of the colours to the nearest that the clip has"),
    "imprint": ("stride|imprint", 3, "share of the frame differences' power at layer 1's stride (with -stride)"),
    "chain_distance": ("chain|dist.", 2, "mean absolute difference to the other videos; the clip: of its halves"),
}
SET_COLUMNS = {  # of videos beside several clips: means over them, but for the last three
    **{name: TEXTURE_COLUMNS[name] for name in ("std_ratio", "frame_diff_ratio", "mean_image", "std_map_corr", "w1",
                                                "autocorr", "spatial_db", "temporal_db", "imprint", "chain_distance")},
    "nearest_psnr": TEXTURE_COLUMNS["nearest_psnr"],
    "nearest_clip": ("nearest|clip", 0, "of several clips, the number of the one that has the nearest frames"),
    "clips_near": ("clips|near", 0, "of several clips, how many are the nearest clip of one of the videos"),
}
FILLINGS = {  # simple methods to beat where pixels are hidden
    "Gaussian field": interpolate_field,
    "linear interpolation": interpolate_linear,
    "nearest frame": interpolate_nearest,
    "temporal mean": temporal_mean,
    "MRF-l1": mrf_l1,  # these two are those of the paper
    "MRF-l2": mrf_l2,
}
RECOVERY_COLUMNS = {
    "hidden_mae": ("hidden|MAE", 3, "mean absolute error on hidden pixels"),
    "hidden_psnr": ("hidden|PSNR", 2, "PSNR on hidden pixels, dB"),
    "hidden_realism": ("patch|realism", 2, "distance of moving patches to visible ones, hidden over visible"),
    "visible_error": ("visible|error", 2, "largest error on a visible pixel; must be 0"),
}
WINDOW_COLUMNS = {
    "nearest": ("to held-|out", 2, "root mean square difference to the nearest held-out window, mean over the videos"),
    "held_out_nearest": ("from|held-out", 2, "the same from each held-out window to the nearest of the videos"),
    "temporal_std": ("temp.|std", 2, "standard deviation over time, mean over pixels"),
    "std_ratio": TEXTURE_COLUMNS["std_ratio"],
    "frame_diff": ("frame|diff.", 2, "mean absolute difference of successive frames"),
    **{name: TEXTURE_COLUMNS[name] for name in ("frame_diff_ratio", "w1")},
}
COLUMNS = TEXTURE_COLUMNS | SET_COLUMNS | RECOVERY_COLUMNS | WINDOW_COLUMNS


def texture_report(videos: dict[str, np.ndarray], observed: np.ndarray, later: np.ndarray | None = None,
                   lds: int = 50, stride: int | None = None) -> tuple[list[dict], dict[str, dict]]:
    """Rows of the table: the observed clip, each of the videos (by name), their mean if there are several, and the
    references: `later` frames of the clip (None: not at hand) and a linear dynamical system of `lds` components (0:
    none), whose patches and colours are those of its first draw. All videos are (T, H, W, 3). A row has "name" and the
    TEXTURE_COLUMNS, None where one makes no sense. And portraits by name of all these videos but the mean, for
    `draw_texture_report`."""
    clip, patches = summarise(observed), Patches(observed, later)

    def judge(named):
        name, video = named[0], summarise(named[1], clip)
        row = {"name": name, **dict.fromkeys(TEXTURE_COLUMNS), **compare(video, clip, stride)}
        return row, portrait(video) if name else None

    samples = lds_samples(observed, lds) if lds else []
    named = [("observed", observed), *videos.items(), *([("later frames", later)] if later is not None else [])]
    named += [(None if k else "LDS", sample) for k, sample in enumerate(samples)]
    rows, pictured = zip(*utils.in_threads(judge, named))
    half, last = len(observed) // 2, len(rows) - len(samples)
    chains, later_frames, draws = rows[1 : len(videos) + 1], rows[len(videos) + 1 : last], rows[last:]
    rows[0]["chain_distance"] = pair_distances([observed[:half], observed[len(observed) - half :]])[0, 1]
    add_distances(chains, list(videos.values()))
    add_distances(draws, samples)
    for row, figures in zip([*chains, *draws], utils.in_threads(patches.figures, [*videos.values(), *samples[:1]])):
        row.update(figures)
    for row in later_frames:
        row.update(patches.usual)
    table = [rows[0], *chains, *([mean_row(f"mean of {len(chains)}", chains)] if len(chains) > 1 else [])]
    table += [*later_frames, *([mean_row("LDS", draws)] if draws else [])]
    return table, {name: each for (name, _), each in zip(named, pictured) if name}


def set_report(videos: dict[str, np.ndarray], clips: np.ndarray,
               stride: int | None = None) -> tuple[list[dict], dict[str, dict]]:
    """Rows of the table of videos (by name) that were learned from several clips (N, T, H, W, 3): the clips, each
    against the other ones, as a mean; each of the videos against all clips; and their mean. See SET_COLUMNS: figures
    are means over the clips, nearest_psnr that of the nearest clip. And portraits, as of `texture_report`; that of
    "observed" has the clips' mean curves and map, and the first one's frame."""
    frame = {"video": clips[0], "moving": np.logical_or.reduce([moving_pixels(clip) for clip in clips])}
    observed = utils.in_threads(lambda clip: summarise(clip, frame), clips)

    def judge(name, video, own=None):
        figures = {k: compare(video, clip, stride) for k, clip in enumerate(observed) if k != own}
        nearest = max(figures, key=lambda k: figures[k]["nearest_psnr"])
        row = mean_row(name, list(figures.values()), SET_COLUMNS)
        return row | {"nearest_psnr": figures[nearest]["nearest_psnr"], "nearest_clip": nearest}

    def judge_chain(named):
        video = summarise(named[1], frame)
        return judge(named[0], video), portrait(video)

    def mean(name, rows):
        near = {row["nearest_clip"] for row in rows}
        return mean_row(name, rows, SET_COLUMNS) | {"nearest_clip": None, "clips_near": len(near)}

    others = utils.in_threads(lambda k: judge(None, observed[k], own=k), range(len(clips)))
    chains, pictured = zip(*utils.in_threads(judge_chain, videos.items()))
    add_distances(others, clips)
    add_distances(chains, list(videos.values()))
    table = [mean("clips", others), *chains, *([mean(f"mean of {len(chains)}", chains)] if len(chains) > 1 else [])]
    return table, {"observed": mean_portrait([portrait(clip) for clip in observed]), **dict(zip(videos, pictured))}


def mean_portrait(portraits):
    """The mean of portraits, with the frame of the first."""
    means = {name: np.mean([each[name] for each in portraits], axis=0)
             for name in ("std", "autocorrelation", "temporal", "spatial", "histogram")}
    return portraits[0] | means


def in_pieces(videos: np.ndarray, frames: int) -> dict[str, np.ndarray]:
    """Videos (N, T, H, W, 3) in pieces of so many frames, by name; what is left at the end is not judged."""
    return {f"new {k} from frame {t}": video[t : t + frames] for k, video in enumerate(videos)
            for t in range(0, len(video) - frames + 1, frames)}


def add_distances(rows, videos):
    """Complete the row of each video by its mean distance to the others."""
    if len(rows) > 1:
        for row, distances in zip(rows, pair_distances(videos)):
            row["chain_distance"] = distances.sum() / (len(rows) - 1)


def mean_row(name, rows, columns=TEXTURE_COLUMNS):
    """The mean of each column over the rows that have it."""
    columns = {c: [row[c] for row in rows if row.get(c) is not None] for c in columns}
    return {"name": name, **{c: float(np.mean(values)) if values else None for c, values in columns.items()}}


def recovery_report(truth: np.ndarray, recovered: dict[str, np.ndarray], mask: np.ndarray) -> list[dict]:
    """Rows of the table: the recovered videos by name, and the simple methods to beat, but those that are among them;
    see RECOVERY_COLUMNS.

    Videos are (T, H, W, 3) and the mask (T, H, W), or, for several clips, (N, T, H, W, 3) and (N, T, H, W): then the
    figures are those of all hidden pixels of all clips."""
    truths, masks = truth.reshape(-1, *truth.shape[-4:]), mask.reshape(-1, *mask.shape[-3:])
    simple = {name: np.stack([fill(*clip) for clip in zip(truths, masks)]).reshape(truth.shape).round().clip(0, 255)
              for name, fill in FILLINGS.items() if name not in recovered}  # as videos have them

    def row(name, video):
        clips = zip(video.reshape(truths.shape), masks, strict=True)
        realism = [each for clip, hidden in clips if (each := hidden_realism(clip, hidden)) is not None]
        figures = recovery_metrics(truth, video, mask)
        figures["hidden_realism"] = float(np.mean(realism)) if realism else None
        return {"name": name} | {column: figures[column] for column in RECOVERY_COLUMNS}

    return [row(*each) for each in (recovered | simple).items()]


def window_report(samples: np.ndarray, held_out: np.ndarray, training: np.ndarray) -> list[dict]:
    """Rows of the table of many short videos, all uint8 (N, T, H, W, 3): the generated `samples` beside windows that
    learning did not see, with three references: windows that it saw (what a perfect model would score), their average,
    and noise of their mean and standard deviation. See WINDOW_COLUMNS; ratios are over the held-out windows' means."""
    rng = np.random.default_rng(0)
    noise = rng.normal(training.mean(), training.std(), samples.shape).clip(0, 255).round().astype(np.uint8)
    average = training.mean(axis=0, dtype=np.float64).round().astype(np.uint8)[None]
    groups = {"held out": held_out, "generated": samples, "training": training, "average clip": average, "noise": noise}
    motion = {name: motion_of(videos) for name, videos in groups.items()}
    rows = []
    for name, videos in groups.items():
        distances = rms_distances(videos, held_out)
        if name == "held out":  # to the nearest other one
            np.fill_diagonal(distances, np.inf if len(held_out) > 1 else 0)
        (std, difference), (usual_std, usual_difference) = motion[name], motion["held out"]
        row = {"name": name, "nearest": distances.min(axis=1).mean(), "held_out_nearest": distances.min(axis=0).mean(),
               "temporal_std": std, "std_ratio": std / usual_std, "frame_diff": difference,
               "frame_diff_ratio": difference / usual_difference, "w1": colour_distance(videos, held_out)}
        rows.append({c: v if c == "name" else float(v) for c, v in row.items()})
    return rows


def print_table(rows: list[dict]) -> None:
    """Print rows under their headings; columns that no row has are left out."""
    columns = [c for c in rows[0] if c != "name" and any(r[c] is not None for r in rows)]
    width = max(len(r["name"]) for r in rows)
    for line in (0, 1):
        print(" " * width, *(f"{COLUMNS[c][0].split('|')[line]:>8}" for c in columns))
    for row in rows:
        cells = (f"{'-':>8}" if row[c] is None else f"{row[c]:8.{COLUMNS[c][1]}f}" for c in columns)
        print(f"{row['name']:<{width}}", *cells)


def write_csv(path: str | Path, rows: list[dict]) -> None:
    """The rows as CSV with the names of the columns in its first line; what makes no sense is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    for row in rows:
        writer.writerow({c: f"{v:.6g}" if isinstance(v, float) else v for c, v in row.items()})
    utils.write_atomically(path, text.getvalue().encode("utf-8", "backslashreplace"))


def write_json(path: str | Path, rows: list[dict], settings: dict) -> None:
    """{"settings": ..., "rows": ...} as JSON; settings are plain types by name."""
    utils.write_atomically(path, json.dumps({"settings": settings, "rows": rows}, indent=2).encode())


def save_report(folder: str | Path, name: str, rows: list[dict], settings: dict) -> None:
    """Print the table, and write it as folder/<name>.csv and .json."""
    print_table(rows)
    write_csv(Path(folder) / f"{name}.csv", rows)
    write_json(Path(folder) / f"{name}.json", rows, settings)
