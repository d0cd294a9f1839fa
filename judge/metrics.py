"""Figures that judge videos: synthesised ones by the clip they were learned from, recovered ones by the truth.

A video is an array (T, H, W, 3), uint8 or float, in grey levels 0-255; all figures are in these units unless they say
otherwise. A mask is bool (T, H, W), True where a pixel is hidden.
"""

import itertools

import numpy as np
import torch

import utils
from data import InputError
from field.conditional import ROUNDING

LAGS = 10  # frames, of the temporal autocorrelation
MOVING = 4.0  # a pixel moves if its std over time is above so many grey levels
TEMPORAL_FLOOR = 10.0  # grey levels^2 added to temporal spectra: white flicker of 3 grey levels, hardly seen
SPATIAL_FLOOR = ROUNDING  # the same for spatial spectra
BEST_PSNR = 60.0  # dB, given to frames that are equal
QUICK_COLUMNS = ("std_ratio", "frame_diff_ratio", "mean_image", "std_map_corr")


def texture_metrics(video: np.ndarray, observed: np.ndarray, stride: int | None = None) -> dict[str, float]:
    """Figures of one video against the clip it should resemble, both (T, H, W, 3); see TEXTURE_COLUMNS.

    stride: that of layer 1 in time, for the imprint. InputError if the shapes differ or the clip does not move.
    """
    clip = summarise(observed)
    return compare(summarise(video, clip), clip, stride)


def quick_metrics(videos: torch.Tensor, clips: torch.Tensor) -> dict[str, float]:
    """The cheap ones of texture_metrics, means over the videos (N, 3, T, H, W) against each of the clips
    (M, 3, T, H, W), on their device: QUICK_COLUMNS, for the log of a run."""

    def sketch(x):
        mean = x.mean(-3, keepdim=True)
        std = (x - mean).square_().mean(-3).sqrt_()  # x.std takes two to three times as long
        return std, mean.squeeze(-3), x.diff(dim=-3).abs_().flatten(1).mean(1)

    std, mean, difference = sketch(videos)

    def against(clip_std, clip_mean, clip_difference):
        correlations = torch.corrcoef(torch.cat([clip_std[None], std]).flatten(1))[0, 1:].nan_to_num()
        return torch.stack([std.mean() / clip_std.mean(), difference.mean() / clip_difference,
                            (mean - clip_mean).abs().mean(), correlations.mean()])

    figures = torch.stack([against(*clip) for clip in zip(*sketch(clips), strict=True)]).mean(0)
    return dict(zip(QUICK_COLUMNS, figures.tolist(), strict=True))


def summarise(video, clip=None):
    """What one video brings to a comparison, by name. clip: the summary of the clip to compare with, whose moving
    pixels are those whose autocorrelation counts; without, the video is that clip."""
    if clip and video.shape != clip["video"].shape:
        raise InputError(f"videos of shapes {video.shape} and {clip['video'].shape} cannot be compared")
    video = video.astype(np.float32)
    std = video.std(axis=0)  # (H, W, 3)
    moving = clip["moving"] if clip else moving_pixels(video)
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


def moving_pixels(clip):
    """Whether each value of a clip's frames moves, bool (H, W, 3): its std over time is above MOVING or, in a clip that
    hardly moves, above half of the largest. InputError if none does."""
    std = clip.astype(np.float32).std(axis=0)
    moving = std > min(MOVING, std.max() / 2)
    if not moving.any():
        raise InputError("the observed clip does not move: all its frames are equal")
    return moving


def compare(video, clip, stride):
    """The figures of texture_metrics from two summaries."""
    frames, observed = video["video"], clip["video"]
    metrics = {
        "std_ratio": video["std"].mean() / clip["std"].mean(),
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


def recovery_metrics(truth: np.ndarray, recovered: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Figures of a recovered video against the truth, both (..., T, H, W, 3), with mask (..., T, H, W); see
    RECOVERY_COLUMNS."""
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
