"""Numbers and pictures: synthesised videos judged by the clip they were learned from, recovered ones by the truth.

    python evaluate.py -observed CLIP -synthesized CLIP_OR_FOLDER ...     a table, evaluation.json, .csv and .png
    python evaluate.py -truth CLIP -mask MASK -recovered CLIP             a table, recovery.json and .csv

A table is judged as a whole, for no single column says "good": shuffled frames pass all but the frame difference and
what follows time, a shifted copy of the clip passes all but the nearest frame, and blur wins every PSNR. Two references
stand in each table of textures: later frames of the same clip, which is what a perfect model would score, and a linear
dynamical system, the classical method to beat.

A video is an array (T, H, W, 3), uint8 or float, in grey levels 0-255; all figures are in these units unless they say
otherwise. A mask is bool (T, H, W), True where a pixel is hidden.
"""

import csv
import io
import itertools
import json
import sys
from pathlib import Path

import numpy as np
import torch

import utils
from data import InputError, list_clips, read_clip, read_mask
from interpolate import ROUNDING, interpolate_field, interpolate_linear, interpolate_nearest, temporal_mean

LAGS = 10  # frames, of the temporal autocorrelation
MOVING = 4.0  # a pixel moves if its std over time is above so many grey levels
TEMPORAL_FLOOR = 10.0  # grey levels^2 added to temporal spectra: white flicker of 3 grey levels, hardly seen
SPATIAL_FLOOR = ROUNDING  # the same for spatial spectra
BEST_PSNR = 60.0  # dB, given to frames that are equal
LDS_DRAWS = 6  # samples of the linear dynamical system, whose figures are averaged
SHOWN = 4  # synthesised videos whose frames and maps are drawn; curves are drawn for all

# column: (heading of two lines, decimals, meaning)
TEXTURE_COLUMNS = {
    "temporal_std": ("temp.|std", 2, "standard deviation over time, mean over pixels"),
    "std_ratio": ("std|ratio", 2, "the same over the clip's"),
    "frame_diff": ("frame|diff.", 2, "mean absolute difference of successive frames"),
    "frame_diff_ratio": ("diff.|ratio", 2, "the same over the clip's"),
    "mean_image": ("mean|image", 2, "mean absolute difference of the mean images"),
    "std_map_corr": ("std-map|corr.", 3, "correlation of the maps of temporal std"),
    "w1": ("colour|W1", 2, "Wasserstein-1 distance of the colour marginals, mean of R, G, B"),
    "autocorr": ("auto-|corr.", 3, f"mean error of the temporal autocorrelation, lags 1-{LAGS}"),
    "spatial_db": ("spatial|dB", 2, "distance of the spatial power spectra"),
    "temporal_db": ("temp.|dB", 2, "distance of the temporal power spectra"),
    "nearest_psnr": ("nearest|PSNR", 2, "PSNR of the nearest frame of the clip, dB; far above later frames': copied"),
    "imprint": ("stride|imprint", 3, "share of the frame differences' power at layer 1's stride (with -stride)"),
    "chain_distance": ("chain|dist.", 2, "mean absolute difference to the other videos; the clip: of its halves"),
}
FILLINGS = {  # simple methods to beat where pixels are hidden
    "Gaussian field": interpolate_field,
    "linear interpolation": interpolate_linear,
    "nearest frame": interpolate_nearest,
    "temporal mean": temporal_mean,
}
QUICK_COLUMNS = ("std_ratio", "frame_diff_ratio", "mean_image", "std_map_corr")
RECOVERY_COLUMNS = {
    "hidden_mae": ("hidden|MAE", 3, "mean absolute error on hidden pixels"),
    "hidden_psnr": ("hidden|PSNR", 2, "PSNR on hidden pixels, dB"),
    "visible_error": ("visible|error", 2, "largest error on a visible pixel; must be 0"),
}
WINDOW_COLUMNS = {
    "nearest": ("to held-|out", 2, "root mean square difference to the nearest held-out window, mean over the videos"),
    "coverage": ("from|held-out", 2, "the same from each held-out window to the nearest of the videos"),
    **{name: TEXTURE_COLUMNS[name] for name in ("temporal_std", "std_ratio", "frame_diff", "frame_diff_ratio", "w1")},
}
COLUMNS = TEXTURE_COLUMNS | RECOVERY_COLUMNS | WINDOW_COLUMNS


