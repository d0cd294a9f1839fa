"""Nearest patches and colours: real frames score 1, copies of every kind are found, what a clip never shows is far."""

import numpy as np
import pytest

from judge.patches import (
    Patches,
    Search,
    blocks,
    copying,
    coverage,
    gamut,
    hidden_realism,
    moving_pixels,
    realism,
    reduced,
    tiles,
)


def waves(seed, frames=30, size=48):
    """Smooth noise that moves, uint8 (frames, size, size, 3): another stretch of one process for each seed."""
    spectrum = np.fft.rfftn(np.random.default_rng(seed).normal(size=(frames, size, size, 3)), axes=(0, 1, 2))
    t, y, x = np.fft.fftfreq(frames)[:, None, None], np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)
    spectrum *= np.exp(-(t**2 + y**2 + x**2) / 2 / 0.08**2)[..., None]
    field = np.fft.irfftn(spectrum, s=(frames, size, size), axes=(0, 1, 2))
    return np.clip(128 + 40 * field / field.std(), 0, 255).round().astype(np.uint8)


CLIP = waves(0)


@pytest.fixture(scope="module")
def patches():
    return Patches(CLIP, waves(1))


def test_real_frames_are_as_real_as_real_frames(patches):
    assert patches.usual == patches.figures(waves(1)) | {"realism": 1, "coverage": 1}
    figures = patches.figures(waves(2))
    assert [figures["realism"], figures["coverage"]] == pytest.approx([1, 1], abs=0.03)
    assert figures["copying"] < 0.05


def test_what_a_clip_never_shows(patches):
    noise = np.random.default_rng(0).normal(128, 40, CLIP.shape)
    figures = patches.figures(noise)
    assert min(figures["realism"], figures["coverage"]) > 1.5 and figures["copying"] < 0.05
    still = np.repeat(waves(2)[:1], len(CLIP), axis=0)  # one real frame: every patch of 7x7 could be, few are there
    assert patches.figures(still)["coverage"] > 1.2 > 1.1 > patches.figures(still)["realism"]


@pytest.mark.parametrize("kind", ["clip", "shuffled", "shifted", "reversed", "moved", "mosaic", "specked"])
def test_copies_of_every_kind_are_found(kind, patches):
    rng = np.random.default_rng(0)
    copy = {
        "clip": CLIP,
        "shuffled": CLIP[rng.permutation(len(CLIP))],
        "shifted": np.roll(CLIP, 5, axis=0),
        "reversed": CLIP[::-1],
        "moved": np.roll(CLIP, 9, axis=2),
        "mosaic": np.concatenate([np.roll(CLIP[:, :, x : x + 24], t, axis=0) for x, t in ((0, 7), (24, 20))], axis=2),
        "specked": CLIP[::-1] + rng.normal(0, 5, CLIP.shape),
    }[kind]
    figures = patches.figures(copy)
    assert figures["copying"] > (0.75 if kind in ("moved", "mosaic", "specked") else 0.95)
    if kind in ("clip", "shifted"):  # the others have patches of three frames, or colours, that are new
        assert figures["realism"] < 0.1


def test_each_figure_by_itself():
    clip, later, video = (waves(seed, 16, 24) for seed in range(3))
    assert {"realism": realism(video, clip, later), "coverage": coverage(video, clip, later),
            "copying": copying(video, clip), "gamut": gamut(video, clip)} == Patches(clip, later).figures(video)
    assert realism(video, clip) == pytest.approx(1, abs=0.15)  # one half of the clip stands for later frames


def test_the_search_is_nearly_exact():
    video, moving = reduced(CLIP), np.ones((48, 48), bool)
    for shape in ((1, 7, 7), (3, 5, 5)):
        search = Search(video, shape, moving)
        distances, where, places = search.nearest(reduced(waves(1)))
        found = blocks(reduced(waves(1)), shape)[tuple(where[::50].T)].reshape(-1, 3 * np.prod(shape))
        there = blocks(video, shape).reshape(-1, found.shape[1])
        squares = (found**2).sum(1)[:, None] + (there**2).sum(1) - 2 * found @ there.T
        exact = np.sqrt(squares.min(axis=1) / found.shape[1])
        assert exact.mean() <= distances[::50].mean() <= 1.02 * exact.mean()
        k = len(where) // 2
        pair = blocks(reduced(waves(1)), shape)[tuple(where[k])] - blocks(video, shape)[tuple(places[k])]
        assert distances[k] == pytest.approx(np.sqrt((pair**2).mean()), rel=1e-5)


def test_only_what_moves_is_looked_at():
    wide = np.concatenate([CLIP, np.full_like(CLIP, 90)], axis=2)
    moving = moving_pixels(wide).any(axis=-1)
    assert moving[:, :48].all() and not moving[:, 48:].any()
    for shape in ((1, 7, 7), (3, 5, 5)):
        where = tiles(wide, shape, moving)
        assert 1000 < len(where) < 2500 and (where[:, 2] + shape[2] // 2 < 48).all()
    spoiled = wide.copy()
    spoiled[:, :, 58:] = 255  # what is still in the clip may do as it likes
    assert gamut(spoiled, wide) == 0 and realism(spoiled, wide) == 0


def test_colours_are_distances_in_grey_levels():
    levels = np.where(np.arange(20)[:, None, None, None] % 2, 100, 50) + np.zeros((20, 8, 8, 3))
    assert gamut(levels + np.array([3, 0, 4]), levels) == pytest.approx(5)
    assert gamut(levels + 0.4, levels) == 0  # whole grey levels are compared


def test_large_videos_are_judged_at_about_100_pixels():
    large = np.repeat(np.repeat(waves(0, 6, 112), 2, axis=1), 2, axis=2)
    assert np.array_equal(reduced(large), waves(0, 6, 112))
    assert reduced(CLIP).shape == CLIP.shape


def test_hidden_patches_are_real_where_they_move_like_the_visible_ones():
    """Waves that go on are; noise in their place is not, and nothing can be said of a clip without visible patches."""
    t, y, x = np.ogrid[0:40, 0:40, 0:40]
    film = np.repeat(128 + 60 * np.sin(0.9 * t + 0.5 * y + 0.3 * x)[..., None], 3, axis=3)
    mask = np.zeros(film.shape[:3], bool)
    mask[::3, 10:30, 10:30] = True
    noisy = np.where(mask[..., None], film + np.random.default_rng(0).normal(0, 20, film.shape), film)
    assert hidden_realism(film, mask) == pytest.approx(1, abs=0.1)
    assert hidden_realism(noisy, mask) > 3
    assert hidden_realism(film, np.ones_like(mask)) is None and hidden_realism(film[:2], mask[:2]) is None
