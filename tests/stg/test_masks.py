"""Masks: drawn as in the paper, and read from files of every kind."""

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from tools import encode, fails, images

from data import MASK_TYPES, draw_mask, read_mask, read_recorded_mask

SQUARE = np.zeros((32, 32), np.uint8)
SQUARE[8:20, 8:20] = 1


def drawn(kind, frames, size, seed=0):
    return draw_mask(kind, frames, size, np.random.default_rng(seed))


# --------------------------------------------------------------------------------------------------------- drawn


def test_region_hides_one_square_of_each_frame_at_changing_places():
    mask = drawn("region", 70, (150, 150))
    assert mask.shape == (70, 150, 150) and mask.dtype == bool
    corners = set()
    for frame in mask:
        rows, columns = np.flatnonzero(frame.any(1)), np.flatnonzero(frame.any(0))
        assert len(rows) == len(columns) == 60 and frame.sum() == 3600  # 16 %
        assert rows[-1] - rows[0] == columns[-1] - columns[0] == 59
        corners.add((rows[0], columns[0]))
    assert len(corners) > 60
    for axis in (0, 1):  # uniform over the 91 places that there are
        places = np.array(sorted(corner[axis] for corner in corners))
        assert places[0] < 15 and places[-1] > 75 and 35 < places.mean() < 55
    mask = drawn("region", 400, (5, 7))  # a square of 2 pixels reaches every place of a small frame
    assert (mask.sum((1, 2)) == 4).all() and len({frame.tobytes() for frame in mask}) == 4 * 6


def test_missing_frames_hides_half_of_the_frames_each_as_often():
    for frames in (70, 7, 2):
        mask = drawn("missing_frames", frames, (15, 20))
        hidden = mask.all((1, 2))
        assert hidden.sum() == frames // 2 and not mask[~hidden].any()
    counts = sum(drawn("missing_frames", 10, (1, 1), k).ravel() for k in range(400))
    assert np.abs(counts - 200).max() < 50  # 5 standard deviations


