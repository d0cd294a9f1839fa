"""Clips and masks: what is read equals what was written, only what is needed is read, bad input is one clear line."""

import itertools

import av
import numpy as np
import pytest
import torch
from av.video.reformatter import VideoReformatter
from PIL import Image
from tools import fails

import data
from data import draw_mask, list_clips, load_category, read_clip, read_mask

KINDS = [("a.mp4", "libx264"), ("a.MP4", "libx264"), ("a.avi", "mpeg4"), ("a.mov", "libx264"), ("a.mkv", "libx264"),
         ("a.webm", "libvpx-vp9"), ("a.gif", None)]


def write_images(folder, video, pattern="{}.png", first=0):
    folder.mkdir(parents=True, exist_ok=True)
    for t, frame in enumerate(video, start=first):
        Image.fromarray(frame).save(folder / pattern.format(t))
    return folder


# ------------------------------------------------------------------------------------------------------------ reading


@pytest.mark.parametrize("name, codec", KINDS)
def test_every_kind_of_video_is_read(name, codec, tmp_path, moving, write_clip):
    if codec:
        try:
            av.codec.Codec(codec, "w")
        except ValueError:
            pytest.skip(f"no encoder {codec} in this PyAV")
    video = moving(9, 32, 48)
    path = write_clip(tmp_path / "clip" / name, video, codec)
    assert list_clips(path.parent) == [path]
    read = read_clip(path)
    assert read.shape == video.shape and read.dtype == np.uint8
    distance = np.abs(read[:, None].astype(int) - video[None]).mean((2, 3, 4))  # of every frame to every frame
    assert (distance.argmin(1) == np.arange(9)).all()
    assert np.diag(distance).max() < 20 < np.sort(distance, 1)[:, 1].min()


@pytest.mark.parametrize("pattern", ["{}.png", "frame_{:03d}.bmp", "x{}.tif"])
def test_a_folder_of_numbered_images_is_a_clip_in_natural_order(pattern, tmp_path, moving):
    video = moving(12, 9, 14)
    folder = write_images(tmp_path / "clip" / "images", video, pattern, first=1)  # 2 comes before 10
    (folder / "notes.txt").write_text("no frame")
    (folder / ".hidden.png").write_text("no frame")
    assert list_clips(folder.parent) == [folder]
    assert list_clips(folder) == [folder]  # the category itself may be the folder of images
    assert np.array_equal(read_clip(folder), video)


def test_jpegs_and_grey_images_with_alpha_are_read_as_rgb(tmp_path, moving):
    video = moving(3, 16, 16)
    folder = tmp_path / "images"
    folder.mkdir()
    Image.fromarray(video[0]).save(folder / "1.jpg", quality=95)
    Image.fromarray(video[1, ..., 0]).save(folder / "2.png")
    Image.fromarray(np.dstack([video[2], np.full((16, 16), 7, np.uint8)])).save(folder / "3.png")
    read = read_clip(folder)
    assert np.abs(read[0].astype(int) - video[0]).mean() < 6
    assert np.array_equal(read[1], np.repeat(video[1, ..., :1], 3, axis=2))
    assert np.array_equal(read[2], video[2])


def test_clips_come_in_natural_order_and_other_files_are_ignored(tmp_path, moving, write_clip):
    for number in (10, 2, 1):
        write_clip(tmp_path / f"clip{number}.mp4", moving(2, 16, 16))
    write_images(tmp_path / "clip3", moving(2, 16, 16))
    (tmp_path / "readme.txt").write_text("no clip")
    (tmp_path / ".clip0.mp4").write_text("no clip")
    (tmp_path / "empty").mkdir()
    assert [p.name for p in list_clips(tmp_path)] == ["clip1.mp4", "clip2.mp4", "clip3", "clip10.mp4"]


def test_the_first_frames_are_taken_and_resized_by_pillows_bilinear_filter(tmp_path, moving, write_clip):
    path = write_clip(tmp_path / "a.mp4", moving(4, 40, 64))
    whole = read_clip(path)
    assert np.array_equal(read_clip(path, 2), whole[:2])
    for height, width in ((16, 16), (10, 30), (90, 70), (40, 64)):
        expected = [np.asarray(Image.fromarray(f).resize((width, height), Image.Resampling.BILINEAR)) for f in whole]
        assert np.array_equal(read_clip(path, 4, (height, width)), np.stack(expected))