# -------------------------------------------------------------------------------------------------------- textures


def texture_metrics(video: np.ndarray, observed: np.ndarray, stride: int | None = None) -> dict[str, float]:
    """Figures of one video against the clip it should resemble, both (T, H, W, 3); see TEXTURE_COLUMNS.

    stride: that of layer 1 in time, for the imprint. InputError if the shapes differ or the clip does not move.
    """
    clip = summarise(observed)
    return compare(summarise(video, clip), clip, stride)


def quick_metrics(videos: torch.Tensor, observed: torch.Tensor) -> dict[str, float]:
    """The cheap ones of texture_metrics, means over the videos (N, 3, T, H, W) against a clip (3, T, H, W), on their
    device: QUICK_COLUMNS, for the log of a run."""

    def sketch(x):
        mean = x.mean(-3, keepdim=True)
        std = (x - mean).square_().mean(-3).sqrt_()  # x.std takes two to three times as long
        return std, mean.squeeze(-3), x.diff(dim=-3).abs_().mean()

    (std, mean, difference), (clip_std, clip_mean, clip_difference) = sketch(videos), sketch(observed)
    correlations = torch.corrcoef(torch.cat([clip_std[None], std]).flatten(1))[0, 1:].nan_to_num()
    figures = [std.mean() / clip_std.mean(), difference / clip_difference, (mean - clip_mean).abs().mean(),
               correlations.mean()]
    return dict(zip(QUICK_COLUMNS, torch.stack(figures).tolist(), strict=True))


def summarise(video, clip=None):
    """What one video brings to a comparison, by name. clip: the summary of the clip to compare with, whose moving
    pixels are those whose autocorrelation counts; without, the video is that clip."""
    if clip and video.shape != clip["video"].shape:
        raise InputError(f"videos of shapes {video.shape} and {clip['video'].shape} cannot be compared")
    video = video.astype(np.float32)
    std = video.std(axis=0)  # (H, W, 3)
    moving = clip["moving"] if clip else std > min(MOVING, std.max() / 2)
    if not moving.any():
        raise InputError("the observed clip does not move: all its frames are equal")
    return {
        "video": video,
        "moving": moving,
        "mean": video.mean(axis=0),
        "std": std,
        "frame_diff": np.abs(np.diff(video, axis=0)).mean(),
        "colours": np.sort(video.reshape(-1, video.shape[-1]).T),  # (3, T H W)
        "autocorrelation": autocorrelation(video, moving),
        "spatial": spatial_spectrum(video),
        "temporal": temporal_spectrum(video),
    }


def compare(video, clip, stride):
    """The figures of texture_metrics from two summaries."""
    frames, observed = video["video"], clip["video"]
    metrics = {
        "temporal_std": video["std"].mean(),
        "std_ratio": video["std"].mean() / clip["std"].mean(),
        "frame_diff": video["frame_diff"],
        "frame_diff_ratio": video["frame_diff"] / clip["frame_diff"],
        "mean_image": np.abs(video["mean"] - clip["mean"]).mean(),
        "std_map_corr": correlation(video["std"], clip["std"]),
        "w1": np.abs(video["colours"] - clip["colours"]).mean(),
        "autocorr": np.abs(video["autocorrelation"] - clip["autocorrelation"]).mean(),
        "spatial_db": decibels(video["spatial"], clip["spatial"], SPATIAL_FLOOR),
        "temporal_db": decibels(smooth(video["temporal"]), smooth(clip["temporal"]), TEMPORAL_FLOOR),
        "nearest_psnr": np.mean([psnr(((observed - f) ** 2).mean(axis=(1, 2, 3)).min()) for f in frames[::7]]),
    }
    if stride is not None:
        metrics["imprint"] = stride_imprint(frames, stride)
    return {name: float(value) for name, value in metrics.items()}