def test_salt_pepper_hides_half_of_the_blocks_anew_in_each_frame():
    for height, width in ((147, 147), (20, 31)):
        mask = drawn("salt_pepper", 20, (height, width))
        blocks = mask[:, ::7, ::7]
        assert np.array_equal(mask, blocks.repeat(7, axis=1).repeat(7, axis=2)[:, :height, :width])  # 7x7 blocks
        assert (blocks.sum((1, 2)) == blocks[0].size // 2).all()
        assert len({frame.tobytes() for frame in mask}) == 20


def test_masks_follow_the_random_generator_but_for_those_that_are_not_drawn():
    assert [drawn(kind, 9, (2, 2)).all((1, 2)).nonzero()[0].tolist() for kind in ("every_second", "future")] == [
        [1, 3, 5, 7], [7, 8]]
    for kind in MASK_TYPES:
        one, same, other = (drawn(kind, 20, (30, 30), seed) for seed in (1, 1, 2))
        assert np.array_equal(one, same)
        assert kind in ("every_second", "future") or not np.array_equal(one, other)
    assert "region" in fails(drawn, "regional", 4, (8, 8))
    for kind, frames, size in (("missing_frames", 1, (15, 20)), ("salt_pepper", 3, (7, 7))):
        said = f"-mask_type {kind} hides nothing of {frames}x{size[0]}x{size[1]}"
        assert said in fails(drawn, kind, frames, size)


# ---------------------------------------------------------------------------------------------------------- read


@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("suffix", [".mat", ".npy"])
def test_mask_arrays_are_read(suffix, channels, tmp_path):
    mask = np.random.default_rng(0).random((6, 10, 14)) < 0.3
    values = np.repeat(mask[..., None], 3, axis=3) if channels else mask
    path = tmp_path / f"mask{suffix}"
    if suffix == ".npy":
        np.save(path, values)
    else:
        savemat(path, {"masks": np.moveaxis(values, 0, 2).astype(np.uint8)})  # (H, W, T) or (H, W, T, 3)
    read = read_mask(path, 6, (10, 14))
    assert read.dtype == bool and np.array_equal(read, mask)
    assert np.array_equal(read_mask(path, 4, (10, 14)), mask[:4])


@pytest.mark.parametrize("kind", ["labels", "16 bit labels", "white", "16 bit white", "float", "palette", "inverted 1"])
def test_masks_of_every_depth_hide_the_same(kind, tmp_path):
    palette = Image.fromarray(SQUARE * 8)
    palette.putpalette([0, 0, 0, *[64, 0, 0] * 255])
    picture = {"labels": SQUARE * 3, "16 bit labels": SQUARE.astype(np.uint16), "white": SQUARE * 255,
               "16 bit white": SQUARE.astype(np.uint16) * 65535, "float": SQUARE.astype(np.float32),
               "palette": palette, "inverted 1": Image.fromarray(SQUARE * 255).convert("1")}[kind]
    suffix = "tif" if kind == "float" else "png"
    folder = images(tmp_path / "masks", [picture] * 4, f"{{}}.{suffix}")
    mask, record = read_recorded_mask(folder, 4, (32, 32))
    assert np.array_equal(mask, np.stack([SQUARE > 0] * 4)) and "hides 14.1%" in str(record)
    still, record = read_recorded_mask(folder / f"0.{suffix}", 4, (32, 32))
    assert np.array_equal(still, mask) and "one picture for all frames" in str(record)
    assert np.array_equal(read_mask(folder, 4, (16, 16)), mask[:, ::2, ::2])


def test_masks_of_videos_and_soft_arrays_hide_where_pictures_do(tmp_path):
    mask = (np.random.default_rng(0).random((5, 4, 6)) < 0.3).repeat(8, axis=1).repeat(8, axis=2)
    clip = encode(tmp_path / "mask.mp4", np.repeat(mask[..., None], 3, axis=3).astype(np.uint8) * 255)
    assert (read_mask(clip, 5, (32, 48)) == mask).mean() > 0.98
    assert (read_mask(clip, 5, (16, 24)) == mask[:, ::2, ::2]).mean() > 0.95
    soft = SQUARE.astype(np.float32) * 0.9 + 0.02
    np.save(tmp_path / "soft.npy", soft)
    assert np.array_equal(read_mask(tmp_path / "soft.npy", 3, (32, 32)), np.stack([SQUARE > 0] * 3))
    soft[0, 0] = np.nan
    np.save(tmp_path / "soft.npy", soft)
    assert "no numbers" in fails(read_mask, tmp_path / "soft.npy", 3, (32, 32))


def test_a_mask_that_does_not_fit_is_an_error_and_arrays_are_resized_if_their_proportions_fit(tmp_path):
    np.save(tmp_path / "mask.npy", np.stack([SQUARE] * 6))
    assert np.array_equal(read_mask(tmp_path / "mask.npy", 6, (16, 16)), np.stack([SQUARE[::2, ::2] > 0] * 6))
    for frames, size in ((7, (32, 32)), (6, (32, 40)), (6, (16, 20))):
        message = fails(read_mask, tmp_path / "mask.npy", frames, size)
        assert "6x32x32" in message and f"{frames}x{size[0]}x{size[1]}" in message


def test_a_mask_that_hides_nothing_or_nearly_all_is_an_error(tmp_path):
    inverted = np.full((32, 32), 255, np.uint8)
    inverted[0, :8] = 0
    for k, (picture, said) in enumerate(((inverted * 0, "hides no pixel"), (inverted, "99.2%"))):
        assert said in fails(read_mask, images(tmp_path / str(k), [picture] * 3), 3, (32, 32))
    more = images(tmp_path / "more", [255 - SQUARE * 255] * 3)
    assert "more than half" in str(read_recorded_mask(more, 3, (32, 32))[1])


def test_a_mask_goes_with_the_part_of_the_clip_that_is_used(tmp_path):
    moved = [np.roll(SQUARE, k, 1) * 255 for k in range(10)]
    folder = images(tmp_path / "masks", moved)
    mask, record = read_recorded_mask(folder, 3, (32, 32), start=4, step=2)
    assert np.array_equal(mask, np.stack(moved)[4:9:2] > 0) and "used 5-9" in str(record)
    itself, _ = read_recorded_mask(folder, 10, (32, 32), start=4)  # as many frames as the part has
    assert np.array_equal(itself, np.stack(moved) > 0)
    assert "10x32x32" in fails(read_recorded_mask, folder, 11, (32, 32))


def test_bad_mask_files_are_errors_that_name_them(tmp_path, moving):
    savemat(tmp_path / "other.mat", {"hole": np.zeros((3, 3, 3))})
    savemat(tmp_path / "flat.mat", {"masks": np.zeros((3, 3))})
    np.save(tmp_path / "flat.npy", np.zeros((3, 3)))
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "new.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(600))
    for name in ("text.mat", "text.npy", "text.mp4"):
        (tmp_path / name).write_text("no mask")
    for name in ("empty.mat", "empty.npy"):
        (tmp_path / name).write_bytes(b"")
    encode(tmp_path / "short.mp4", moving(2, 16, 16))
    images(tmp_path / "sizes", [SQUARE * 255, SQUARE[:20] * 255])
    (tmp_path / "folder").mkdir()
    for path in [*tmp_path.iterdir(), tmp_path / "missing.npy"]:
        assert path.name in fails(read_mask, path, 3, (3, 3))
    assert "'masks'; there are: 'hole'" in fails(read_mask, tmp_path / "other.mat", 3, (3, 3))
    assert "-v7" in fails(read_mask, tmp_path / "new.mat", 3, (3, 3))


def test_released_masks_hide_what_the_paper_says(shared):
    folder = shared("data/recovery/masks")
    regions, frames = sorted(folder.glob("*/region_type.mat")), sorted(folder.glob("*/missing_frame_type.mat"))
    assert regions and frames
    for path in regions[:2]:
        mask = read_mask(path, 70, (150, 150))
        assert (mask.sum((1, 2)) == 3600).all()  # 16.0 %
        assert all(len(np.flatnonzero(frame.any(axis))) == 60 for frame in mask for axis in (0, 1))
    for path in frames[:2]:
        hidden = read_mask(path, 70, (150, 150)).mean((1, 2))
        assert hidden.sum() == 35 and set(hidden) == {0, 1}
    boats = read_mask(shared("data/inpainting/boats/mask128.mat"), 150, (128, 128))
    assert boats.mean() == pytest.approx(0.069, abs=5e-4) and boats.any((1, 2)).sum() == 119
