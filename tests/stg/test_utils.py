"""Noise by name, pictures as they are, films with every frame, files that are whole or old."""

import io

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from PIL import Image

import utils


def test_a_generators_stream_depends_on_its_key_alone():
    def draw(*key):
        return torch.randn(1000, generator=utils.generator("cpu", *key))

    first = draw(0, 7, "J", 2)
    keys = [(0, 7, "J", 3), (0, 8, "J", 2), (1, 7, "J", 2), (0, 7, "I", 2), (0, 72, "J"), (-1, 7, "J", 2)]
    others = [draw(*key) for key in keys]
    assert torch.equal(draw(0, 7, "J", 2), first)
    correlations = torch.corrcoef(torch.stack([first, *others])) - torch.eye(len(others) + 1)
    assert correlations.abs().max() < 5 / 1000**0.5


def test_pixels_are_clipped_and_rounded_and_nothing_else():
    values = torch.tensor([-300.0, -0.6, 0.4, 0.6, 99.4, 100.6, 254.6, 255.4, 900.0])
    video = values.view(1, 1, 1, 1, 9).expand(2, 3, 4, 5, 9).clone().requires_grad_()
    pixels = utils.to_uint8(video)
    assert pixels.shape == (2, 4, 5, 9, 3) and pixels.dtype == np.uint8
    assert (pixels == np.array([0, 0, 0, 1, 99, 101, 255, 255, 255])[:, None]).all()
    constant = utils.to_uint8(torch.full((1, 3, 2, 4, 4), 77.0))
    assert (constant == 77).all()


def test_axes_of_pixels_keep_their_meaning():
    x = torch.arange(2 * 3 * 2 * 4 * 5).view(2, 3, 2, 4, 5).float()
    pixels = utils.to_uint8(x)
    for n, c, t, h, w in np.ndindex(*x.shape):
        assert pixels[n, t, h, w, c] == x[n, c, t, h, w]


def test_side_by_side_is_a_grid_on_white(moving):
    videos = [moving(3, 8, 6, phase) for phase in range(5)]
    row = utils.side_by_side(videos)
    assert row.shape == (3, 8, 5 * 6 + 4 * 10, 3)
    grid = utils.side_by_side(videos, columns=3)
    assert grid.shape == (3, 2 * 8 + 10, 3 * 6 + 2 * 10, 3)
    for k, video in enumerate(videos):
        top, left = k // 3 * 18, k % 3 * 16
        assert np.array_equal(row[:, :, k * 16 : k * 16 + 6], video)
        assert np.array_equal(grid[:, top : top + 8, left : left + 6], video)
    assert (grid[:, 8:18] == 255).all() and (grid[:, :, 6:16] == 255).all() and (grid[:, 18:, 32:] == 255).all()


def test_contact_sheet_has_a_row_of_eight_moments_for_each_video(moving):
    videos = [moving(22, 10, 14, phase) for phase in (0, 2)]
    sheet = utils.contact_sheet(videos, ["observed 0", "chain 0"])
    strip = 8 * 14 + 7 * 2
    assert sheet.shape[0] == 10 + 2 + 10 and sheet.shape[1] > strip and sheet.dtype == np.uint8
    for top, video in ((0, videos[0]), (12, videos[1])):
        for k in range(8):  # evenly spread from the first frame to the last
            left = sheet.shape[1] - strip + k * 16
            assert np.array_equal(sheet[top : top + 10, left : left + 14], video[3 * k])
        assert (sheet[top : top + 10, : sheet.shape[1] - strip] < 100).any()  # its name
    assert utils.contact_sheet([moving(3, 10, 14)], ["short"]).shape[0] == 10


def test_png_is_lossless(moving):
    picture = moving(1, 9, 13)[0]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(utils.png_bytes(picture)))), picture)


def test_gif_has_every_frame_at_25_fps_and_loops(moving):
    video = moving(12, 20, 30)
    gif = Image.open(io.BytesIO(utils.gif_bytes(video)))
    assert (gif.n_frames, gif.size, gif.info["loop"]) == (12, (30, 20), 0)
    for t, frame in enumerate(video):
        gif.seek(t)
        assert gif.info["duration"] == 40
        assert np.abs(np.asarray(gif.convert("RGB")).astype(int) - frame).mean() < 6


def test_gif_of_a_still_video_lasts_as_long_as_the_video(moving):
    gif = Image.open(io.BytesIO(utils.gif_bytes(np.repeat(moving(1), 12, axis=0))))
    durations = []
    for t in range(gif.n_frames):
        gif.seek(t)
        durations.append(gif.info["duration"])
    assert sum(durations) == 12 * 40


def test_gif_of_one_grey_does_not_flicker():
    video = np.full((6, 12, 12, 3), 90, np.uint8)
    video[:, 4:8, 4:8] += np.arange(0, 60, 10, dtype=np.uint8)[:, None, None, None]
    frames = iio.imread(utils.gif_bytes(video), plugin="pillow", extension=".gif", mode="RGB")
    assert (frames[:, 0, 0] == frames[0, 0, 0]).all()
    assert np.abs(frames.astype(int) - video).max() <= 6


@pytest.mark.parametrize("size", [(23, 17), (24, 17), (23, 16), (24, 16), (1, 1)])
def test_mp4_of_any_size_has_every_frame_at_25_fps(size, moving, tmp_path):
    video = moving(12, *size)
    path = tmp_path / "a.mp4"
    path.write_bytes(utils.mp4_bytes(video))
    read = iio.imread(path, plugin="pyav")
    padded = (12, size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
    assert read.shape == padded
    difference = np.abs(read[:, : size[0], : size[1]].astype(int) - video).mean((1, 2, 3))
    assert difference.max() < 10 and (size == (1, 1) or np.abs(np.diff(video.astype(int), axis=0)).mean() > 20)
    assert iio.immeta(path, plugin="pyav")["fps"] == 25


def test_a_file_is_written_whole_or_stays_as_it_was(tmp_path):
    path = tmp_path / "deep" / "state.bin"
    utils.write_atomically(path, b"old")
    assert path.read_bytes() == b"old"
    for stop in (ValueError, KeyboardInterrupt, OSError):

        def half(file, stop=stop):
            file.write(b"half of the new")
            file.flush()
            assert path.read_bytes() == b"old"
            raise stop

        with pytest.raises(stop):
            utils.write_atomically(path, half)
        assert path.read_bytes() == b"old"
        assert list(path.parent.iterdir()) == [path]  # nothing is left behind
    utils.write_atomically(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_the_same_video_is_the_same_mp4(moving):
    film = utils.mp4_bytes(moving(30, 64, 64))
    assert film == utils.mp4_bytes(moving(30, 64, 64))
    assert 0 < film.index(b"moov") < film.index(b"mdat")  # what a browser needs first stands first
