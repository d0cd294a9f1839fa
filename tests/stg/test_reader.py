"""Clips as people have them: each test makes the file of one kind, and holds what is read against what was written."""

import struct
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter
from PIL import Image
from tools import encode, fails, images

from data import VIDEO_SUFFIXES, list_clips, read, read_clip, read_picture


def animation(path, video, **options):
    first, *others = (Image.fromarray(frame) for frame in video)
    first.save(path, save_all=True, append_images=others, **options)
    return path


def about(frames, expected, error=12):
    """The frames are those expected, but for what their codec has lost."""
    assert frames.dtype == np.uint8 and frames.shape == expected.shape
    assert np.abs(frames.astype(int) - expected).mean() < error


# --------------------------------------------------------------------------------------------------------- kinds

KINDS = {  # file: its codec, frames a second
    "a.mp4": ("libx264", 60), "a.MP4": ("libx264", 25), "a.m4v": ("libx264", 24), "a.mov": ("libx264", 10),
    "a.mkv": ("libx264", Fraction(30000, 1001)), "a.MKV": ("ffv1", 25), "a.webm": ("libvpx-vp9", 30),
    "a.avi": ("mpeg4", 15), "a.mpg": ("mpeg2video", 25), "a.ts": ("libx264", 50), "a.mts": ("libx264", 25),
    "a.wmv": ("wmv2", 25), "a.flv": ("flv", 25), "a.3gp": ("h263", 15),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_video_is_read_at_its_own_rate(name, tmp_path, moving):
    codec, rate = KINDS[name]
    video = moving(11, 144, 176) if codec == "h263" else moving(11, 48, 64)
    path = encode(tmp_path / "cat" / name, video, codec, rate=rate, options={"q": "2"})
    assert list_clips(path.parent) == [path]
    frames, record = read(path)
    about(frames, video, 16)
    distance = np.abs(frames[:, None].astype(int) - video).mean((2, 3, 4))  # of every frame to every frame
    assert (distance.argmin(1) == np.arange(11)).all()
    assert record.rate == rate and record.frames in (11, None)


@pytest.mark.parametrize("pattern, options", [("{}.png", {}), ("frame_{:03d}.bmp", {}), ("x{}.tif", {}),
                                              ("{}.webp", {"lossless": True})])
def test_a_folder_of_numbered_images_is_a_clip_in_natural_order(pattern, options, tmp_path, moving):
    video = moving(12, 9, 14)  # 2 comes before 10
    folder = images(tmp_path / "cat/seq", video, pattern, **options)
    (folder / "notes.txt").write_text("no frame")
    (folder / ".hidden.png").write_text("no frame")
    assert list_clips(folder.parent) == [folder] == list_clips(folder)
    assert np.array_equal(read_clip(folder), video)


def test_jpegs_and_grey_images_and_alpha_are_read_as_rgb(tmp_path, moving):
    video = moving(3, 16, 16)
    Image.fromarray(video[0]).save(tmp_path / "1.jpg", quality=95)
    Image.fromarray(video[1, ..., 0]).save(tmp_path / "2.png")
    Image.fromarray(np.dstack([video[2], np.full((16, 16), 7, np.uint8)])).save(tmp_path / "3.png")
    frames = read_clip(tmp_path)
    about(frames[:1], video[:1], 6)
    assert np.array_equal(frames[1], np.repeat(video[1, ..., :1], 3, axis=2)) and np.array_equal(frames[2], video[2])


@pytest.mark.parametrize("suffix, options", [("webp", {"lossless": True}), ("png", {}), ("apng", {"format": "png"}),
                                             ("avif", {"quality": 95}), ("gif", {}), ("tif", {})])
def test_animated_pictures_are_clips_in_their_own_time(suffix, options, tmp_path, moving):
    video = moving(8, 32, 48)
    path = animation(tmp_path / f"a.{suffix}", video, duration=[100] * 4 + [400] + [100] * 3, **options)
    assert list_clips(tmp_path) == [path]
    frames, record = read(path)
    if suffix == "tif":  # has no times
        return about(frames, video, 1)
    assert "10 fps" in str(record) and "pauses held" in str(record)
    about(frames, video[[0, 1, 2, 3, 4, 4, 4, 4, 5, 6, 7]])


def boxes(content):
    """The boxes of an MP4, with their names."""
    at = 0
    while at < len(content):
        size = struct.unpack(">I", content[at : at + 4])[0]
        yield content[at + 4 : at + 8], content[at : at + size]
        at += size


def test_cover_art_is_not_the_clip(tmp_path, moving):
    video, path = moving(12, 48, 64), tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        cover, stream = container.add_stream("mjpeg", rate=1), container.add_stream("libx264", rate=25)
        cover.height, cover.width, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
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


# --------------------------------------------------------------------------------------------------- orientation


@pytest.fixture
def corners():
    """A video whose four corners differ: white, black, red, blue, clockwise from the top left; 48x96."""
    video = np.full((6, 48, 96, 3), 128, np.uint8)
    video[:, :16, :32], video[:, :16, 64:] = 255, 0
    video[:, 32:, 64:], video[:, 32:, :32] = (255, 0, 0), (0, 0, 255)
    return video


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


@pytest.mark.parametrize("scale, dtype", [(257, np.uint16), (1 / 255, np.float32)])
def test_deep_colour_tiffs_are_read(scale, dtype, tmp_path, moving):
    video = moving(2, 16, 16)
    for k, frame in enumerate(video):
        cv2.imwrite(str(tmp_path / f"{k}.tif"), (frame[..., ::-1] * dtype(scale)).astype(dtype))
    about(read_clip(tmp_path), video, 2)


@pytest.mark.parametrize("codec, pix_fmt", [("libx264", "yuv420p10le"), ("ffv1", "gray16le"), ("ffv1", "yuv444p12le")])
def test_deep_video_is_read(codec, pix_fmt, tmp_path):
    ramp = np.broadcast_to(np.linspace(0, 255, 64).astype(np.uint8)[:, None], (4, 64, 64, 3))
    about(read_clip(encode(tmp_path / "a.mkv", ramp, codec, pix_fmt)), ramp)


@pytest.mark.parametrize("curve, name, grey", [(16, "PQ", 192), (18, "HLG", 146), (1, None, 129)])
def test_hdr_is_tone_mapped_and_said(curve, name, grey, tmp_path):
    """The grey levels are those of OpenCV 5, which tone-maps, too, for mid-grey of 10 bits."""
    def setup(stream):
        context = stream.codec_context
        context.color_range, context.colorspace, context.color_primaries, context.color_trc = 1, 9, 9, curve

    video = np.full((3, 64, 64, 3), 130, np.uint8)
    path = encode(tmp_path / "a.mp4", video, "libx264", "yuv420p10le", options={"crf": "0"}, setup=setup)
    frames, record = read(path)
    assert np.abs(frames.astype(int) - grey).max() <= 2
    assert (f"HDR ({name}) tone-mapped" in str(record)) == (name is not None)


# ---------------------------------------------------------------------------------------------- damage, bad files


@pytest.fixture
def noisy(moving):
    noise = np.random.default_rng(0).integers(-20, 20, (60, 48, 64, 3))
    return (moving(60, 48, 64).astype(int) + noise).clip(0, 255).astype(np.uint8)


def damage(path, packets):
    """Turn over six bytes in the middle of some packets of a file."""
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    for position, size in places[packets]:
        for offset in range(size // 2, size // 2 + 6):
            content[position + offset] ^= 0x55
    path.write_bytes(content)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_damaged_packets_are_an_error_that_says_which_frames(codec, tmp_path, noisy):
    path = encode(tmp_path / "a.mp4", noisy, codec)
    assert len(read_clip(path)) == 60
    damage(path, slice(8, 12))
    message = fails(read_clip, path)
    assert "a.mp4" in message and "damaged" in message and "-start_frame" in message
    assert len(read_clip(path, 5)) == 5  # before it


def test_a_few_damaged_frames_are_named(tmp_path, noisy):
    path = encode(tmp_path / "a.avi", noisy, "mpeg4", options={"g": "1"})  # every frame by itself
    damage(path, slice(9, 11))
    frames, record = read(path)
    assert len(frames) == 60 and "damaged: frame 11" in str(record)
    assert "damaged" not in str(read(path, start=20)[1]) and "damaged" not in str(read(path, 9)[1])


@pytest.mark.parametrize("name, codec, said", [
    ("a.mkv", "libx264", "cut short"), ("a.avi", "mpeg4", "cut short"), ("a.webm", "libvpx-vp9", "cut short"),
    ("a.flv", "flv", "cut short"), ("a.mp4", "libx264", "cannot read"), ("a.gif", None, "cannot read"),
])
def test_a_file_that_is_cut_short_is_an_error_unless_enough_is_there(name, codec, said, tmp_path, noisy):
    path = encode(tmp_path / name, noisy, codec) if codec else animation(tmp_path / name, noisy, duration=40)
    content = path.read_bytes()
    assert len(read_clip(path, 60)) == 60
    path.write_bytes(content[: len(content) * 2 // 3])
    message = fails(read_clip, path, 60)
    assert name in message and said in message
    if said == "cut short":
        assert "60" in message and len(read_clip(path, 8)) == 8
    path.write_bytes(content[: len(content) // 10])
    assert name in fails(read_clip, path, 60)


@pytest.mark.parametrize("content", [b"", b"just text, no video\n" * 40, bytes(5000)], ids=["empty", "text", "zeros"])
def test_a_file_that_is_no_video_is_an_error_that_names_it(content, tmp_path):
    for suffix in (*VIDEO_SUFFIXES, ".png"):
        path = tmp_path / f"fake{suffix}"
        path.write_bytes(content)
        assert path.name in fails(read_clip, path, 4, (8, 8))


def test_a_file_of_sound_alone_has_no_video(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 44100
        container.mux([*stream.encode(sound), *stream.encode()])
    assert "a.mp4' has no video in it" in fails(read_clip, tmp_path / "a.mp4")


def test_what_lies_behind_the_frames_that_are_needed_may_be_damaged(tmp_path, moving):
    folder = images(tmp_path / "seq", moving(6, 8, 8))
    (folder / "006.png").write_text("no image")
    assert np.array_equal(read_clip(folder, 6), moving(6, 8, 8))
    assert "seq' after 6 frames" in fails(read_clip, folder, 7)


def test_frames_of_several_sizes_need_a_size(tmp_path, moving):
    folder = images(tmp_path / "seq", [moving(1, 48 + 8 * (k == 3))[0] for k in range(6)])
    message = fails(read_clip, folder)
    assert "48x24" in message and "56x24" in message and "-im_size" in message
    assert read_clip(folder, None, (20, 20)).shape == (6, 20, 20, 3)


# -------------------------------------------------------------------------------------------------- time and size


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_pause_is_held_and_times_that_jitter_lose_no_frame(name, tmp_path, moving):
    video, times = moving(12, 48, 64), np.cumsum([0] + [20] * 5 + [100] + [20] * 5)
    frames, record = read(encode(tmp_path / name, video, times=times))
    about(frames, video[[*range(5), *[5] * 5, *range(6, 12)]])
    assert record.rate == 50 and "pauses held" in str(record)
    video, times = moving(50, 48, 64), np.cumsum(np.r_[0, np.random.default_rng(0).integers(28, 40, 49)])  # as phones
    frames, record = read(encode(tmp_path / name, video, times=times))
    about(frames, video)
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
    assert "has 30 frames, 31 are needed: lower -num_frames" in fails(read, path, 31, start=10)
    folder = images(tmp_path / "seq", whole)
    assert np.array_equal(read(folder, 3, start="0.4s", step=2)[0], whole[10:16:2])


def test_only_the_frames_that_are_needed_are_decoded(tmp_path, moving, monkeypatch):
    path, decoded = encode(tmp_path / "a.mp4", moving(30, 16, 16)), []

    class Counting:
        def reformat(self, frame, **kwargs):
            decoded.append(frame)
            return VideoReformatter().reformat(frame, **kwargs)

    monkeypatch.setattr("reader.clips.VideoReformatter", Counting)
    assert len(read_clip(path, 4)) == 4 == len(decoded)


def test_long_clips_are_read_whole_with_a_word(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("reader.clips.LONG", 20)
    path = encode(tmp_path / "long.mkv", np.zeros((50, 16, 16, 3), np.uint8))
    assert len(read_clip(path, None, (8, 8))) == 50
    said = capsys.readouterr().out
    assert "long.mkv" in said and "51 frames" in said
    path = encode(tmp_path / "unannounced.mpg", np.zeros((300, 16, 16, 3), np.uint8), "mpeg2video")
    assert len(read_clip(path)) == 300


def test_frames_are_resized_by_pillows_bilinear_filter_which_averages(tmp_path, moving):
    whole = moving(2, 40, 64)
    folder = images(tmp_path / "seq", whole)
    for height, width in ((16, 16), (10, 30), (90, 70), (40, 64)):
        expected = [np.asarray(Image.fromarray(f).resize((width, height), Image.Resampling.BILINEAR)) for f in whole]
        assert np.array_equal(read_clip(folder, 2, (height, width)), np.stack(expected))
    checks = np.indices((64, 64)).sum(0) % 2 * 255  # a chequered frame shrinks to grey
    folder = images(tmp_path / "checks", [np.repeat(checks[..., None], 3, 2).astype(np.uint8)])
    assert np.abs(read_clip(folder, 1, (8, 8)).astype(int) - 127).max() <= 2


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