def correlation(a, b):
    """Pearson's correlation of two maps; 0 if one of them is constant."""
    a, b = (m.ravel() - m.mean(dtype=np.float64) for m in (a, b))
    norm = np.linalg.norm(a) * np.linalg.norm(b)
    return a @ b / norm if norm > 0 else 0.0


def autocorrelation(video, moving):
    """Temporal autocorrelation at lags 1-10 (1 to T - 1 of a shorter video), each pixel normalised by its own variance,
    mean over the pixels `moving` (H, W, 3). The biased estimator: sums over T - lag products are divided by T. A pixel
    that stands still has 0."""
    x = video[:, moving]  # (T, pixels)
    x = x - x.mean(axis=0)
    power = np.einsum("tp,tp->p", x, x)
    power[power == 0] = 1
    lags = range(1, min(LAGS, len(x) - 1) + 1)
    return np.array([(np.einsum("tp,tp->p", x[lag:], x[:-lag]) / power).mean() for lag in lags])


def temporal_spectrum(video):
    """Power at 1/T, 2/T, ..., 1/2 cycles per frame, (T // 2,), mean over pixels and channels; each pixel's mean over
    time removed. A density: white noise of variance v has v at each."""
    x = video.reshape(len(video), -1)  # (T, H W 3)
    power = np.abs(np.fft.rfft(x - x.mean(axis=0), axis=0)) ** 2
    return power.mean(axis=1)[1:] / len(x)


