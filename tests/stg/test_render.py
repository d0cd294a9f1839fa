"""The renderer of the shipped clips: the same frames every time, and those that ship."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from data import load_category, read_clip

FOLDER = Path(__file__).parents[2] / "trainingVideo"


@pytest.fixture(scope="module")
def render():
    return runpy.run_path(str(FOLDER / "render.py"))


def test_a_camp_fire_burns_on_the_ground_and_is_the_same_every_time(render):
    one, same = (np.stack(render["camp_fire"](np.random.default_rng(1), 32, 2)) for _ in range(2))
    assert np.array_equal(one, same)
    assert one.shape == (2, 32, 32, 3) and one.dtype == np.uint8
    assert (one[0] != one[1]).any()
    red, green, blue = one.reshape(-1, 3).max(axis=0).astype(int)
    assert red > 200 and red >= green > blue and one[:, :5].mean() < one[:, 20:].mean()


def test_the_shipped_runner_is_what_is_rendered(render):
    turf = render["smooth_noise"](np.random.default_rng(5), (100, 100), 2)
    shipped = read_clip(FOLDER / "runner/walker_2.mp4", 4)
    for number, frame in enumerate(shipped):
        drawn = render["runner_frame"](render["LOOKS"][2], number, turf)
        assert np.abs(drawn.astype(int) - frame).mean() < 3


def test_thirty_fires_ship_and_all_clips_are_small():
    videos, names = load_category(FOLDER, "fires", 30, (25, 25))
    assert len(names) == 30
    means = videos.mean(axis=1)  # (30, 25, 25, 3)
    distances = np.abs(means[:, None] - means).mean(axis=(2, 3, 4)) + 255 * np.eye(30)
    assert distances.min() > 2  # no two look alike
    assert (np.abs(np.diff(videos.astype(np.int16), axis=1)).mean(axis=(1, 2, 3, 4)) > 1).all()  # all burn
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 6_000_000
