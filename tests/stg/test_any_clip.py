"""Clips drawn at random, of every codec, container, size, rate, depth and turn: read rightly, or refused in a line."""

from fractions import Fraction

import av
import numpy as np
from tools import encode

from reader.clips import read
from reader.pictures import InputError

CODECS = {  # containers, formats of pixels, options (PyAV's encoder of HEVC can end the process)
    "libx264": ("mp4 mov mkv m4v ts flv avi", "yuv420p yuv444p yuv420p10le", {"crf": "12", "preset": "ultrafast"}),
    "mpeg4": ("mp4 avi mkv", "yuv420p", {"q": "2"}),
    "mpeg2video": ("mpg ts", "yuv420p", {"q": "2"}),
    "libvpx-vp9": ("webm mkv", "yuv420p yuv444p", {"crf": "15", "cpu-used": "8", "deadline": "realtime"}),
    "mjpeg": ("avi mov", "yuvj420p yuvj444p", {"qmin": "1", "q": "2"}),
    "ffv1": ("mkv", "yuv420p gray16le bgr0 yuv444p16le", {}),
    "prores_ks": ("mov", "yuv422p10le", {}),
    "gif": ("gif", "rgb8", {}),
}
RATES = [10, 24, 25, 30, 50, 60, Fraction(30000, 1001), Fraction(60000, 1001)]
TURNS = [(0, False), (90, False), (180, False), (-90, False), (0, True), (90, True)]


def draw(rng):
    """What a clip is made of, by name."""
    codec = rng.choice(list(CODECS))
    containers, formats, options = CODECS[codec]
    suffix = rng.choice(containers.split())
    sides = rng.integers(9, 41, 2) * 2 if codec != "mpeg2video" else rng.integers(2, 5, 2) * 16
    rate = RATES[rng.integers(2, len(RATES)) if codec == "mpeg2video" else rng.integers(len(RATES))]
    return {"codec": str(codec), "suffix": str(suffix), "pix_fmt": str(rng.choice(formats.split())),
            "size": tuple(map(int, sides)), "rate": rate, "frames": int(rng.integers(1, 41)),
            "turn": TURNS[rng.integers(len(TURNS))] if suffix in ("mp4", "mov", "m4v", "mkv") else (0, False)}


def colours(kind, rng):
    """Frames of four flat quarters, whose colours change slowly: what every codec keeps, uint8 (T, H, W, 3)."""
    height, width = kind["size"]
    t = np.arange(kind["frames"])[:, None, None]
    quarters = 128 + 90 * np.sin(rng.uniform(0, 6, (1, 4, 3)) + t * rng.uniform(0.05, 0.2, (1, 4, 3)))  # (T, 4, 3)
    if kind["pix_fmt"].startswith("gray"):
        quarters = np.repeat(quarters[..., :1], 3, axis=2)
    grid = quarters.reshape(-1, 2, 2, 3).round().astype(np.uint8)
    rows, columns = np.arange(height) * 2 // height, np.arange(width) * 2 // width
    return grid[:, rows][:, :, columns]


def quarters_of(video):
    """The mean colour of each quarter, away from its edges, (T, 4, 3)."""
    _, height, width, _ = video.shape
    parts = [video[:, y + height // 8 : y + height * 3 // 8, x + width // 8 : x + width * 3 // 8]
             for y in (0, height // 2) for x in (0, width // 2)]
    return np.stack([part.mean((1, 2)) for part in parts], axis=1)


def test_any_clip_is_read_rightly_or_refused_in_one_line(tmp_path, request):
    read_rightly = refused = 0
    for seed in range(100 if request.config.getoption("--many", default=False) else 12):
        rng = np.random.default_rng(seed)
        kind = draw(rng)
        video = colours(kind, rng)
        path = tmp_path / f"{seed}.{kind['suffix']}"
        degrees, mirrored = kind["turn"]

        def setup(stream, turn=kind["turn"]):
            if turn != (0, False):
                stream.set_display_rotation(turn[0], hflip=turn[1])

        try:
            encode(path, video, kind["codec"], kind["pix_fmt"], kind["rate"], CODECS[kind["codec"]][2], setup=setup)
        except (av.FFmpegError, ValueError):
            continue  # no such encoder here, or a rate or size that it does not take
        if kind["frames"] > 4 and seed % 5 == 4:
            path.write_bytes(path.read_bytes()[: -path.stat().st_size // 3])
            kind["cut"] = True
        upright = np.rot90(video, degrees // 90, (1, 2))
        upright = upright[:, :, ::-1] if mirrored else upright
        try:
            frames, record = read(path)
        except InputError as error:
            assert "\n" not in str(error) and path.name in str(error), (kind, error)
            refused += not kind.get("cut")
            continue
        assert frames.shape == upright.shape or kind.get("cut"), (kind, str(record))
        off = np.abs(quarters_of(frames) - quarters_of(upright[: len(frames)]))
        limit = 40 if kind["codec"] == "gif" else 12
        assert np.median(off) < limit / 2 and off.max() < 3 * limit, (kind, str(record), off.max())
        if kind["frames"] > 2 and kind["codec"] != "gif" and not kind.get("cut"):
            assert abs(float(record.rate / kind["rate"]) - 1) < 0.02, (kind, str(record))
        read_rightly += 1
    assert read_rightly > 5 and refused < 0.05 * read_rightly  # a transport stream of three frames, say