def smooth(spectrum):
    """Running mean over a tenth of a cycle per frame (7 frequencies of a clip of 70 frames): one draw of a random
    process has a rough periodogram, and the roughness says nothing of the process."""
    width = max(1, len(spectrum) // 5)
    return np.convolve(spectrum, np.full(width, 1 / width), mode="valid")


def spatial_spectrum(video):
    """Power at 1, 2, ... cycles across the shorter side, up to half its pixels, of the mean of R, G, B; mean over
    directions and frames; Hann window, each frame's mean removed. A density, as `temporal_spectrum`."""
    height, width = video.shape[1:3]
    window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1]).astype(np.float32)
    grey = video.mean(axis=-1)  # (T, H, W)
    x = (grey - grey.mean(axis=(1, 2), keepdims=True)) * window
    power = (np.abs(np.fft.rfft2(x)) ** 2).mean(axis=0) / (window**2).sum()  # (H, W // 2 + 1)
    side = min(height, width)
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)) * side
    bins = radius.round().astype(int).ravel()
    rings = np.bincount(bins, power.ravel()) / np.maximum(np.bincount(bins), 1)
    return rings[1 : side // 2 + 1]


def decibels(a, b, floor):
    """Mean absolute difference of two spectra in dB, after `floor` is added to both."""
    return np.abs(10 * np.log10((a + floor) / (b + floor))).mean()


def psnr(mse):
    """Peak signal-to-noise ratio of grey levels 0-255 in dB, at most BEST_PSNR."""
    return min(BEST_PSNR, 10 * np.log10(255**2 / max(mse, 1e-9)))


def stride_imprint(video: np.ndarray, stride: int) -> float:
    """Share of the frame differences' power, over all pixels, at the frequency 1 / stride and its harmonics.

    The first differences are dropped until their number is a multiple of the stride: the frequencies then are exact.
    White noise of n differences has stride / n, a flicker of period `stride` 1, a still video 0.
    """
    if not 2 <= stride < len(video):
        raise InputError(f"-stride {stride} is not from 2 to {len(video) - 1}, less than the frames")
    x = np.diff(video.astype(np.float32), axis=0)
    n = len(x) // stride * stride
    x = x[len(x) - n :].reshape(n, -1)  # (n, H W 3)
    x = x - x.mean(axis=0)
    folded = x.reshape(n // stride, stride, -1).sum(axis=0)  # its spectrum is every (n / stride)-th value of that of x
    power = (np.abs(np.fft.fft(folded, axis=0)) ** 2).sum()
    return float(power / max(n * np.vdot(x, x), 1e-9))  # Parseval


def chain_distance(videos) -> float:
    """Mean absolute difference between two of the videos, over all pairs: near 0 where all chains are one."""
    if len(videos) < 2:
        raise InputError("a distance between chains needs two or more videos")
    return float(np.mean(pair_distances(videos)[np.triu_indices(len(videos), 1)]))


def pair_distances(videos):
    """Mean absolute differences of N videos, (N, N)."""
    videos = [video.astype(np.float32) for video in videos]
    pairs, distances = list(itertools.combinations(range(len(videos)), 2)), np.zeros((len(videos), len(videos)))
    each = utils.in_threads(lambda pair: np.abs(videos[pair[0]] - videos[pair[1]]).mean(), pairs)
    for (i, j), distance in zip(pairs, each):
        distances[i, j] = distances[j, i] = distance
    return distances


# ------------------------------------------------------------------------------------- the linear dynamical system


def fit_dynamics(video, components):
    """The dynamic texture of Doretto, Chiuso, Wu, Soatto (IJCV 2003): y_t = mean + x_t C, x_{t+1} = x_t A + noise,
    states x as rows: (mean, C, A, std of x, noise), where white noise times `noise` has the noise's covariance.

    C: the leading principal components of the clip, by SVD; A: least squares; noise: what that leaves. Differs from the
    paper: eigenvalues of A beyond 0.99 are drawn back to it, since so few frames often give a system that explodes; and
    components are at most three quarters of the frames, or nothing would be left for the noise.
    """
    Y = video.reshape(len(video), -1).astype(np.float64)  # (T, H W 3)
    mean = Y.mean(axis=0)
    U, s, C = np.linalg.svd(Y - mean, full_matrices=False)
    k = min(components, 3 * len(Y) // 4, int((s > 1e-6 * s[0]).sum()))
    X, C = U[:, :k] * s[:k], C[:k]  # (T, k), (k, H W 3)
    A = stabilised(np.linalg.lstsq(X[:-1], X[1:], rcond=None)[0])
    residuals = X[1:] - X[:-1] @ A
    return mean, C, A, X.std(axis=0), np.linalg.qr(residuals, mode="r") / np.sqrt(len(residuals))


def sample_dynamics(system, num_frames, rng):
    """Frames (num_frames, H W 3) of a system, clipped to [0, 255]; its first state is drawn like those of the clip."""
    mean, C, A, state_std, noise = system
    x = rng.standard_normal(len(A)) * state_std
    states = np.empty((num_frames, len(A)))
    for t in range(num_frames):
        states[t] = x
        x = x @ A + rng.standard_normal(len(noise)) @ noise
    return np.clip(mean + states @ C, 0, 255).astype(np.float32)


def stabilised(A, radius=0.99):
    """A with eigenvalues no larger than `radius`, and otherwise the same."""
    values, vectors = np.linalg.eig(A)
    values = values * np.minimum(1, radius / np.maximum(np.abs(values), 1e-12))
    return (vectors * values @ np.linalg.inv(vectors)).real


def lds_samples(observed, components):
    """Videos like the observed one, drawn from its linear dynamical system."""
    system = fit_dynamics(observed, components)
    rngs = [np.random.default_rng(seed) for seed in range(LDS_DRAWS)]
    return [sample_dynamics(system, len(observed), rng).reshape(observed.shape) for rng in rngs]


# -------------------------------------------------------------------------------------------------- hidden pixels


def recovery_metrics(truth: np.ndarray, recovered: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Figures of a recovered video against the truth, both (T, H, W, 3), with mask (T, H, W); see RECOVERY_COLUMNS."""
    if not truth.shape == recovered.shape == (*mask.shape, 3):
        raise InputError(f"truth {truth.shape}, recovered {recovered.shape} and mask {mask.shape} do not fit together")
    if not mask.any():
        raise InputError("the mask hides no pixel: there is nothing to judge")
    error = np.abs(recovered.astype(np.float32) - truth.astype(np.float32))
    return {
        "hidden_mae": float(error[mask].mean()),
        "hidden_psnr": float(psnr((error[mask] ** 2).mean())),
        "visible_error": float(error[~mask].max(initial=0)),
    }


# ---------------------------------------------------------------------------------------------------------- tables


def texture_report(videos: dict[str, np.ndarray], observed: np.ndarray, later: np.ndarray | None = None,
                   lds: int = 50, stride: int | None = None) -> tuple[list[dict], dict[str, dict]]:
    """Rows of the table: the observed clip, each of the videos (by name), their mean if there are several, and the
    references: `later` frames of the clip (None: not at hand) and a linear dynamical system of `lds` components (0:
    none). All videos are (T, H, W, 3). A row has "name" and the TEXTURE_COLUMNS, None where one makes no sense.
    And portraits by name of all these videos but the mean, for `draw_texture_report`."""
    clip = summarise(observed)

    def judge(named):
        name, video = named[0], summarise(named[1], clip)
        row = {"name": name, **dict.fromkeys(TEXTURE_COLUMNS), **compare(video, clip, stride)}
        return row, portrait(video) if name else None

    samples = lds_samples(observed, lds) if lds else []
    references = [("later frames", later)] if later is not None else []
    named = [("observed", observed), *videos.items(), *references]
    named += [(None if k else "LDS", sample) for k, sample in enumerate(samples)]  # the first has its portrait drawn
    rows, pictured = zip(*utils.in_threads(judge, named))
    half, last = len(observed) // 2, len(rows) - len(samples)
    chains, later_frames, draws = rows[1 : len(videos) + 1], rows[len(videos) + 1 : last], rows[last:]
    rows[0]["chain_distance"] = pair_distances([observed[:half], observed[len(observed) - half :]])[0, 1]
    add_distances(chains, list(videos.values()))
    add_distances(draws, samples)
    table = [rows[0], *chains, *([mean_row(f"mean of {len(chains)}", chains)] if len(chains) > 1 else [])]
    table += [*later_frames, *([mean_row("LDS", draws)] if draws else [])]
    return table, {name: each for (name, _), each in zip(named, pictured) if name}


def pieces(videos: np.ndarray, frames: int) -> dict[str, np.ndarray]:
    """Videos (N, T, H, W, 3) in pieces of so many frames, by name; what is left at the end is not judged."""
    return {f"new {k} from frame {t}": video[t : t + frames] for k, video in enumerate(videos)
            for t in range(0, len(video) - frames + 1, frames)}


def add_distances(rows, videos):
    """Complete the row of each video by its mean distance to the others."""
    if len(rows) > 1:
        for row, distances in zip(rows, pair_distances(videos)):
            row["chain_distance"] = distances.sum() / (len(rows) - 1)


def mean_row(name, rows):
    """The mean of each column."""
    means = {c: None if rows[0][c] is None else float(np.mean([r[c] for r in rows])) for c in TEXTURE_COLUMNS}
    return {"name": name, **means}


def recovery_report(truth: np.ndarray, recovered: np.ndarray, mask: np.ndarray, more: dict | None = None) -> list[dict]:
    """Rows of the table: the recovered video, `more` of them by name, and the simple methods to beat (one that is among
    `more` is not computed again); see RECOVERY_COLUMNS."""
    videos = {"recovered": recovered, **(more or {})}
    videos |= {name: fill(truth, mask) for name, fill in FILLINGS.items() if name not in videos}
    return [{"name": name, **recovery_metrics(truth, video, mask)} for name, video in videos.items()]


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
        row = {"name": name, "nearest": distances.min(axis=1).mean(), "coverage": distances.min(axis=0).mean(),
               "temporal_std": std, "std_ratio": std / usual_std, "frame_diff": difference,
               "frame_diff_ratio": difference / usual_difference, "w1": colour_distance(videos, held_out)}
        rows.append({c: v if c == "name" else float(v) for c, v in row.items()})
    return rows


def motion_of(videos):
    """Temporal standard deviation and mean absolute frame difference, means over videos (N, T, H, W, 3)."""
    stds = [video.std(axis=0, dtype=np.float32).mean() for video in videos]
    differences = [np.abs(np.diff(video.astype(np.int16), axis=0)).mean() for video in videos]
    return max(np.mean(stds), 1e-9), max(np.mean(differences), 1e-9)


def rms_distances(videos, others):
    """Root mean square differences of videos (N, ...) and others (M, ...), (N, M)."""
    a, b = (x.reshape(len(x), -1).astype(np.float32) for x in (videos, others))
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.sqrt(np.maximum(squares, 0) / a.shape[1])


def colour_distance(videos, others):
    """Wasserstein-1 distance of the colour marginals of two groups of videos (N, T, H, W, 3), mean of R, G, B."""
    probabilities = np.linspace(0, 1, 1001)
    a, b = (np.quantile(x.reshape(-1, 3), probabilities, axis=0) for x in (videos, others))
    return np.abs(a - b).mean()


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
    utils.write_atomically(path, text.getvalue().encode())


def write_json(path: str | Path, rows: list[dict], settings: dict) -> None:
    """{"settings": ..., "rows": ...} as JSON; settings are plain types by name."""
    utils.write_atomically(path, json.dumps({"settings": settings, "rows": rows}, indent=2).encode())


def save_report(folder: str | Path, name: str, rows: list[dict], settings: dict) -> None:
    """Print the table, and write it as folder/<name>.csv and .json."""
    print_table(rows)
    write_csv(Path(folder) / f"{name}.csv", rows)
    write_json(Path(folder) / f"{name}.json", rows, settings)


# --------------------------------------------------------------------------------------------------------- pictures


def portrait(video):
    """What a picture shows of a summary, by name: far less than the summary holds."""
    frames = video["video"]
    counts, edges = np.histogram(np.clip(frames, 0, 255), bins=64, range=(0, 256))
    return {
        "frames": len(frames),
        "middle": np.clip(frames[len(frames) // 2], 0, 255).round().astype(np.uint8),
        "std": video["std"].mean(axis=-1),  # (H, W)
        "autocorrelation": np.concatenate([[1], video["autocorrelation"]]),
        "temporal": 10 * np.log10(video["temporal"] + TEMPORAL_FLOOR),  # dB
        "spatial": 10 * np.log10(video["spatial"] + SPATIAL_FLOOR),
        "histogram": ((edges[1:] + edges[:-1]) / 2, 100 * counts / counts.sum()),
    }


def draw_texture_report(path: str | Path, portraits: dict[str, dict], stride: int | None = None) -> None:
    """One PNG for the portraits of `texture_report`: a frame and the map of temporal std of each video, then
    autocorrelation, spectra and histograms."""
    from matplotlib.figure import Figure

    colours = {"observed": "black", "later frames": "tab:green", "LDS": "tab:blue"}
    videos = [name for name in portraits if name not in colours]
    for shade, name in zip(np.linspace(0.0, 0.75, max(len(videos), 2)), videos):
        colours[name] = (0.85, 0.1 + 0.75 * shade, 0.1)
    pictured = {name: each for name, each in portraits.items() if name not in videos[SHOWN:]}
    columns = max(5, len(pictured))
    height, width = portraits["observed"]["std"].shape
    tall = 2 * 15 / columns * height / width + 0.6  # inches, of two rows of pictures
    figure = Figure(figsize=(16, tall + 4.6), layout="constrained", dpi=100)
    figure.get_layout_engine().set(h_pad=0.06)
    top, bottom = figure.subfigures(2, 1, height_ratios=(tall, 4.6))
    draw_maps(top, pictured, columns)
    draw_curves(bottom, portraits, colours, pictured, stride)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    utils.write_atomically(path, png.getvalue())


def draw_maps(figure, pictured, columns):
    """The middle frame of each video, and below it the map of its std over time; one scale for all maps."""
    axes = figure.subplots(2, columns)
    highest = np.percentile(next(iter(pictured.values()))["std"], 99.5)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.set_frame_on(False)
    for (above, below), (name, video) in zip(axes.T, pictured.items()):
        above.imshow(video["middle"])
        above.set_title(name)
        image = below.imshow(video["std"], cmap="magma", vmin=0, vmax=highest)
        below.set_xlabel(f"mean {video['std'].mean():.1f}")
    axes[0, 0].set_ylabel("middle frame", fontsize=12)
    axes[1, 0].set_ylabel("std over time", fontsize=12)
    figure.colorbar(image, ax=axes, label="grey levels", shrink=0.42, anchor=(0, 0.1), aspect=15, pad=0.01)


def draw_curves(figure, portraits, colours, labelled, stride):
    """Autocorrelation, temporal and spatial spectrum, histogram of the videos, each in its colour."""
    axes = figure.subplots(1, 4)
    for name, video in reversed(portraits.items()):  # the clip on top
        label = name if name in labelled else None
        style = {"color": colours[name], "label": label, "linewidth": 2.2 if name == "observed" else 1.4}
        axes[0].plot(video["autocorrelation"], **style)
        axes[1].plot(np.arange(1, len(video["temporal"]) + 1) / video["frames"], video["temporal"], **style)
        axes[2].plot(np.arange(1, len(video["spatial"]) + 1), video["spatial"], **style)
        axes[3].plot(*video["histogram"], **style)
    axes[0].set(title="temporal autocorrelation, moving pixels", xlabel="lag (frames)")
    axes[0].axhline(0, color="0.7", linewidth=0.8)
    axes[1].set(title="temporal spectrum", xlabel="cycles per frame", ylabel="dB")
    if stride:
        axes[1].set_title(f"temporal spectrum (dotted: stride {stride})")
        for harmonic in range(1, stride // 2 + 1):
            axes[1].axvline(harmonic / stride, color="0.5", linewidth=1, linestyle=":")
    axes[2].set(title="spatial spectrum", xlabel="cycles per shorter side", ylabel="dB", xscale="log")
    axes[3].set(title="histogram of R, G, B", xlabel="grey level", ylabel="% of values", yscale="log")
    axes[3].set_ylim(bottom=5e-3)
    for ax in axes:
        ax.grid(alpha=0.25)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=8, frameon=False)


# ----------------------------------------------------------------------------------------------------- command line


def build_parser():
    meanings = [f"  {key:<17} {meaning}" for key, (_, _, meaning) in COLUMNS.items()]
    parser = utils.ArgumentParser(
        prog="evaluate.py",
        description="Judge synthesised videos by the clip they were learned from, or a recovered video by the truth. A "
        "clip is a\nvideo file or a folder of images; a folder of clips stands for all of them, so after a run of "
        "main.py:\n\n"
        "  evaluate.py -observed trainingVideo/fire_pot -synthesized output/fire_pot/synthesized_sequence -stride 3",
        epilog="columns (grey levels 0-255 unless they say otherwise; evaluation.csv and .json use these names):\n"
        + "\n".join(meanings)
        + "\n\nNo column alone says 'good': judge the table as a whole. Flags take one dash or two, in full.",
    )
    add = utils.add_flag
    group = parser.add_argument_group("synthesised videos")
    add(group, "observed", None, "the clip they were learned from", metavar="CLIP")
    add(group, "synthesized", None, "the videos to judge", nargs="+", metavar="CLIP")
    add(group, "lds", 50, "components of the linear dynamical system they are compared with, 0: none",
        type=utils.non_negative_int)
    add(group, "stride", None, "layer 1's stride in time (3 for FC_S_large): adds the imprint's column",
        type=utils.positive_int)
    group = parser.add_argument_group("a recovered video")
    add(group, "truth", None, "the clip as it was before pixels were hidden", metavar="CLIP")
    add(group, "mask", None, "what was hidden: .mat, .npy, video or folder of images (white = hidden)")
    add(group, "recovered", None, "the video to judge, as images: lossy video changes visible pixels", metavar="CLIP")
    group = parser.add_argument_group("both")
    add(group, "num_frames", None, "first frames of each clip that are used (default 70; the recovered video's)",
        type=utils.positive_int)
    add(group, "im_size", None, "side, or height x width, to compare at (default 100; the recovered video's)",
        type=utils.image_size)
    add(group, "out", "./evaluation", "folder for the results", metavar="FOLDER")
    return parser


def parse(argv=None):
    """The settings: those of one task, all it needs and none of the other's."""
    parser = build_parser()
    args = parser.parse_args(argv)
    textures, recovery = (args.observed, args.synthesized), (args.truth, args.mask, args.recovered)
    if all(textures) == all(recovery) or (any(textures) and any(recovery)):
        parser.error("give either -observed and -synthesized, or -truth, -mask and -recovered")
    return args


def find_clips(paths):
    """Every clip of files and folders by its name, or by its path where names repeat: {name: path}."""
    found = []
    for path in map(Path, paths):
        if not path.exists():
            raise InputError(f"'{path}' does not exist")
        found += list_clips(path) if path.is_dir() else [path]
    found = list(dict.fromkeys(found))
    repeated = len({path.name for path in found}) < len(found)
    return {str(path) if repeated else path.name: path for path in found}


def one_clip(path):
    """The only clip that a file or folder holds."""
    clips = find_clips([path])
    if len(clips) > 1:
        raise InputError(f"'{path}' holds {len(clips)} clips, name one of them: {', '.join(clips)}")
    return next(iter(clips.values()))


def read_observed(path, num_frames, im_size):
    """The first frames of a clip, and as many later ones, or None if it is too short for them."""
    try:
        video = read_clip(path, 2 * num_frames, im_size)
    except InputError:
        return read_clip(path, num_frames, im_size), None
    return video[:num_frames], video[num_frames:]


def make_folder(path):
    """Make the folder for the results, or InputError."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"-out '{path}' cannot be a folder: {error.strerror}") from None


def evaluate_textures(args):
    """Print, write and draw the table of synthesised videos."""
    num_frames, im_size = args.num_frames or 70, args.im_size or (100, 100)
    clips = find_clips(args.synthesized)
    observed, later = read_observed(one_clip(args.observed), num_frames, im_size)
    videos = {name: read_clip(path, num_frames, im_size) for name, path in clips.items()}
    make_folder(args.out)
    rows, portraits = texture_report(videos, observed, later, args.lds, args.stride)
    save_report(args.out, "evaluation", rows, {**vars(args), "num_frames": num_frames, "im_size": im_size})
    if later is None:
        print(f"no later frames: the observed clip has fewer than {2 * num_frames}")
    print("Judge the table as a whole: no column alone says 'good' (-h explains them).")
    draw_texture_report(f"{args.out}/evaluation.png", portraits, args.stride)
    print(f"evaluation.png, .csv and .json are in '{args.out}'")


def evaluate_recovery(args):
    """Print and write the table of a recovered video."""
    recovered = read_clip(one_clip(args.recovered), args.num_frames, args.im_size)
    size = recovered.shape[1:3]
    mask = read_mask(args.mask, len(recovered), size)
    truth = read_clip(one_clip(args.truth), len(recovered), size)
    make_folder(args.out)
    rows = recovery_report(truth, recovered, mask)
    save_report(args.out, "recovery", rows, {**vars(args), "num_frames": len(recovered), "im_size": size})
    if rows[0]["visible_error"] > 0:
        print("Visible pixels have changed: by lossy video, another size, or a fault.")
    print(f"recovery.csv and .json are in '{args.out}'")


def main(argv=None):
    args = parse(argv)
    evaluate = evaluate_textures if args.observed else evaluate_recovery
    return utils.run_program(lambda: evaluate(args), InputError)


if __name__ == "__main__":
    sys.exit(main())
