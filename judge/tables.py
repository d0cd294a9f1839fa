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


class TextureTable:
    """The table of videos beside the one clip that they should resemble. All of it that needs none of the videos is
    made at once, `report` adds them."""

    def __init__(self, observed, later=None, lds=50, stride=None):
        """Videos are (T, H, W, 3). The references are `later` frames of the clip (None: not at hand) and a linear
        dynamical system of `lds` components (0: none), whose patches and colours are those of its first draw."""
        self.clip, self.patches, self.stride = summarise(observed), Patches(observed, later), stride
        self.observed = {"name": "observed", **dict.fromkeys(TEXTURE_COLUMNS), **compare(self.clip, self.clip, stride)}
        half = len(observed) // 2
        self.observed["chain_distance"] = pair_distances([observed[:half], observed[len(observed) - half :]])[0, 1]
        self.references, self.portraits = self.judge([("later frames", later)] if later is not None else [])
        for row in self.references:
            row.update(self.patches.usual)
        if lds:
            samples = lds_samples(observed, lds)
            draws, portraits = self.judge([(None if k else "LDS", sample) for k, sample in enumerate(samples)])
            self.complete(draws, samples, samples[:1])
            self.references.append(mean_row("LDS", draws))
            self.portraits |= portraits

    def report(self, videos: dict[str, np.ndarray]) -> tuple[list[dict], dict[str, dict]]:
        """Rows of the table: the observed clip, each of the videos (by name), their mean if there are several, and the
        references. A row has "name" and the TEXTURE_COLUMNS, None where one makes no sense. And portraits by name of
        all these videos but the mean, for `draw_texture_report`."""
        chains, portraits = self.judge(videos.items())
        self.complete(chains, list(videos.values()), list(videos.values()))
        table = [self.observed, *chains, *([mean_row(f"mean of {len(chains)}", chains)] if len(chains) > 1 else [])]
        return table + self.references, {"observed": portrait(self.clip), **portraits, **self.portraits}

    def judge(self, named):
        """The rows of videos, pairs of name and video, without their patches and distances; and the portraits of those
        that have a name."""
        def judge_one(pair):
            name, video = pair[0], summarise(pair[1], self.clip)
            row = {"name": name, **dict.fromkeys(TEXTURE_COLUMNS), **compare(video, self.clip, self.stride)}
            return row, portrait(video) if name else None

        judged = utils.in_threads(judge_one, named)
        return [row for row, _ in judged], {row["name"]: each for row, each in judged if each}

    def complete(self, rows, videos, searched):
        """Add to the rows of videos their mean distances to each other, and to the first rows what is found of their
        patches, those of the videos `searched`."""
        add_distances(rows, videos)
        for row, figures in zip(rows, utils.in_threads(self.patches.figures, searched)):
            row.update(figures)


class SetTable:
    """The table of videos that were learned from several clips. All of it that needs none of the videos is made at
    once, `report` adds them."""

    def __init__(self, clips, stride=None):
        """clips: (N, T, H, W, 3)."""
        self.stride = stride
        self.frame = {"video": clips[0], "moving": np.logical_or.reduce([moving_pixels(clip) for clip in clips])}
        self.clips = utils.in_threads(lambda clip: summarise(clip, self.frame), clips)
        others = utils.in_threads(lambda k: self.judge(None, self.clips[k], own=k), range(len(clips)))
        add_distances(others, clips)
        self.others = self.mean("clips", others)
        self.portrait = mean_portrait([portrait(clip) for clip in self.clips])

    def report(self, videos: dict[str, np.ndarray]) -> tuple[list[dict], dict[str, dict]]:
        """Rows of the table: the clips, each against the other ones, as a mean; each of the videos (by name) against
        all clips; and their mean. See SET_COLUMNS: figures are means over the clips, nearest_psnr that of the nearest
        clip. And portraits, as of TextureTable; that of "observed" has the clips' mean curves and map, and the first
        one's frame."""
        def judge_chain(pair):
            video = summarise(pair[1], self.frame)
            return self.judge(pair[0], video), portrait(video)

        chains, pictured = zip(*utils.in_threads(judge_chain, videos.items()))
        add_distances(chains, list(videos.values()))
        table = [self.others, *chains, *([self.mean(f"mean of {len(chains)}", chains)] if len(chains) > 1 else [])]
        return table, {"observed": self.portrait, **dict(zip(videos, pictured))}

    def judge(self, name, video, own=None):
        """The row of a summary against all clips but number `own`."""
        figures = {k: compare(video, clip, self.stride) for k, clip in enumerate(self.clips) if k != own}
        nearest = max(figures, key=lambda k: figures[k]["nearest_psnr"])
        row = mean_row(name, list(figures.values()), SET_COLUMNS)
        return row | {"nearest_psnr": figures[nearest]["nearest_psnr"], "nearest_clip": nearest}

    def mean(self, name, rows):
        """The mean of rows of `judge`."""
        near = {row["nearest_clip"] for row in rows}
        return mean_row(name, rows, SET_COLUMNS) | {"nearest_clip": None, "clips_near": len(near)}


def texture_report(videos, observed, later=None, lds=50, stride=None):
    """The rows and portraits of a TextureTable."""
    return TextureTable(observed, later, lds, stride).report(videos)


def set_report(videos, clips, stride=None):
    """The rows and portraits of a SetTable."""
    return SetTable(clips, stride).report(videos)


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


class RecoveryTable:
    """The table of recovered videos beside the simple methods to beat. The rows of these are made at once, `report`
    adds those of the videos."""

    def __init__(self, truth, mask, without=()):
        """truth is (T, H, W, 3) and mask (T, H, W), or, for several clips, (N, T, H, W, 3) and (N, T, H, W): then the
        figures are those of all hidden pixels of all clips. without: names of methods that are left out."""
        self.truth, self.mask = truth, mask
        self.simple = [self.row(name, self.filled(fill)) for name, fill in FILLINGS.items() if name not in without]

    def report(self, recovered: dict[str, np.ndarray]) -> tuple[list[dict], dict]:
        """Rows of the table: the recovered videos by name, and the simple methods (RECOVERY_COLUMNS); no portraits."""
        return [self.row(*each) for each in recovered.items()] + self.simple, {}

    def clips(self, videos):
        """Pairs of a video and its mask."""
        masks = self.mask.reshape(-1, *self.mask.shape[-3:])
        return zip(videos.reshape(-1, *videos.shape[-4:]), masks, strict=True)

    def filled(self, fill):
        """The truth with what a simple method puts where pixels are hidden, as videos have it."""
        return np.stack([fill(*clip) for clip in self.clips(self.truth)]).reshape(self.truth.shape).round().clip(0, 255)

    def row(self, name, video):
        figures = recovery_metrics(self.truth, video, self.mask)
        realism = [each for clip in self.clips(video) if (each := hidden_realism(*clip)) is not None]
        figures["hidden_realism"] = float(np.mean(realism)) if realism else None
        return {"name": name} | {column: figures[column] for column in RECOVERY_COLUMNS}


def recovery_report(truth, recovered, mask):
    """The rows of a RecoveryTable without the methods that are among the recovered videos."""
    return RecoveryTable(truth, mask, without=recovered).report(recovered)[0]


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
