"""Clips as people have them: each test makes the file of one kind, and holds what is read against what was written."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image
from tools import fails

import data
from data import list_clips, read, read_clip, read_picture, read_recorded_mask


def encode(path, video, codec="libx264", pix_fmt="yuv420p", rate=25, options=None, times=None, setup=None):
    """A video file of uint8 (T, H, W, 3); times: of the frames, in ms; setup(stream): before the first frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width, stream.pix_fmt = *video.shape[1:3], pix_fmt
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if setup:
            setup(stream)
        for k, picture in enumerate(video):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = int(times[k]), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def images(folder, pictures, name="{:03d}.png", **options):
    folder.mkdir(parents=True, exist_ok=True)
    for k, picture in enumerate(pictures):
        each = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        each.save(folder / name.format(k), **options)
    return folder


@pytest.fixture
def corners():
    """A video whose four corners differ: white, black, red, blue, clockwise from the top left; 48x96."""
    video = np.full((6, 48, 96, 3), 128, np.uint8)
    video[:, :16, :32], video[:, :16, 64:] = 255, 0
    video[:, 32:, 64:], video[:, 32:, :32] = (255, 0, 0), (0, 0, 255)
    return video


def about(frames, expected, error=12):
    assert frames.shape == expected.shape
    off = np.abs(frames.astype(int) - expected).mean()
    assert off < error


# --------------------------------------------------------------------------------------------------- orientation


TURNS = [(0, 0, 0), (90, 0, 0), (180, 0, 0), (-90, 0, 0), (0, 1, 0), (0, 0, 1), (90, 1, 0), (90, 0, 1)]


