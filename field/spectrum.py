"""How a clip's noise hangs together in time and space, fitted for GaussianField."""

import math

import torch

from field.colours import gaussian_ranks

POWER = 1.03  # of the clip's spectrum: curves make colours rougher than the noise behind them, which is smoother
MARGIN = 8  # frames of the box beyond a video: its opposite ends are neighbours
AXES = (-3, -2, -1)  # time, height, width


def gaussianized(first, stationary):
    """Values (N, T, H, W) by their rank at their pixel, Gaussian, times the pixel's std: the noise behind the curve."""
    n, t, h, w = first.shape
    flat = first.reshape(1, -1) if stationary else first.reshape(n * t, h * w).T  # (pixels, moments)
    noise = torch.empty_like(flat)
    ranks = gaussian_ranks(flat.shape[1], flat.device).float().expand_as(flat)
    noise.scatter_(1, flat.argsort(1), ranks)
    noise *= flat.std(1, correction=0, keepdim=True)
    return noise.view(n, t, h, w) if stationary else noise.T.reshape(n, t, h, w)


def autocovariance(x):
    """The autocovariance of x (N, T, H, W), mean over the videos: lags 0, 1, ... in time, and in space up to half the
    side either way, lag 0 in the middle; unbiased, then tapered by a cosine to 0."""
    from scipy.fft import next_fast_len

    n, reach = x.shape[1:], (x.shape[1], *((side + 1) // 2 for side in x.shape[2:]))  # lags below these
    box = [next_fast_len(side + lags) for side, lags in zip(n, reach, strict=True)]
    power = sum(torch.fft.rfftn(video, s=box, dim=AXES).abs().square() for video in x) / len(x)
    covariance = torch.fft.irfftn(power, s=box, dim=AXES)
    for axis, (side, lags) in enumerate(zip(n, reach, strict=True)):
        lag = torch.arange(0 if axis == 0 else 1 - lags, lags, device=x.device)
        weight = (0.5 + 0.5 * torch.cos(math.pi * lag / lags)) / (side - lag.abs())
        shape = [-1 if k == axis else 1 for k in range(3)]
        covariance = covariance.index_select(axis, lag % box[axis]) * weight.view(shape)
    return covariance


def amplitudes(covariance, box):
    """a (T', H', W' / 2 + 1) for `GaussianField.field` in a box (T', H', W'): fields then have unit variance and the
    spectrum, to the POWER, of the autocovariance, which is 0 beyond the lags it has."""
    later = covariance[1:].flip(0, 1, 2)  # the lags of negative time are those of positive time in opposite directions
    whole = torch.cat([later, covariance])
    on_box = whole.new_zeros(box)
    places = [(torch.arange(n, device=whole.device) - n // 2) % side for n, side in zip(whole.shape, box, strict=True)]
    on_box.index_put_(torch.meshgrid(*places, indexing="ij"), whole, accumulate=True)
    power = torch.fft.rfftn(on_box).real.clamp(min=0) ** POWER
    both = power.new_full((power.shape[2],), 2.0)  # a coefficient and its conjugate; the first, and of an even number
    both[0] = 1  # the last, stand alone
    if box[2] % 2 == 0:
        both[-1] = 1
    return (power / both / (power * both).sum()).sqrt()


def box_of(size, loop):
    """The box (T', H', W') of a field for videos of size (T, H, W): somewhat larger, since opposite ends of a Fourier
    transform are neighbours, and of sides whose transform is fast; in a loop they are to be neighbours in time."""
    from scipy.fft import next_fast_len

    t, h, w = size
    sides = (h + h // 4, w + w // 4) if loop else (t + MARGIN, h + h // 4, w + w // 4)
    return [t] * loop + [next_fast_len(side, real=True) for side in sides]
