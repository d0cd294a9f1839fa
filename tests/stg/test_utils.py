"""Noise by name, pictures as they are, films with every frame, files that are whole or old."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

import utils
from data import read


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
    pixels = utils.to_uint8(values.view(1, 1, 1, 1, 9).expand(2, 3, 4, 5, 9).clone().requires_grad_())
    assert pixels.shape == (2, 4, 5, 9, 3) and pixels.dtype == np.uint8
    assert (pixels == np.array([0, 0, 0, 1, 99, 101, 255, 255, 255])[:, None]).all()
    x = torch.arange(2 * 3 * 2 * 4 * 5).view(2, 3, 2, 4, 5)
    assert np.array_equal(utils.to_uint8(x.float()), np.moveaxis(x.numpy(), 1, 4))  # axes keep their meaning


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


def gif_of(video):
    """The frames of its GIF, (T, H, W, 3), and how long each is shown, in ms."""
    gif = Image.open(io.BytesIO(utils.gif_bytes(video)))
    assert gif.size == video.shape[2:0:-1] and gif.info["loop"] == 0
    each = [(np.asarray(frame.convert("RGB")), frame.info["duration"]) for frame in ImageSequence.Iterator(gif)]
    return np.stack([frame for frame, _ in each]).astype(int), [duration for _, duration in each]


def test_gif_has_every_frame_at_25_fps_and_loops(moving):
    frames, durations = gif_of(moving(12, 20, 30))
    assert np.abs(frames - moving(12, 20, 30)).mean((1, 2, 3)).max() < 6 and durations == [40] * 12
    assert sum(gif_of(np.repeat(moving(1), 12, axis=0))[1]) == 12 * 40  # a still video lasts as long


def test_gif_of_one_grey_does_not_flicker():
    video = np.full((6, 12, 12, 3), 90, np.uint8)
    video[:, 4:8, 4:8] += np.arange(0, 60, 10, dtype=np.uint8)[:, None, None, None]
    frames, _ = gif_of(video)
    assert (frames[:, 0, 0] == frames[0, 0, 0]).all() and np.abs(frames - video).max() <= 6


@pytest.mark.parametrize("size", [(23, 16), (24, 17), (1, 1)])
def test_mp4_of_any_size_has_every_frame_at_25_fps(size, moving, tmp_path):
    video = moving(12, *size)
    path = tmp_path / "a.mp4"
    path.write_bytes(utils.mp4_bytes(video))
    frames, record = read(path)
    assert frames.shape == (12, size[0] + size[0] % 2, size[1] + size[1] % 2, 3) and record.rate == 25
    assert np.abs(frames[:, : size[0], : size[1]].astype(int) - video).mean((1, 2, 3)).max() < 10


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
