"""Hidden pixels guessed from visible ones: simple methods to beat, and where the chains of hidden pixels start.

A video is an array (T, H, W, 3) in grey levels 0-255, a mask bool (T, H, W), True where a pixel is
hidden. Every function returns the video as float32, unclipped, with its hidden pixels replaced, and raises InputError
if the mask hides every pixel. What is hidden has no influence.
"""

import numpy as np
import torch
from torch.nn.functional import pad

from data import InputError

AXES = (1, 2, 3)  # time, height and width of the channels of a field, (3, T, H, W)
MARGIN = 16  # hidden frames, rows and columns behind a video: for a Fourier transform its opposite edges are neighbours
SMOOTHING = 1.0  # std of the window that smooths a power spectrum, in frequency bins
FLOOR = 0.01  # white noise in a field, as a share of its variance
ROUNDING = 1 / 12  # variance that rounding to whole grey levels adds
HIDES_ALL = "the mask hides every pixel: there is nothing to fill from"
STEPS, ACCURACY = 60, 0.03  # conjugate gradients: how many at most, and to what share the error is to fall


def interpolate_linear(video: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Hidden pixels of `video` (T, H, W, 3) filled linearly between the pixel's visible moments before and after; held
    constant before the first and after the last.

    Pixels that are never visible: see `fill_never_visible`. Returns float32 (T, H, W, 3).
    """
    before, after = visible_neighbours(mask)
    t = np.arange(len(mask))[:, None, None]
    weight = np.clip((t - before) / np.maximum(after - before, 1), 0, 1)  # of `after`, (T, H, W)
    weight = weight.astype(np.float32)[..., None]
    filled = (1 - weight) * at_time(video, before) + weight * at_time(video, after)
    return fill_never_visible(np.where(mask[..., None], filled, video), mask)


def interpolate_nearest(video: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """As `interpolate_linear`, but from the visible moment that is nearest in time, the earlier one of two."""
    before, after = visible_neighbours(mask)
    t = np.arange(len(mask))[:, None, None]
    nearest = np.where(np.abs(t - before) <= np.abs(after - t), before, after)
    return fill_never_visible(np.where(mask[..., None], at_time(video, nearest), video), mask)


def temporal_mean(video: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """As `interpolate_linear`, but by the mean of the pixel's visible moments."""
    visible = ~mask[..., None]
    mean = np.where(visible, video, 0).sum(axis=0, dtype=np.float32) / np.maximum(visible.sum(axis=0), 1)  # (H, W, 3)
    return fill_never_visible(np.where(visible, video, mean.astype(np.float32)), mask)


def fill_flat(video: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Hidden pixels of `video` (T, H, W, 3) by the mean of all visible values."""
    if mask.all():
        raise InputError(HIDES_ALL)
    return np.where(mask[..., None], video[~mask].mean(dtype=np.float32), video).astype(np.float32)


def visible_neighbours(mask):
    """For each pixel and frame the last visible moment up to it, and the first from it on, int (T, H, W); where one
    side has none, both are the other's; where no side has, they are any moments."""
    last = len(mask)
    t = np.arange(last)[:, None, None]
    before = np.maximum.accumulate(np.where(mask, -1, t), axis=0)
    after = np.minimum.accumulate(np.where(mask, last, t)[::-1], axis=0)[::-1]
    before, after = np.where(before < 0, after, before), np.where(after == last, before, after)
    return before % last, after % last  # T stands for none


def at_time(video, t):
    """The pixels of a video (T, H, W, 3) at the moments t (T, H, W), float32."""
    return np.take_along_axis(video, t[..., None], axis=0).astype(np.float32)


def fill_never_visible(video, mask):
    """Pixels that are hidden in all frames take the mean over the visible pixels of their frame, or, in a frame without
    any, over those of all frames. InputError if none is visible at all. Returns float32 (T, H, W, 3)."""
    if mask.all():
        raise InputError(HIDES_ALL)
    video = video.astype(np.float32)
    never = mask.all(axis=0)
    if never.any():
        overall = video[~mask].mean(axis=0)
        for frame, hidden in zip(video, mask):
            frame[never] = overall if hidden.all() else frame[~hidden].mean(axis=0)
    return video


class GaussianField:
    """A video as its mean image plus a stationary Gaussian field, fitted to its visible pixels.

    Stationary: the covariance of two pixels depends on their distance in time, height and width alone, and so Fourier
    coefficients are independent, of variance `power`. The channels are those of the video turned to be uncorrelated.
    """

    def __init__(self, video, mask, device="cpu"):
        """The spectrum of the linear interpolation, which moves too little, and then, as in stochastic EM, that of a
        draw from the field given the visible pixels."""
        self.device = device
        guess = interpolate_linear(video, mask)
        self.mean = temporal_mean(video, mask).mean(axis=0)  # (H, W, 3), over the moments at which a pixel is visible
        self.channels = np.linalg.eigh(np.cov((guess - self.mean)[~mask].T))[1].astype(np.float32)
        x, free = self.enter(guess, mask)
        self.power = power_spectrum(x)
        x = expectation(x, free, self.power)
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(device)
        draw = filtered(noise, self.power.sqrt())
        self.power = power_spectrum(x + draw - expectation(draw * (1 - free), free, self.power))

    def fill(self, video, mask):
        """Hidden pixels replaced by their expectation given the visible ones (Wiener interpolation, kriging)."""
        x = expectation(*self.enter(interpolate_linear(video, mask), mask), self.power)
        x = x[:, : mask.shape[0], : mask.shape[1], : mask.shape[2]].cpu().numpy()
        filled = np.moveaxis(x, 0, 3) @ self.channels.T + self.mean
        return np.where(mask[..., None], filled, video).astype(np.float32)

    def enter(self, video, mask):
        """The field (3, T', H', W') of a video, its margin added, and which of its pixels are free, as 0 and 1."""
        from scipy.fft import next_fast_len

        x = np.moveaxis((video - self.mean) @ self.channels, 3, 0).astype(np.float32)
        margins = [k for n in reversed(mask.shape) for k in (0, next_fast_len(n + MARGIN, real=True) - n)]
        free = pad(torch.from_numpy(mask).float(), margins, value=1.0)
        return pad(torch.from_numpy(np.ascontiguousarray(x)), margins).to(self.device), free.to(self.device)


def interpolate_field(video: np.ndarray, mask: np.ndarray, device="cpu") -> np.ndarray:
    """Hidden pixels by their expectation given the visible ones under a stationary Gaussian field (`GaussianField`)."""
    return GaussianField(video, mask, device).fill(video, mask)


def filtered(x, response):
    """A field whose Fourier coefficients are multiplied by a response."""
    return torch.fft.irfftn(torch.fft.rfftn(x, dim=AXES) * response, s=x.shape[1:], dim=AXES)


def power_spectrum(x):
    """The variance of each Fourier coefficient of a field, smoothed, with a floor of white noise."""
    periodogram = torch.fft.rfftn(x, dim=AXES).abs().square() / x[0].numel()
    covariance = torch.fft.irfftn(periodogram, s=x.shape[1:], dim=AXES)
    for axis, n in zip(AXES, x.shape[1:], strict=True):  # a window over the lags smooths over the frequencies
        bins = torch.fft.fftfreq(n, device=x.device) * 2 * torch.pi * SMOOTHING
        covariance *= (-bins.square() / 2).exp().view([-1 if a == axis else 1 for a in range(4)])
    power = torch.fft.rfftn(covariance, dim=AXES).real.clamp_min(0)
    return power + FLOOR * x.square().mean(AXES, keepdim=True) + ROUNDING


def expectation(x, free, power):
    """A field of this power whose free pixels (1) are replaced by their expectation given the others (0).

    It is the most probable one, the minimum of x' C^-1 x, C the covariance: conjugate gradients from x on, with the
    covariance itself as preconditioner.
    """
    tiny = torch.finfo(x.dtype).tiny
    residual = -filtered(x, 1 / power) * free
    z = filtered(residual, power) * free
    p, energy = z, (residual * z).sum(AXES, keepdim=True)
    enough = ACCURACY**2 * energy
    for _ in range(STEPS):
        if (energy <= enough).all():
            break
        curved = filtered(p, 1 / power) * free
        step = energy / (p * curved).sum(AXES, keepdim=True).clamp_min(tiny)
        x, residual = x + step * p, residual - step * curved
        z = filtered(residual, power) * free
        before, energy = energy, (residual * z).sum(AXES, keepdim=True)
        p = z + energy / before.clamp_min(tiny) * p
    return x
