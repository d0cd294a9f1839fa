"""Hidden pixels guessed from visible ones: closed forms, what must have no influence, and real clips."""

import numpy as np
import pytest

from data import InputError, draw_mask, read_clip, read_mask
from judge.fillings import interpolate_field, interpolate_linear, interpolate_nearest, temporal_mean
from judge.metrics import recovery_metrics

FILLS = (interpolate_linear, interpolate_nearest, temporal_mean)


def test_linear_interpolation_is_exact_on_ramps():
    rng = np.random.default_rng(0)
    ramp = 128 + rng.uniform(-3, 3, (6, 5, 3)) * np.arange(20)[:, None, None, None]
    mask = rng.random((20, 6, 5)) < 0.7
    mask[0] = mask[-1] = False
    assert interpolate_linear(np.where(mask[..., None], 0, ramp), mask) == pytest.approx(ramp, abs=1e-4)


def test_fillings_of_one_pixel():
    video = np.repeat([0.0, 10, 0, 0, 40, 0, 0, 0, 0], 3).reshape(9, 1, 1, 3)
    mask = np.ones((9, 1, 1), bool)
    mask[[1, 4]] = False
    series = [fill(video, mask)[:, 0, 0, 1].tolist() for fill in FILLS]
    assert series[0] == [10, 10, 20, 30, 40, 40, 40, 40, 40]
    assert series[1] == [10, 10, 10, 40, 40, 40, 40, 40, 40]
    assert series[2] == [25, 10, 25, 25, 40, 25, 25, 25, 25]
    mask[2] = False
    video[2] = 20
    assert interpolate_nearest(video, mask)[:, 0, 0, 0].tolist() == [10, 10, 20, 20, 40, 40, 40, 40, 40]  # 3: earlier


@pytest.mark.parametrize("fill", [*FILLS, interpolate_field])
def test_fillings_keep_what_is_visible_and_never_look_at_what_is_hidden(fill, clip):
    clip = clip[:16]
    for kind in ("region", "missing_frames", "salt_pepper")[: 1 if fill is interpolate_field else 3]:  # it takes long
        mask = draw_mask(kind, 16, clip.shape[1:3], np.random.default_rng(3))
        filled = fill(clip, mask)
        assert filled.dtype == np.float32 and np.array_equal(filled[~mask], clip[~mask])
        assert np.array_equal(fill(np.where(mask[..., None], 255 - clip, clip), mask), filled)
        assert recovery_metrics(clip, filled, mask)["hidden_mae"] < 30  # a wrong pixel is 40 away on average
    with pytest.raises(InputError, match="every pixel"):
        fill(clip, np.ones_like(mask))


@pytest.mark.parametrize("fill", FILLS)
def test_pixels_that_are_never_visible_take_the_mean_of_their_frame(fill):
    video = np.arange(3 * 2 * 2 * 3, dtype=float).reshape(3, 2, 2, 3)
    mask = np.zeros((3, 2, 2), bool)
    mask[:, 0, 0] = True
    mask[1] = True  # a frame without a visible pixel
    filled = fill(video, mask)
    seen = video[:, [0, 1, 1], [1, 0, 1]]  # (3, 3 pixels, 3)
    assert filled[0, 0, 0] == pytest.approx(seen[0].mean(axis=0))
    assert filled[2, 0, 0] == pytest.approx(seen[2].mean(axis=0))
    assert filled[1, 0, 0] == pytest.approx(seen[[0, 2]].mean(axis=(0, 1)))


BASELINES = [("flag2", "flag", "region_type", 10.25), ("flag2", "flag", "missing_frame_type", 7.34),
             ("boiling_water", "ocean", "region_type", 4.20), ("boiling_water", "ocean", "missing_frame_type", 3.51)]


@pytest.mark.parametrize("category, masks, kind, expected", BASELINES)
def test_linear_interpolation_of_real_clips(category, masks, kind, expected, shared):
    folder, size = shared(f"data/dynamic_texture/{category}"), (150, 150)
    video = read_clip(next(folder.glob("*.avi")), 70, size)
    mask = read_mask(shared(f"data/recovery/masks/{masks}/{kind}.mat"), 70, size)
    metrics = recovery_metrics(video, interpolate_linear(video, mask), mask)
    assert metrics["hidden_mae"] == pytest.approx(expected, abs=0.006)
    assert metrics["visible_error"] == 0


def errors_of(video, mask):
    """Those of a field and of linear interpolation."""
    return [recovery_metrics(video, fill(video, mask), mask)["hidden_mae"]
            for fill in (interpolate_field, interpolate_linear)]


@pytest.mark.parametrize("kind", ["region", "missing_frames", "salt_pepper"])
def test_a_field_goes_on_a_wave_that_interpolation_blurs(kind):
    t, y, x, c = np.ogrid[0:32, 0:24, 0:24, 0:3]
    wave = 128 + 60 * np.sin(1.1 * t + 0.5 * y + 0.3 * x + c)
    field, linear = errors_of(wave, draw_mask(kind, 32, (24, 24), np.random.default_rng(0)))
    assert field < linear / 2


def test_a_field_knows_a_still_clip():
    picture = np.random.default_rng(0).integers(0, 256, (1, 9, 8, 3)).repeat(10, axis=0)
    mask = draw_mask("region", 10, (9, 8), np.random.default_rng(0))
    assert interpolate_field(picture, mask) == pytest.approx(picture, abs=0.01)


def test_a_field_fills_pixels_that_are_never_visible_from_their_neighbours(moving):
    clip, mask = moving(20, 24, 24), np.zeros((20, 24, 24), bool)
    mask[:, 10:13, 10:13] = True
    assert recovery_metrics(clip, interpolate_field(clip, mask), mask)["hidden_mae"] < 15  # their frame's mean: 57 off


def test_a_field_beats_linear_interpolation_of_a_real_clip(shared):
    video = read_clip(next(shared("data/dynamic_texture/flag2").glob("*.avi")), 24, (32, 32))
    field, linear = errors_of(video, draw_mask("region", 24, (32, 32), np.random.default_rng(0)))
    assert field < 0.9 * linear
