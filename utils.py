"""Randomness by name, Triton, and pictures: pixels as they are, contact sheets, GIF and MP4, files that are whole or
old.

uint8 videos (T, H, W, C) exist only here and in data.py; everything else works on float32 (N, C, T, H, W).
"""

import functools
import hashlib
import io
import os
import tempfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image, ImageDraw

FPS = 25  # of outputs of images, which have no times
GRID = 100  # videos side by side at most


def generator(device, *key):
    """A torch.Generator whose stream depends on `key` alone, e.g. (seed, epoch, 'chain', 2)."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)


@functools.cache
def triton_works(device):
    """Whether kernels by Triton run on a device: a GPU of 2020 or later, with Triton and a C compiler."""
    if device.type != "cuda":
        return False
    try:
        from triton.runtime import driver

        return driver.active.get_current_target().arch >= 80
    except Exception:  # it raises many types where something is missing
        return False


def printable(name):
    """A name in letters that every output can have: of bytes that are no UTF-8, their numbers."""
    return str(name).encode("utf-8", "backslashreplace").decode()


def quantized(videos):
    """Float (N, C, T, H, W) in grey levels -> uint8 (N, T, H, W, C) on its device: clipped to [0, 255] and rounded,
    nothing else."""
    return videos.detach().permute(0, 2, 3, 4, 1).clamp(0, 255).round().to(torch.uint8).contiguous()


def to_uint8(videos):
    """`quantized` videos as an array."""
    return quantized(videos).cpu().numpy()


def side_by_side(videos, columns=None, margin=10):
    """Videos (T, H, W, 3) of one size in a grid on white: uint8 (T, H', W', 3)."""
    columns = columns or len(videos)
    t, h, w, c = videos[0].shape
    rows = -(-len(videos) // columns)
    canvas = np.full((t, rows * (h + margin) - margin, columns * (w + margin) - margin, c), 255, np.uint8)
    for k, video in enumerate(videos):
        top, left = k // columns * (h + margin), k % columns * (w + margin)
        canvas[:, top : top + h, left : left + w] = video
    return canvas


def contact_sheet(videos, names, moments=8, margin=2):
    """One picture: a named row for each video (T, H, W, 3), `moments` of its frames evenly spread. Returns uint8."""
    rows = []
    for video in videos:
        times = np.linspace(0, len(video) - 1, min(moments, len(video))).round().astype(int)
        rows.append(side_by_side([video[t : t + 1] for t in times], margin=margin)[0])
    label = 80
    h, w = rows[0].shape[:2]
    sheet = Image.new("RGB", (label + w, len(rows) * (h + margin) - margin), "white")
    for k, (row, name) in enumerate(zip(rows, names, strict=True)):
        sheet.paste(Image.fromarray(row), (label, k * (h + margin)))
        ImageDraw.Draw(sheet).text((4, k * (h + margin) + h // 2 - 6), name, fill="black")
    return np.asarray(sheet)


def png_bytes(picture):
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=1, compress_type=zlib.Z_RLE)  # faster, and smaller
    return buffer.getvalue()


def jpeg_bytes(picture):
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def gif_bytes(video, rate=FPS):
    """An endless GIF of a video uint8 (T, H, W, 3) at `rate` frames a second, with one palette for all its frames (no
    flicker). The format counts in hundredths of a second, to which frames are rounded so that the whole is exact;
    viewers slow down frames of one hundredth, so above 50 frames a second every second one is left out."""
    step = 2 if rate > 50 else 1
    palette = common_palette(video)
    colours = np.full((256, 4), 255, np.uint8)  # alpha, R, G, B
    listed = np.array(palette.getpalette(), np.uint8).reshape(-1, 3)
    colours[: len(listed), 1:] = listed
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="gif", options={"loop": "0"}) as container:
        stream = container.add_stream("gif", rate=Fraction(rate).limit_denominator(10**5) / step)
        stream.height, stream.width, stream.pix_fmt = *video.shape[1:3], "pal8"
        for frame in video[::step]:
            indices = np.asarray(Image.fromarray(frame).quantize(palette=palette))
            container.mux(stream.encode(av.VideoFrame.from_ndarray((indices, colours), format="pal8")))
        container.mux(stream.encode())
    return buffer.getvalue()


def common_palette(video):
    """256 colours for all frames of a video, as an image. A colour counts by the root of how often it is there: one
    that lasts for a moment, or fills a corner, is kept, too."""
    step = max(1, round((video[..., 0].size / 2**20) ** 0.5))
    pixels = video[:, ::step, ::step].reshape(-1, 3)
    cells = (pixels >> 3).astype(np.int32) @ np.array([2**10, 2**5, 1], np.int32)  # of 8 grey levels a side
    counts = np.bincount(cells, minlength=2**15)
    sums = np.stack([np.bincount(cells, channel, 2**15) for channel in pixels.T], axis=1)
    there = counts > 0
    means = (sums[there] / counts[there, None]).round().astype(np.uint8)
    return Image.fromarray(np.repeat(means, np.ceil(counts[there] ** 0.5).astype(int), axis=0)[None]).quantize(256)


def mp4_bytes(video, rate=FPS):
    """An H.264 MP4 of a video uint8 (T, H, W, 3) at `rate` frames a second; odd sides are padded by their edge, as the
    format asks. Its index stands first, so that browsers play it while it loads."""
    video = np.pad(video, ((0, 0), (0, video.shape[1] % 2), (0, video.shape[2] % 2), (0, 0)), mode="edge")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        write_mp4(path, video, rate)
        return path.read_bytes()


def write_mp4(path, video, rate):
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        options = {"crf": "16", "preset": "fast", "threads": "1", "mbtree": "0"}  # the same bytes from run to run
        stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(10**5), options=options)
        stream.height, stream.width, stream.pix_fmt = *video.shape[1:3], "yuv420p"
        for frame in video:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())


def save_frames(folder, videos):
    """Every frame of videos (N, T, H, W, 3) as folder/sequence_k/000.png, ..."""

    def save(numbered):
        target = Path(folder) / f"sequence_{numbered[0]}"
        target.mkdir(parents=True, exist_ok=True)
        for t, frame in enumerate(numbered[1]):
            (target / f"{t:03d}.png").write_bytes(png_bytes(frame))

    in_threads(save, enumerate(videos))


def in_threads(function, arguments):
    """[function(each) for each in arguments], a few at once: at 224 px one may take 300 MB."""
    with ThreadPoolExecutor(min(torch.get_num_threads(), 8)) as pool:
        return list(pool.map(function, arguments))


def save_videos(folder, name, videos, beside=None, rate=FPS):
    """The frames of videos (N, T, H, W, 3) in folder/<name>_sequence, and in folder/final_results a GIF and an MP4 of
    each, at `rate` frames a second; an MP4 of each of those `beside` them, (T, H, W, 3) by name; and, as `all`, those
    and these side by side, GRID of them at most, of which those are half at most."""
    beside = beside or {}
    everything = [*list(beside.values())[: GRID // 2], *videos][:GRID]
    rows, moments = -(-len(everything) // 6), np.arange(max(map(len, everything)))  # shorter videos begin again
    grid = [video[moments % len(video)] for video in everything]
    films = {"all": side_by_side(grid, -(-len(everything) // rows))}  # the longest work first
    films |= {f"sequence_{k}": video for k, video in enumerate(videos)}
    jobs = [(encode, film, kind) for film in films for kind, encode in (("mp4", mp4_bytes), ("gif", gif_bytes))]
    jobs += [(mp4_bytes, film, "mp4") for film in beside]
    films |= beside

    def save(job):
        encode, film, kind = job
        write_atomically(Path(folder) / f"final_results/{film}.{kind}", encode(films[film], rate))

    in_threads(save, jobs)
    save_frames(Path(folder) / f"{name}_sequence", videos)


def write_atomically(path, content):
    """Write bytes, or what a function writes to an open file, so that `path` is either the old file or the whole new
    one, also after a crash."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            content(file) if callable(content) else file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