def test_shrinking_averages_instead_of_picking_pixels(tmp_path):
    checks = np.indices((64, 64)).sum(0) % 2 * 255  # a chequered frame shrinks to grey
    folder = write_images(tmp_path / "images", [np.repeat(checks[..., None], 3, 2).astype(np.uint8)])
    assert np.abs(read_clip(folder, 1, (8, 8)).astype(int) - 127).max() <= 2


def test_a_category_may_have_clips_of_different_sizes_and_kinds(tmp_path, moving, write_clip):
    write_clip(tmp_path / "cat" / "b2.mp4", moving(7, 32, 48))
    write_clip(tmp_path / "cat" / "b10.avi", moving(9, 20, 20), "mpeg4")
    write_images(tmp_path / "cat" / "a", moving(5, 11, 7))
    videos, names = load_category(tmp_path, "cat", 5, (12, 18))
    assert names == ["a", "b2.mp4", "b10.avi"]
    assert videos.shape == (3, 5, 12, 18, 3) and videos.dtype == np.uint8
    for video, name in zip(videos, names, strict=True):
        assert np.array_equal(video, read_clip(tmp_path / "cat" / name, 5, (12, 18)))


def test_only_the_frames_that_are_needed_are_decoded(tmp_path, moving, write_clip, monkeypatch):
    path, decoded = write_clip(tmp_path / "a.mp4", moving(30, 16, 16)), []

    class Counting:
        def reformat(self, frame, **kwargs):
            decoded.append(frame)
            return VideoReformatter().reformat(frame, **kwargs)

    monkeypatch.setattr("reader.clips.VideoReformatter", Counting)
    assert len(read_clip(path, 4)) == 4
    assert len(decoded) == 4
    assert len(read_clip(path)) == 30


def test_what_lies_behind_the_frames_that_are_needed_may_be_damaged(tmp_path, moving):
    video = moving(6, 8, 8)
    folder = write_images(tmp_path / "images", video)
    (folder / "6.png").write_text("no image")
    assert np.array_equal(read_clip(folder, 6), video)
    assert "after 6 frames" in fails(read_clip, folder, 7)


def test_frames_become_a_float_tensor_in_grey_levels_and_the_same_memory_order(moving):
    video = moving(4, 5, 6)
    x = data.to_tensor(np.stack([video, video[::-1]]))
    assert x.shape == (2, 3, 4, 5, 6) and x.dtype == torch.float32
    assert x.is_contiguous(memory_format=torch.channels_last_3d)
    for (n, c), t in itertools.product(np.ndindex(2, 3), range(4)):
        assert np.array_equal(x[n, c, t].numpy(), (video, video[::-1])[n][t, :, :, c])


# ---------------------------------------------------------------------------------------------------------- bad input


def test_unknown_category_lists_those_there_are(tmp_path):
    for name in ("ocean", "fire_pot", ".git", "__pycache__"):
        (tmp_path / name).mkdir()
    (tmp_path / "render.py").write_text("")
    message = fails(load_category, tmp_path, "fire", 2, (8, 8))
    assert "'fire'" in message and message.endswith("fire_pot, ocean")
    assert "is not a folder" in fails(load_category, tmp_path / "nowhere", "fire", 2, (8, 8))


def test_a_category_may_be_a_link(tmp_path, moving, write_clip):
    write_clip(tmp_path / "elsewhere/clip.mp4", moving(4))
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips/linked").symlink_to(tmp_path / "elsewhere")
    assert load_category(tmp_path / "clips", "linked", 4, (24, 24))[1] == ["clip.mp4"]


@pytest.mark.parametrize("category", ["../../x", "..", ".", "", "/", "/etc", "a/../.."])
def test_a_category_may_not_leave_data_path(category, tmp_path, moving, write_clip):
    root = tmp_path / "deep" / "data"
    write_clip(root / "a" / "a.mp4", moving(2, 16, 16))
    write_clip(tmp_path / "x" / "a.mp4", moving(2, 16, 16))
    assert repr(category) in fails(load_category, root, category, 2, (8, 8))


def test_a_category_may_lie_deeper(tmp_path, moving, write_clip):
    write_clip(tmp_path / "water" / "sea" / "a.mp4", moving(2, 16, 16))
    assert load_category(tmp_path, "water/sea", 2, (8, 8))[1] == ["a.mp4"]


