"""Categories: where they are, which clips they hold, what is left out, and the tensors that leave for a net."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tools import encode, fails, images

import data
from data import category_folder, list_clips, load_category, read_clip


def put(path, video):
    """A clip: a video file, or a folder of images if its name has no suffix."""
    return encode(path, video, "mpeg4" if path.suffix == ".avi" else "libx264") if path.suffix else images(path, video)


@pytest.fixture
def small(moving):
    return moving(4, 16, 16)


def test_a_category_may_have_clips_of_different_sizes_and_kinds_in_natural_order(tmp_path, moving):
    put(tmp_path / "cat/b10.avi", moving(9, 20, 20))
    put(tmp_path / "cat/b2.mp4", moving(7, 32, 48))
    put(tmp_path / "cat/a", moving(5, 11, 7))
    (tmp_path / "cat/.b0.mp4").write_text("no clip")
    (tmp_path / "cat/empty").mkdir()
    videos, names = load_category(tmp_path, "cat", 5, (12, 18))
    assert names == ["a", "b2.mp4", "b10.avi"]
    assert videos.shape == (3, 5, 12, 18, 3) and videos.dtype == np.uint8
    for video, name in zip(videos, names, strict=True):
        assert np.array_equal(video, read_clip(tmp_path / "cat" / name, 5, (12, 18)))
    message = fails(load_category, tmp_path, "cat", 8, (8, 8))
    assert all(part in message for part in ("cat/a'", "has 5 frames", "8 are needed", "-num_frames"))


def test_what_is_left_out_is_named(tmp_path, small, capsys):
    first, *others = (Image.fromarray(frame) for frame in small)
    seq = put(tmp_path / "seq", small)
    first.save(seq / "preview.gif", save_all=True, append_images=others)
    first.save(seq / "cover.jpg")
    assert list_clips(seq) == [seq] and len(read_clip(seq)) == 4
    said = capsys.readouterr().out
    assert "preview.gif" in said and "cover.jpg" in said and said.count("\n") == 1
    for name in ("a.mp4", "b.m4v"):
        put(tmp_path / "mixed" / name, small)
    (tmp_path / "mixed/~$a.mp4").write_text("of an office program")
    first.save(tmp_path / "mixed/cover.png")
    (tmp_path / "mixed/c.rmvb").write_text("of no known kind")
    assert [p.name for p in list_clips(tmp_path / "mixed")] == ["a.mp4", "b.m4v"]
    said = capsys.readouterr().out
    assert "cover.png" in said and "c.rmvb" in said and "~$" not in said


def test_an_unknown_or_empty_category_is_an_error_that_says_what_there_is(tmp_path):
    for name in ("ocean", "fire_pot", ".git", "__pycache__"):
        (tmp_path / name).mkdir()
    (tmp_path / "render.py").write_text("")
    assert fails(load_category, tmp_path, "fire", 2, (8, 8)).endswith("fire_pot, ocean")
    assert "is not a folder" in fails(load_category, tmp_path / "nowhere", "fire", 2, (8, 8))
    message = fails(load_category, tmp_path, "ocean", 2, (8, 8))
    assert "ocean'" in message and ".mp4" in message and "images" in message


@pytest.mark.parametrize("category", ["../../x", "..", ".", "", "/", "/etc", "a/../.."])
def test_a_category_may_not_leave_data_path(category, tmp_path, small):
    put(tmp_path / "deep/data/a/a.mp4", small)
    put(tmp_path / "x/a.mp4", small)
    assert repr(category) in fails(load_category, tmp_path / "deep/data", category, 2, (8, 8))


def test_a_category_may_be_a_link_or_lie_deeper_but_not_twice(tmp_path, small):
    put(tmp_path / "textures/fire/a.mp4", small)
    assert category_folder(tmp_path, "fire") == tmp_path / "textures/fire" == category_folder(tmp_path, "textures/fire")
    (tmp_path / "linked").symlink_to(tmp_path / "textures/fire")
    assert load_category(tmp_path, "linked", 4, (24, 24))[1] == ["a.mp4"]
    put(tmp_path / "fire/b.mp4", small)
    message = fails(category_folder, tmp_path, "fire")
    assert "'./fire'" in message and "'./textures/fire'" in message
    assert category_folder(tmp_path, "./fire") == tmp_path / "fire"
    assert category_folder(tmp_path, "./textures/fire/") == tmp_path / "textures/fire"


def test_a_category_may_be_a_file(tmp_path, small):
    path = put(tmp_path / "clips/a.mp4", small)
    put(tmp_path / "clips/b.mp4", small)
    for where in ((path, "fire_pot"), (tmp_path / "clips", "a.mp4"), (tmp_path / "clips", "./a.mp4")):
        assert load_category(*where, 4, (8, 8))[1] == ["a.mp4"]
    assert "-data_path" in fails(load_category, tmp_path / "clips", str(path), 4, (8, 8))
    assert [data.clean_category(tmp_path / "clips", c) for c in ("fire/", "./fire", "a.mp4", "x/y//", "fire.2")] == [
        "fire", "fire", "a", "x/y", "fire.2"]


@pytest.mark.parametrize("raw", [b"a.mp4", b"12:30 fire.mp4", b"a%03d.mp4", "火 $x^2_{.mp4".encode(),
                                 b"caf\xe9.mp4"])
def test_names_of_every_kind_can_be_read(raw, tmp_path, small):
    try:
        put(tmp_path / "plain.mp4", small).rename(Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + raw)))
    except OSError:
        pytest.skip("the file system does not take this name")
    assert len(load_category(tmp_path.parent, tmp_path.name, 4, (8, 8))[0]) == 1


@pytest.mark.parametrize("content", [
    b"\xef\xbb\xbfclips/0.jpg\r\nclips/1.jpg\r\n", b"clips\\0.jpg\nclips\\1.jpg\n",
    b"# mine\nclips/0.jpg 3\n\nclips/1.jpg 4", "clips/0.jpg\nclips/1.jpg\n".encode("utf-16"),
], ids=["mark", "backslashes", "comments", "UTF-16"])
def test_lists_of_other_systems_are_understood(content, tmp_path):
    (tmp_path / "clips").mkdir()
    for k in (0, 1):
        (tmp_path / f"clips/{k}.jpg").touch()
    (tmp_path / "list.txt").write_bytes(content)
    assert data.list_strips(tmp_path / "list.txt", tmp_path) == [tmp_path / "clips/0.jpg", tmp_path / "clips/1.jpg"]


def test_frames_become_a_float_tensor_in_grey_levels_and_the_same_memory_order(moving):
    videos = np.stack([moving(4, 5, 6), moving(4, 5, 6)[::-1]])
    x = data.to_tensor(videos)
    assert x.dtype == torch.float32 and x.is_contiguous(memory_format=torch.channels_last_3d)
    assert np.array_equal(x.numpy(), np.moveaxis(videos, 4, 1))


def test_released_clips_are_read(shared):
    fire = read_clip(shared("data/dynamic_texture/fire_pot/fire_pot0.avi"), 2)
    assert fire.shape == (2, 720, 1280, 3)
    water = read_clip(shared("data/dynamic_texture/boiling_water/55fa210.avi"))
    assert water.shape == (250, 288, 352, 3)
