"""The pictures of the documentation: what of a run's folder is in them, where, and how large."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import utils

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))
import pictures  # noqa: E402

RED, GREEN, BLUE = (np.full((8, 16, 16, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255)))


def test_a_strip_has_the_clip_above_the_chains(tmp_path):
    utils.save_videos(tmp_path / "run", "synthesized", np.stack([GREEN, BLUE]), {"observed_0": RED})
    picture = Image.open(pictures.make("ocean", tmp_path / "run", tmp_path))
    assert picture.width == pictures.WIDTH and Path(picture.filename) == tmp_path / "docs/images/ocean.png"
    rows = [np.asarray(picture.convert("RGB"))[round(picture.height * y), 850].argmax() for y in (0.1, 0.5, 0.9)]
    assert rows == [0, 1, 2]


def test_a_recovered_clip_stands_below_what_was_hidden_and_without_chains(tmp_path):
    beside = {"observed_0": RED, "masked_0": GREEN}
    utils.save_videos(tmp_path, "recovered", BLUE[None], beside)
    utils.save_frames(tmp_path / "synthesized_sequence", RED[None])
    assert [label for label, _ in pictures.videos_of(tmp_path)] == ["observed", "hidden", "recovered"]


def test_the_film_keeps_the_clips_speed_and_size(tmp_path):
    moving = RED * np.linspace(0, 1, 8)[:, None, None, None]
    utils.save_videos(tmp_path / "run", "synthesized", moving.astype(np.uint8)[None].repeat(2, 0), {"observed_0": RED})
    film = Image.open(pictures.make("fire_pot", tmp_path / "run", tmp_path))
    assert film.size == (3 * 16 + 20, 16) and film.info["duration"] == 1000 * pictures.FILM[0] // utils.FPS


def test_a_folder_without_videos_and_a_picture_too_large_are_refused(tmp_path):
    with pytest.raises(SystemExit, match="no videos"):
        pictures.make("ocean", tmp_path, tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (3, 8, 64, 64, 3), np.uint8)
    utils.save_videos(tmp_path / "run", "synthesized", noise, {"observed_0": noise[0]})
    with pytest.raises(SystemExit, match="more than"):
        pictures.make("ocean", tmp_path / "run", tmp_path)
