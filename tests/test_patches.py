"""Nearest patches and colours: copies of every kind are found, and what a clip never shows is far away."""

import numpy as np
import pytest

from judge.patches import Patches


@pytest.fixture(scope="module")
def waves():
    """waves(seed): smooth noise that moves, 40 frames of 48x48, as another stretch of one clip for each seed."""
    def make(seed, frames=40, size=48):
        spectrum = np.fft.rfftn(np.random.default_rng(seed).normal(size=(frames, size, size, 3)), axes=(0, 1, 2))
        t, y, x = np.fft.fftfreq(frames)[:, None, None], np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)
        spectrum *= np.exp(-(t**2 + y**2 + x**2) / 2 / 0.08**2)[..., None]
        field = np.fft.irfftn(spectrum, s=(frames, size, size), axes=(0, 1, 2))
        return np.clip(128 + 40 * field / field.std(), 0, 255).round().astype(np.uint8)

    return make


def test_as_real_as_real_frames(waves):
    patches = Patches(waves(0), waves(1))
    assert patches.figures(waves(1)) == {"realism": 1, "coverage": 1, "copying": pytest.approx(0, abs=0.05)}
    figures = patches.figures(waves(2))
    assert figures["realism"] == pytest.approx(1, abs=0.03) and figures["coverage"] == pytest.approx(1, abs=0.03)
    assert figures["copying"] < 0.05


def test_copies_of_every_kind(waves):
    clip, rng = waves(0), np.random.default_rng(0)
    patches = Patches(clip, waves(1))
    mosaic = np.concatenate([np.roll(clip[:, :, x : x + 24], t, axis=0) for x, t in ((0, 7), (24, 20))], axis=2)
    shuffled = clip[rng.permutation(len(clip))]
    for copy in (clip, shuffled, np.roll(clip, 5, axis=0), clip[::-1], np.roll(clip, 9, axis=2), mosaic):
        assert patches.figures(copy)["copying"] > 0.75
    faded = np.clip(clip[::-1] + rng.normal(0, 6, clip.shape), 0, 255)  # nor do specks hide it
    assert patches.figures(faded)["copying"] > 0.75