def test_an_empty_folder_is_an_error_that_says_what_it_needs(tmp_path):
    (tmp_path / "cat").mkdir()
    message = fails(load_category, tmp_path, "cat", 2, (8, 8))
    assert "cat'" in message and ".mp4" in message and "images" in message


def test_a_short_clip_is_an_error_that_says_which_and_how_many(tmp_path, moving, write_clip):
    write_clip(tmp_path / "cat" / "long.mp4", moving(9, 16, 16))
    write_clip(tmp_path / "cat" / "short.mp4", moving(5, 16, 16))
    message = fails(load_category, tmp_path, "cat", 7, (8, 8))
    assert all(part in message for part in ("short.mp4", "has 5 frames", "7 are needed", "-num_frames"))


@pytest.mark.parametrize("suffix", data.VIDEO_SUFFIXES)
@pytest.mark.parametrize("content", [b"", b"just text, no video\n" * 40, bytes(5000)], ids=["empty", "text", "zeros"])
def test_a_file_that_is_no_video_is_an_error_that_names_it(suffix, content, tmp_path):
    path = tmp_path / f"fake{suffix}"
    path.write_bytes(content)
    assert f"fake{suffix}" in fails(read_clip, path, 4, (8, 8))


@pytest.mark.parametrize("name, codec", [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.avi", "mpeg4"), ("a.gif", "")])
@pytest.mark.parametrize("share", [0.1, 0.7])
def test_a_truncated_video_is_an_error_that_names_it(name, codec, share, tmp_path, moving, write_clip):
    path = write_clip(tmp_path / name, moving(20, 48, 48), codec)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert name in fails(read_clip, path, 20, (8, 8))
    path.write_bytes(whole)
    assert len(read_clip(path, 20, (8, 8))) == 20


def test_an_image_that_is_none_is_an_error_that_names_the_clip(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "1.png").write_text("no image")
    assert "images" in fails(read_clip, folder, 1, (8, 8))


# -------------------------------------------------------------------------------------------------------------- masks


def random_mask(frames=6, height=10, width=14, seed=0):
    return np.random.default_rng(seed).random((frames, height, width)) < 0.3


def test_region_hides_one_square_of_each_frame_at_changing_places():
    mask = draw_mask("region", 70, (150, 150), np.random.default_rng(0))
    assert mask.shape == (70, 150, 150) and mask.dtype == bool
    corners = set()
    for frame in mask:
        rows, columns = np.flatnonzero(frame.any(1)), np.flatnonzero(frame.any(0))
        assert len(rows) == len(columns) == 60 and frame.sum() == 3600
        corners.add((rows[0], columns[0]))
        assert rows[-1] - rows[0] == columns[-1] - columns[0] == 59
    assert len(corners) > 60
    for axis in (0, 1):  # uniform over the 91 places that there are
        places = np.array(sorted(corner[axis] for corner in corners))
        assert places[0] < 15 and places[-1] > 75 and 35 < places.mean() < 55
    assert mask.mean() == pytest.approx(0.16)


def test_region_reaches_every_place_of_a_small_frame():
    mask = draw_mask("region", 400, (5, 7), np.random.default_rng(0))  # a square of 2 pixels
    assert (mask.sum((1, 2)) == 4).all()
    assert len({frame.tobytes() for frame in mask}) == 4 * 6


@pytest.mark.parametrize("frames", [70, 7, 2])
def test_missing_frames_hides_half_of_the_frames(frames):
    mask = draw_mask("missing_frames", frames, (15, 20), np.random.default_rng(0))
    hidden = mask.all((1, 2))
    assert hidden.sum() == frames // 2
    assert not mask[~hidden].any()


def test_missing_frames_draws_every_frame_equally_often():
    counts = sum(draw_mask("missing_frames", 10, (1, 1), np.random.default_rng(k)).ravel() for k in range(400))
    assert np.abs(counts - 200).max() < 50  # 5 standard deviations


@pytest.mark.parametrize("size", [(147, 147), (150, 150), (20, 31)])
def test_salt_pepper_hides_half_of_the_blocks_anew_in_each_frame(size):
    mask = draw_mask("salt_pepper", 20, size, np.random.default_rng(0))
    blocks = mask[:, ::7, ::7]
    again = blocks.repeat(7, axis=1).repeat(7, axis=2)[:, : size[0], : size[1]]
    assert np.array_equal(mask, again)  # 7x7 blocks
    assert (blocks.sum((1, 2)) == blocks[0].size // 2).all()
    assert len({frame.tobytes() for frame in mask}) == 20


def test_a_mask_that_would_hide_nothing_is_an_error():
    for kind, frames, size in (("missing_frames", 1, (15, 20)), ("salt_pepper", 3, (7, 7))):
        message = fails(draw_mask, kind, frames, size, np.random.default_rng(0))
        assert f"-mask_type {kind} hides nothing of {frames}x{size[0]}x{size[1]}" in message


def test_masks_follow_the_random_generator():
    for kind in data.MASK_TYPES:
        one, same, other = (draw_mask(kind, 20, (30, 30), np.random.default_rng(seed)) for seed in (1, 1, 2))
        assert np.array_equal(one, same)
        assert kind in ("every_second", "future") or not np.array_equal(one, other)
    assert "region" in fails(draw_mask, "regional", 4, (8, 8), np.random.default_rng(0))


@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("suffix", [".mat", ".npy"])
def test_mask_arrays_are_read(suffix, channels, tmp_path):
    from scipy.io import savemat

    mask = random_mask()
    values = np.repeat(mask[..., None], 3, axis=3) if channels else mask
    path = tmp_path / f"mask{suffix}"
    if suffix == ".npy":
        np.save(path, values)
    else:
        savemat(path, {"masks": np.moveaxis(values, 0, 2).astype(np.uint8)})  # (H, W, T) or (H, W, T, 3)
    read = read_mask(path, 6, (10, 14))
    assert read.dtype == bool and np.array_equal(read, mask)
    assert np.array_equal(read_mask(path, 4, (10, 14)), mask[:4])


def test_masks_of_images_and_videos_are_read_and_resized(tmp_path, write_clip):
    mask = random_mask(5, 4, 6).repeat(8, axis=1).repeat(8, axis=2)
    white = np.repeat(mask[..., None], 3, axis=3).astype(np.uint8) * 255
    folder = write_images(tmp_path / "images", white)
    assert np.array_equal(read_mask(folder, 5, (32, 48)), mask)
    clip = write_clip(tmp_path / "mask.mp4", white)
    assert (read_mask(clip, 5, (32, 48)) == mask).mean() > 0.98
    for path in (folder, clip):
        small = read_mask(path, 5, (16, 24))
        assert small.shape == (5, 16, 24) and (small == mask[:, ::2, ::2]).mean() > 0.95


def test_a_mask_that_does_not_fit_is_an_error_that_names_both_sizes(tmp_path):
    np.save(tmp_path / "mask.npy", random_mask(6, 10, 14))
    for frames, size in ((7, (10, 14)), (6, (14, 10)), (6, (10, 15))):
        message = fails(read_mask, tmp_path / "mask.npy", frames, size)
        assert f"{min(frames, 6)}x10x14" in message and f"{frames}x{size[0]}x{size[1]}" in message


def test_bad_mask_files_are_errors_that_name_them(tmp_path, write_clip, moving):
    from scipy.io import savemat

    savemat(tmp_path / "other.mat", {"mask": np.zeros((3, 3, 3))})
    savemat(tmp_path / "flat.mat", {"masks": np.zeros((3, 3))})
    np.save(tmp_path / "flat.npy", np.zeros((3, 3)))
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object), allow_pickle=True)
    for name in ("text.mat", "text.npy", "text.mp4"):
        (tmp_path / name).write_text("no mask")
    for name in ("empty.mat", "empty.npy"):
        (tmp_path / name).write_bytes(b"")
    write_clip(tmp_path / "short.mp4", moving(2, 16, 16))
    (tmp_path / "folder").mkdir()
    for path in [*tmp_path.iterdir(), tmp_path / "missing.npy"]:
        assert path.name in fails(read_mask, path, 3, (3, 3))
    assert "'masks'" in fails(read_mask, tmp_path / "other.mat", 3, (3, 3))


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


def test_released_clips_are_read(shared):
    fire = read_clip(shared("data/dynamic_texture/fire_pot/fire_pot0.avi"), 2)
    assert fire.shape == (2, 720, 1280, 3)
    water = read_clip(shared("data/dynamic_texture/boiling_water/55fa210.avi"))
    assert water.shape == (250, 288, 352, 3)
