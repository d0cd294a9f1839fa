"""Hidden pixels guessed from visible ones: simple methods to beat, and where the chains of hidden pixels start.

A video is an array (T, H, W, 3) in grey levels 0-255, a mask bool (T, H, W), True where a pixel is
hidden. Every function returns the video as float32, unclipped, with its hidden pixels replaced, and raises InputError
if the mask hides every pixel. What is hidden has no influence.
"""

import numpy as np

from data import InputError
from field.conditional import ConditionalField

HIDES_ALL = "the mask hides every pixel: there is nothing to fill from"


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


def interpolate_field(video: np.ndarray, mask: np.ndarray, device="cpu") -> np.ndarray:
    """Hidden pixels by their expectation given the visible ones under a Gaussian field: see `ConditionalField`."""
    filled = interpolate_linear(video, mask)
    field = ConditionalField.fit(filled[None], mask[None], device)
    expected = field.video(0, field.expected[0]).permute(1, 2, 3, 0).cpu().numpy()
    return np.where(mask[..., None], expected, filled)