@pytest.mark.parametrize("degrees, hflip, vflip", TURNS)
@pytest.mark.parametrize("name", ["a.mov", "a.mkv"])
def test_a_display_matrix_turns_frames_upright(name, degrees, hflip, vflip, tmp_path, corners):
    def setup(stream):
        stream.set_display_rotation(degrees, hflip=bool(hflip), vflip=bool(vflip))

    frames, record = read(encode(tmp_path / name, corners, setup=setup))
    upright = np.rot90(corners, degrees // 90, (1, 2))
    upright = upright[:, :, ::-1] if hflip else upright
    about(frames, upright[:, ::-1] if vflip else upright)
    words = {0: "", 90: "turned by 270", 180: "turned by 180", -90: "turned by 90"}[degrees]
    assert words in str(record) if not (hflip or vflip) else "mirrored" in str(record)
    assert str(record).startswith(f"{name}: 96x48")


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_exif_turns_pictures_upright(suffix, orientation, tmp_path, corners):
    picture = Image.fromarray(corners[0])
    exif = picture.getexif()
    exif[0x0112] = orientation
    folder = images(tmp_path / "seq", [picture] * 2, f"{{}}.{suffix}", exif=exif, quality=95)
    expected = {2: np.fliplr, 3: lambda p: np.rot90(p, 2), 4: np.flipud, 5: lambda p: p.swapaxes(0, 1),
                6: lambda p: np.rot90(p, -1), 7: lambda p: np.rot90(p.swapaxes(0, 1), 2),
                8: np.rot90}[orientation](corners[0])
    about(read_clip(folder), np.stack([expected] * 2))
    about(read_picture(folder / f"0.{suffix}"), expected)


# --------------------------------------------------------------------------------------------------------- depth


def sixteen(frame):
    return frame.astype(np.uint16) << 8 | frame


DEPTHS = {"16 bits": (sixteen, "png", 65535), "16 bits TIFF": (sixteen, "tif", 65535),
          "10 of 16 bits": (lambda f: f.astype(np.uint16) << 2 | f >> 6, "png", 1023),
          "8 of 16 bits": (lambda f: f.astype(np.uint16), "png", 255),
          "float to 1": (lambda f: f.astype(np.float32) / 255, "tif", 1),
          "float to 255": (lambda f: f.astype(np.float32), "tif", 255),
          "32 bits": (lambda f: f.astype(np.int32), "tif", 255)}


@pytest.mark.parametrize("kind", DEPTHS)
def test_deep_grey_pictures_are_scaled_by_their_own_range(kind, tmp_path, moving):
    convert, suffix, top = DEPTHS[kind]
    grey = moving(4, 20, 30)[..., 0]
    grey[0, 0, 0] = 255
    folder = images(tmp_path / "seq", [convert(frame) for frame in grey], f"{{}}.{suffix}")
    frames, record = read(folder)
    assert np.abs(frames[..., 0].astype(int) - grey).max() <= 1 and (frames == frames[..., :1]).all()
    assert f"samples from 0 to {top}" in str(record)
    assert np.abs(read_picture(folder / f"0.{suffix}")[..., 0].astype(int) - grey[0]).max() <= 1


def test_all_frames_of_a_deep_clip_have_one_scale(tmp_path):
    levels = [0.2, 0.9, 0.4]  # a scale of each frame's own would make them equal
    folder = images(tmp_path / "seq", [np.full((8, 8), level, np.float32) for level in levels], "{}.tif")
    assert read_clip(folder)[:, 0, 0, 0].tolist() == [51, 230, 102]


def test_colour_tiffs_of_16_bits_and_floating_point_are_read(tmp_path, moving):
    video = moving(2, 16, 16)
    for name, scale, dtype in (("deep", 257, np.uint16), ("float", 1 / 255, np.float32)):
        (tmp_path / name).mkdir()
        for k, frame in enumerate(video):
            cv2.imwrite(str(tmp_path / name / f"{k}.tif"), (frame[..., ::-1] * dtype(scale)).astype(dtype))
        about(read_clip(tmp_path / name), video, 2)


@pytest.mark.parametrize("codec, pix_fmt", [("libx264", "yuv420p10le"), ("ffv1", "gray16le"), ("ffv1", "yuv444p12le")])
def test_deep_video_is_read(codec, pix_fmt, tmp_path):
    ramp = np.broadcast_to(np.linspace(0, 255, 64).astype(np.uint8)[:, None], (4, 64, 64, 3))
    about(read_clip(encode(tmp_path / "a.mkv", ramp, codec, pix_fmt)), ramp)


@pytest.mark.parametrize("curve, name, grey", [(16, "PQ", 192), (18, "HLG", 146), (1, None, 129)])
def test_hdr_is_tone_mapped_and_said(curve, name, grey, tmp_path):
    """The grey levels are those of OpenCV 5, which tone-maps, too, for mid-grey of 10 bits."""
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "0"})
        stream.height = stream.width = 64
        stream.pix_fmt, context = "yuv420p10le", stream.codec_context
        context.color_range, context.colorspace, context.color_primaries, context.color_trc = 1, 9, 9, curve
        for _ in range(3):
            frame = av.VideoFrame(64, 64, "yuv420p10le")
            for plane in frame.planes:
                plane.update(struct.pack("<H", 512) * (plane.buffer_size // 2))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    frames, record = read(path)
    assert np.abs(frames.astype(int) - grey).max() <= 2
    assert (f"HDR ({name}) tone-mapped" in str(record)) == (name is not None)


# -------------------------------------------------------------------------------------------------------- damage


@pytest.fixture
def noisy(moving):
    noise = np.random.default_rng(0).integers(-20, 20, (60, 96, 128, 3))
    return (moving(60, 96, 128).astype(int) + noise).clip(0, 255).astype(np.uint8)


def damage(path, packets):
    """Turn over six bytes in the middle of some packets of a file."""
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    for position, size in places[packets]:
        for offset in range(size // 2, size // 2 + 6):
            content[position + offset] ^= 0x55
    path.write_bytes(content)


@pytest.mark.parametrize("name, codec", [("a.mp4", "libx264"), ("c.mp4", "mpeg4")])
def test_damaged_packets_are_an_error_that_says_which_frames(name, codec, tmp_path, noisy):
    path = encode(tmp_path / name, noisy, codec)
    assert len(read_clip(path)) == 60
    damage(path, slice(8, 12))
    message = fails(read_clip, path)
    assert name in message and "damaged" in message and "-start_frame" in message
    assert len(read_clip(path, 5)) == 5  # before it


def test_a_few_damaged_frames_are_named(tmp_path, noisy):
    path = encode(tmp_path / "a.avi", noisy, "mpeg4", options={"g": "1"})  # every frame by itself
    damage(path, slice(9, 11))
    frames, record = read(path)
    assert len(frames) == 60 and "damaged: frame 11" in str(record)
    assert "damaged" not in str(read(path, start=20)[1]) and "damaged" not in str(read(path, 9)[1])


@pytest.mark.parametrize("name, codec", [("a.mkv", "libx264"), ("a.avi", "mpeg4"), ("a.webm", "libvpx-vp9"),
                                         ("a.flv", "flv")])
def test_a_file_that_is_cut_short_is_an_error_unless_enough_is_there(name, codec, tmp_path, noisy):
    path = encode(tmp_path / name, noisy, codec)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    message = fails(read_clip, path)
    assert name in message and "cut short" in message and "60" in message
    assert len(read_clip(path, 8)) == 8


# ------------------------------------------------------------------------------------------------ which stream, kinds


def boxes(content):
    at = 0
    while at < len(content):
        size = struct.unpack(">I", content[at : at + 4])[0]
        yield content[at + 4 : at + 8], content[at : at + size]
        at += size


def test_cover_art_is_not_the_clip(tmp_path, moving):
    video, path = moving(12, 48, 64), tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        black = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        container.mux([*cover.encode(black), *cover.encode()])
        for frame in video:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    content, order = b"", {b"mvhd": 0, b"udta": 1}
    for name, box in boxes(path.read_bytes()):  # as tagging programs write it: the cover before the track
        if name == b"moov":
            box = box[:8] + b"".join(each for _, each in sorted(boxes(box[8:]), key=lambda b: order.get(b[0], 2)))
        content += box
    path.write_bytes(content)
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "mjpeg"
    about(read_clip(path), video)


KINDS = {"a.m4v": "libx264", "a.mpg": "mpeg2video", "a.mts": "libx264", "a.ts": "libx264", "a.wmv": "wmv2",
         "a.flv": "flv", "a.ogv": "theora", "a.MKV": "ffv1"}


@pytest.mark.parametrize("name", KINDS)
def test_more_suffixes_are_clips(name, tmp_path, moving):
    video = moving(20, 48, 64)
    try:
        av.codec.Codec(KINDS[name], "w")
        path = encode(tmp_path / "cat" / name, video, KINDS[name], options={"q": "2"})
    except (ValueError, av.FFmpegError):
        pytest.skip(f"no encoder {KINDS[name]} in this PyAV")
    assert list_clips(path.parent) == [path]
    frames, record = read(path)
    about(frames, video, 16)
    assert "25 fps" in str(record)


def test_a_phone_clip_of_old_is_read(tmp_path, moving):
    path = encode(tmp_path / "a.3gp", moving(10, 144, 176), "h263", rate=15)
    assert list_clips(tmp_path) == [path] and "15 fps" in str(read(path)[1])
    about(read_clip(path), moving(10, 144, 176))


@pytest.mark.parametrize("suffix, options", [("webp", {"lossless": True}), ("png", {}), ("apng", {"format": "png"}),
                                             ("avif", {"quality": 95}), ("gif", {}), ("tif", {})])
def test_animated_pictures_are_clips_in_their_own_time(suffix, options, tmp_path, moving):
    first, *others = (Image.fromarray(frame) for frame in moving(8, 32, 48))
    path = tmp_path / f"a.{suffix}"
    first.save(path, save_all=True, append_images=others, duration=[100] * 4 + [400] + [100] * 3, **options)
    assert list_clips(tmp_path) == [path]
    frames, record = read(path)
    if suffix == "tif":  # has no times
        return about(frames, moving(8, 32, 48), 1)
    assert "10 fps" in str(record) and "pauses held" in str(record)
    about(frames, moving(8, 32, 48)[[0, 1, 2, 3, 4, 4, 4, 4, 5, 6, 7]])


def test_still_webp_frames_are_a_clip(tmp_path, moving):
    folder = images(tmp_path / "cat/seq", moving(5, 16, 16), "{}.webp", lossless=True)
    assert list_clips(tmp_path / "cat") == [folder] == list_clips(folder)
    assert np.array_equal(read_clip(folder), moving(5, 16, 16))


def test_what_is_left_out_is_named(tmp_path, moving, capsys):
    first, *others = (Image.fromarray(frame) for frame in moving(4, 16, 16))
    seq = images(tmp_path / "seq", moving(6, 16, 16))
    first.save(seq / "preview.gif", save_all=True, append_images=others)
    first.save(seq / "cover.jpg")
    assert list_clips(seq) == [seq] and len(read_clip(seq)) == 6
    said = capsys.readouterr().out
    assert "preview.gif" in said and "cover.jpg" in said and said.count("\n") == 1
    mixed = tmp_path / "mixed"
    for name in ("a.mp4", "b.m4v"):
        encode(mixed / name, moving(4, 16, 16))
    (mixed / "~$a.mp4").write_text("of an office program")
    first.save(mixed / "cover.png")
    (mixed / "c.rmvb").write_text("of no known kind")
    assert [p.name for p in list_clips(mixed)] == ["a.mp4", "b.m4v"]
    said = capsys.readouterr().out
    assert "cover.png" in said and "c.rmvb" in said and "~$" not in said


# ---------------------------------------------------------------------------------------------------------- time


@pytest.mark.parametrize("name, rate", [("a.mp4", 60), ("a.mkv", Fraction(30000, 1001)), ("a.avi", 15), ("a.ts", 50)])
def test_the_frame_rate_is_the_clips_own(name, rate, tmp_path, moving):
    record = read(encode(tmp_path / name, moving(20, 48, 64), rate=rate))[1]
    assert record.rate == rate and record.frames == 20


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_pause_is_held(name, tmp_path, moving):
    times = np.cumsum([0] + [20] * 5 + [100] + [20] * 5)
    frames, record = read(encode(tmp_path / name, moving(12, 48, 64), times=times))
    expected = [*range(5), *[5] * 5, *range(6, 12)]
    about(frames, moving(12, 48, 64)[expected])
    assert record.rate == 50 and "pauses held" in str(record)


def test_times_that_jitter_lose_no_frame(tmp_path, moving):
    times = np.cumsum(np.r_[0, np.random.default_rng(0).integers(28, 40, 49)])  # as phones write them
    frames, record = read(encode(tmp_path / "a.mp4", moving(50, 48, 64), times=times))
    about(frames, moving(50, 48, 64))
    assert abs(record.rate - 1000 / np.diff(times).mean()) < 0.5


def test_any_part_of_a_clip_can_be_read(tmp_path, moving):
    path = encode(tmp_path / "a.mp4", moving(40, 48, 64))
    whole = read_clip(path)
    frames, record = read(path, 5, start=10, step=3)
    assert np.array_equal(frames, whole[10:23:3]) and str(record).endswith("40 frames, used 11-23, every 3rd")
    assert record.out_rate == Fraction(25, 3)
    assert np.array_equal(read(path, 4, start="0.5s")[0], whole[12:16])
    assert np.array_equal(read(path, start=30)[0], whole[30:])
    assert "first 50" in fails(read, path, 4, start=50)
    assert "30 frames are there" in fails(read, path, 31, start=10) or "has 30" in fails(read, path, 31, start=10)
    folder = images(tmp_path / "seq", whole)
    assert np.array_equal(read(folder, 3, start="0.4s", step=2)[0], whole[10:16:2])


@pytest.mark.parametrize("name, codec", [("a.mp4", "libx264"), ("a.mpg", "mpeg2video")])
def test_interlaced_video_is_deinterlaced(name, codec, tmp_path):
    """A bar that moves by 8 pixels a field: combed rows differ from their neighbours by the bar's whole contrast."""
    flags = av.codec.context.Flags.interlaced_dct | av.codec.context.Flags.interlaced_me

    def setup(stream):
        if codec == "mpeg2video":
            stream.codec_context.flags |= flags

    video = np.zeros((12, 96, 128, 3), np.uint8)
    for t in range(12):
        for field in (0, 1):
            at = 4 + 8 * t + 4 * field
            video[t, field::2, at : at + 20] = 200
    options = {"x264-params": "interlaced=1"} if codec == "libx264" else {"q": "2"}
    frames, record = read(encode(tmp_path / name, video, codec, options=options, setup=setup))
    assert "deinterlaced" in str(record) and len(frames) == 12

    def combs(v):
        return np.abs(v[2:10, 1:-1].astype(int) * 2 - v[2:10, :-2] - v[2:10, 2:]).mean()

    assert combs(frames) < 0.35 * combs(video)


def test_frames_of_several_sizes_need_a_size(tmp_path, moving):
    folder = images(tmp_path / "seq", [moving(1, 48 + 8 * (k == 3))[0] for k in range(6)])
    message = fails(read_clip, folder)
    assert "48x24" in message and "56x24" in message and "-im_size" in message
    assert read_clip(folder, None, (20, 20)).shape == (6, 20, 20, 3)


def test_long_clips_are_read_with_a_word_and_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("reader.clips.LONG", 20)
    video = np.zeros((50, 16, 16, 3), np.uint8)
    path = encode(tmp_path / "long.mkv", video)
    assert len(read_clip(path, None, (8, 8))) == 50
    said = capsys.readouterr().out
    assert "long.mkv" in said and "51 frames" in said


# --------------------------------------------------------------------------------------------------------- masks


SQUARE = np.zeros((32, 32), np.uint8)
SQUARE[8:20, 8:20] = 1


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
    smaller = read_recorded_mask(folder, 4, (16, 16))[0]
    assert np.array_equal(smaller, mask[:, ::2, ::2])


def test_soft_arrays_hide_where_pictures_do(tmp_path):
    soft = SQUARE.astype(np.float32) * 0.9 + 0.02
    np.save(tmp_path / "soft.npy", soft)
    mask, record = read_recorded_mask(tmp_path / "soft.npy", 3, (32, 32))
    assert np.array_equal(mask, np.stack([SQUARE > 0] * 3)) and "one picture" in str(record)
    soft[0, 0] = np.nan
    np.save(tmp_path / "soft.npy", soft)
    assert "no numbers" in fails(read_recorded_mask, tmp_path / "soft.npy", 3, (32, 32))


def test_arrays_of_another_size_are_resized_if_their_proportions_fit(tmp_path):
    np.save(tmp_path / "mask.npy", np.stack([SQUARE] * 4))
    mask, _ = read_recorded_mask(tmp_path / "mask.npy", 4, (16, 16))
    assert np.array_equal(mask, np.stack([SQUARE[::2, ::2] > 0] * 4))
    assert "4x32x32" in fails(read_recorded_mask, tmp_path / "mask.npy", 4, (16, 20))


def test_a_mask_that_hides_nothing_or_nearly_all_is_an_error(tmp_path):
    inverted = np.full((32, 32), 255, np.uint8)
    inverted[0, :8] = 0
    for picture, word in ((inverted * 0, "hides no pixel"), (inverted, "99.2%")):
        folder = images(tmp_path / word[-4:-1], [picture] * 3)
        assert word in fails(read_recorded_mask, folder, 3, (32, 32))
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


def test_mat_files_that_are_none_say_what_there_is(tmp_path):
    from scipy.io import savemat

    savemat(tmp_path / "other.mat", {"hole": np.zeros((3, 3, 3))})
    assert "'hole'" in fails(data.read_mask, tmp_path / "other.mat", 3, (3, 3))
    (tmp_path / "new.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(600))
    assert "-v7" in fails(data.read_mask, tmp_path / "new.mat", 3, (3, 3))


# ------------------------------------------------------------------------------------------------ paths, names, lists


def test_a_category_may_be_a_file(tmp_path, moving):
    path = encode(tmp_path / "clips/a.mp4", moving(4, 16, 16))
    encode(tmp_path / "clips/b.mp4", moving(4, 16, 16))
    for where in ((path, "fire_pot"), (tmp_path / "clips", "a.mp4"), (tmp_path / "clips", "./a.mp4")):
        assert data.load_category(*where, 4, (8, 8))[1] == ["a.mp4"]
    assert "-data_path" in fails(data.load_category, tmp_path / "clips", str(path), 4, (8, 8))
    assert [data.clean_category(tmp_path / "clips", c) for c in ("fire/", "./fire", "a.mp4", "x/y//", "fire.2")] == [
        "fire", "fire", "a", "x/y", "fire.2"]


def test_a_category_is_found_one_folder_deeper_and_not_twice(tmp_path, moving):
    encode(tmp_path / "textures/fire/a.mp4", moving(4, 16, 16))
    assert data.category_folder(tmp_path, "fire") == tmp_path / "textures/fire"
    encode(tmp_path / "fire/b.mp4", moving(4, 16, 16))
    message = fails(data.category_folder, tmp_path, "fire")
    assert "'./fire'" in message and "'./textures/fire'" in message
    assert data.category_folder(tmp_path, "./fire") == tmp_path / "fire"
    assert data.category_folder(tmp_path, "./textures/fire/") == tmp_path / "textures/fire"


@pytest.mark.parametrize("raw", [b"a.mp4", b"12:30 fire.mp4", b"a%03d.mp4", "火 $x^2_{.mp4".encode(),
                                 b"caf\xe9.mp4"])
def test_names_of_every_kind_can_be_read(raw, tmp_path, moving):
    import os

    try:
        target = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + raw))
        encode(tmp_path / "plain.mp4", moving(4, 16, 16)).rename(target)
    except OSError:
        pytest.skip("the file system does not take this name")
    assert len(data.load_category(tmp_path.parent, tmp_path.name, 4, (8, 8))[0]) == 1


LISTS = [
    b"\xef\xbb\xbfclips/0.jpg\r\nclips/1.jpg\r\n", b"clips\\0.jpg\nclips\\1.jpg\n",
    b"# mine\nclips/0.jpg 3\n\nclips/1.jpg 4", "clips/0.jpg\nclips/1.jpg\n".encode("utf-16")]


@pytest.mark.parametrize("content", LISTS, ids=["mark", "backslashes", "comments", "UTF-16"])
def test_lists_of_other_systems_are_understood(content, tmp_path, moving):
    images(tmp_path / "clips", moving(2, 16, 16), "{}.jpg")
    (tmp_path / "list.txt").write_bytes(content)
    assert data.list_strips(tmp_path / "list.txt", tmp_path) == [tmp_path / "clips/0.jpg", tmp_path / "clips/1.jpg"]


def test_fingerprints_are_of_what_was_read(tmp_path, moving):
    path = encode(tmp_path / "cat/a.mp4", moving(8, 16, 16))
    (first,) = data.read_category(tmp_path, "cat", 4, (8, 8))[1]
    path.rename(tmp_path / "cat/b.mp4")
    (moved,) = data.read_category(tmp_path, "cat", 4, (8, 8))[1]
    encode(tmp_path / "cat/b.mp4", 255 - moving(8, 16, 16))
    (other,) = data.read_category(tmp_path, "cat", 4, (8, 8))[1]
    assert first.sha256 == moved.sha256 != other.sha256 and len(first.sha256) == 64
