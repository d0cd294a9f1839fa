"""Clips in: the frames of a video file, an animated picture or a folder of images, upright, in 8 bits a sample and in
even time.

A frame is uint8 (H, W, 3), RGB. What the reader had to do to a clip stands in its `Record`; what it cannot do honestly
is an `InputError`.
"""

import collections
import functools
import hashlib
import itertools
import re
import struct
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.codec.context import ThreadType
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import VideoReformatter
from PIL import Image

from reader.pictures import (
    LENIENT,
    MAYBE_ANIMATED,
    InputError,
    decode_picture,
    is_image,
    list_images,
    one_line,
    pages,
    resize_frame,
    sample_range,
    tell_once,
)
from utils import printable

HDR = {16: "PQ", 18: "HLG"}  # transfer functions, by their numbers in ITU-T H.273
BT709 = 1  # its transfer function and its primaries in ITU-T H.273
RATES = [Fraction(n) for n in (10, 12, 15, 24, 25, 30, 48, 50, 60, 100, 120, 240)]
RATES += [Fraction(n * 1000, 1001) for n in (24, 30, 60, 120, 240)]
PEEK = 100  # packets whose times tell the frame rate
HELD = 10  # seconds that a frame may stand; a longer pause is a fault of the times
FEW, SHARE = 3, 0.01  # damaged frames that are put up with: so many, or this share of those read
LONG = 2000  # frames that are not read without a word


@dataclass
class Record:
    """What the reader found in a clip; str() is one line of it.

    size: (H, W) as stored; turned: how it is turned upright; rate: frames a second, None of images; frames: how many
    the file says there are, None if it does not; first, step, used: frames that were left out at the start, every
    which was used, and how many; sha256: of the frames as they were read.
    """

    name: str
    size: tuple | None = None
    turned: str = ""
    rate: Fraction | None = None
    frames: int | None = None
    first: int = 0
    step: int = 1
    used: int = 0
    notes: list = field(default_factory=list)
    sha256: str | None = None

    def note(self, text):
        if text not in self.notes:
            self.notes.append(text)

    @property
    def out_rate(self):
        """Frames a second of what was used, None of images."""
        return self.rate and self.rate / self.step

    def __str__(self):
        height, width = self.size
        every = {1: "", 2: ", every 2nd", 3: ", every 3rd"}.get(self.step, f", every {self.step}th")
        last = self.first + (self.used - 1) * self.step + 1
        parts = [f"{width}x{height}{self.turned}", *([f"{float(self.rate):.4g} fps"] if self.rate else []), *self.notes,
                 *([f"{self.frames} frames"] if self.frames else []), f"used {self.first + 1}-{last}{every}"]
        return f"{self.name}: {', '.join(parts)}"


# ------------------------------------------------------------------------------------------------------ one source
# A source yields (picture, time, damage): a function without arguments that gives the frame as an array, so that frames
# which nobody needs are not converted; when it is shown, in seconds, or None; and how many frames up to it are damaged.


def image_source(path, record, last):
    """A folder of images, or one image, that are read up to number `last`, None: all."""
    images = list_images(path) if path.is_dir() else [path]
    record.frames = len(images)
    levels = sample_range(images[:last]) if images and pages(images[0]) else None
    if levels:
        record.note(f"samples from {levels[0]:g} to {levels[1]:g}")
    for each in images:
        yield functools.partial(decode_picture, each, levels), None, 0


def animation_source(path, record):
    """An animated picture, but for GIF."""

    def frames():
        with Image.open(path) as image:
            time = 0.0
            for k in range(image.n_frames):
                image.seek(k)
                picture = np.array(image.convert("RGB"))
                yield picture, time
                time += image.info.get("duration", 40) / 1000
            yield None, time

    times = [time for _, time in itertools.islice(frames(), PEEK)]
    record.rate = frame_rate(times, None)
    record.frames = round(times[-1] * record.rate) if len(times) < PEEK else pages(path)
    for picture, time in frames():
        yield (lambda picture=picture: picture) if picture is not None else None, time, 0


def video_source(path, record):
    """The best video stream of a file: no cover art, no second camera."""
    with open(path, "rb") as file, av.open(file, **LENIENT) as container:
        stream = container.streams.best("video")
        if stream is None:
            raise InputError(f"'{path}' has no video in it")
        stream.thread_type, stream.codec_context.thread_count = ThreadType.SLICE, 0
        if stream.codec_context.name == "hevc":
            stream.codec_context.options = {"err_detect": "explode"}  # else damaged frames are dropped without a word
        packets = container.demux(stream)
        first = list(itertools.islice(packets, PEEK))
        describe(stream, container, first, record)
        frames = decoded(itertools.chain(first, packets), path, record)
        timed = container.format.name != "mpeg"  # whose frames often have times that are off by one
        yield from converted(deinterlaced(frames, record), record, timed)


def describe(stream, container, packets, record):
    """Put the frame rate and the announced length into the record, in frames of even time."""
    times = sorted(float(p.pts * p.time_base) for p in packets if p.pts is not None and p.size and not p.is_discard)
    record.rate = frame_rate(times, stream.average_rate)
    seconds = stream.duration and float(stream.duration * stream.time_base)
    tag = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", ""))  # Matroska's
    if tag:
        hours, minutes, rest = map(float, tag.groups())
        seconds = 3600 * hours + 60 * minutes + rest
    elif not seconds and container.duration and len(container.streams) == 1:
        seconds = container.duration / av.time_base
    if seconds and container.format.name != "mpeg":  # which only guesses how long it is
        record.frames = round(seconds * float(record.rate)) or None
    if stream.frames > 1 and stream.frames > (record.frames or 0) - 2:
        record.frames = stream.frames


def frame_rate(times, average):
    """Frames a second from sorted times: 1 / the usual step from one to the next; longer steps are pauses. The average
    of the file, or a usual rate, if it is about that."""
    steps = np.diff(times)
    steps = steps[steps > 1e-4]
    if len(steps) == 0:
        return average or Fraction(25)
    rate = 1 / steps[steps < 1.5 * np.median(steps)].mean()
    near = [known for known in (average, *RATES) if known and abs(rate / known - 1) < 0.01]
    return min(near, key=lambda known: abs(rate / known - 1) > 1e-3) if near else Fraction(rate).limit_denominator(100)


def decoded(packets, path, record):
    """Yield the frames of packets, and how many are damaged: a frame that is predicted from a damaged one is damaged,
    too, up to the next key frame. InputError where a file ends long before what it announced."""
    count, lost, spoilt, reason, first, end = 0, 0, False, None, None, None
    for packet in packets:
        try:
            frames = packet.decode()
        except av.FFmpegError as error:
            if count or packet.is_keyframe:  # what is cut out of a stream begins with frames that nothing precedes
                lost, spoilt, reason = lost + 1, True, error
            continue
        for frame in frames:
            count += 1
            first, end = frame.time if count == 1 else first, frame.time
            spoilt = frame.is_corrupt or (spoilt and not frame.key_frame)
            yield frame, lost + spoilt
            lost = 0
    if count == 0:
        raise InputError(f"'{path}' has no frame that can be decoded" + (f": {one_line(reason)}" if reason else ""))
    length = count if None in (first, end) else max(count, round((end - first) * float(record.rate)) + 1)
    if record.frames and record.frames - length > max(FEW, 0.1 * record.frames):
        raise InputError(f"'{path}' is cut short: of about {record.frames} frames {length} are there, which "
                         f"-num_frames {length} takes")


def deinterlaced(frames, record):
    """From the first interlaced frame on, frames pass a deinterlacer, which leaves progressive ones as they are. Yields
    frames and their damage, as it gets them."""
    graph, damages = None, collections.deque()
    for frame, damage in frames:
        if graph is None and not frame.interlaced_frame:
            yield frame, damage
            continue
        if graph is None:
            record.note("interlaced: deinterlaced")
            graph = av.filter.Graph()
            source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format,
                                      time_base=frame.time_base)
            graph.link_nodes(source, graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink"))
            graph.configure()
        damages.append(damage)
        graph.push(frame)
        yield from ((each, damages.popleft()) for each in pulled(graph))
    if graph is not None:
        graph.push(None)
        yield from ((each, damages.popleft()) for each in pulled(graph))


def pulled(graph):
    while True:
        try:
            yield graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return


def converted(frames, record, timed):
    """The pictures, times and damage of a video's frames: upright, in 8-bit RGB of standard dynamic range."""
    reformatter, turn = VideoReformatter(), None
    for frame, damage in frames:
        if turn is None:
            turn, record.turned = upright(frame)
            record.size = frame.height, frame.width
        curve = HDR.get(int(frame.color_trc))
        colour = {"dst_color_trc": BT709, "dst_color_primaries": BT709} if curve else {}
        if curve:
            record.note(f"HDR ({curve}) tone-mapped")

        def picture(frame=frame, colour=colour, turn=turn):
            return turn(reformatter.reformat(frame, format="rgb24", **colour).to_ndarray())

        yield picture, frame.time if timed else None, damage


def upright(frame):
    """What turns a frame's picture upright, by its display matrix, and the same in words.

    The matrix (a, b; c, d) takes a point (x, y) of the picture, y downwards, to (a x + c y, b x + d y).
    """
    matrix = frame.side_data.get(SideData.DISPLAYMATRIX)
    a, b, _, c, d = struct.unpack("<9i", bytes(matrix))[:5] if matrix else (1, 0, 0, 0, 1)
    swap = abs(b) > abs(a)
    flip_x, flip_y = (c < 0, b < 0) if swap else (a < 0, d < 0)
    words = {(False, False, False): "", (False, True, True): " turned by 180", (True, True, False): " turned by 90",
             (True, False, True): " turned by 270", (False, True, False): " mirrored",
             (False, False, True): " upside down, mirrored"}.get((swap, flip_x, flip_y), " turned and mirrored")

    def turn(picture):
        picture = picture.swapaxes(0, 1) if swap else picture
        picture = picture[:, ::-1] if flip_x else picture
        return np.ascontiguousarray(picture[::-1] if flip_y else picture)

    return (turn if words else lambda picture: picture), words


# -------------------------------------------------------------------------------------------------------- a clip


def in_time(source, record):
    """The pictures of a source and their damage, in even time: one that is shown for longer than the others comes
    several times."""
    last = before = None
    for picture, time, damage in source:
        if last and record.rate and None not in (time, before):
            pause = round((time - before) * record.rate)
            if 1 < pause <= HELD * record.rate:
                record.note("pauses held")
                yield from itertools.repeat((last, 0), pause - 1)
        if picture is None:  # where the last one ends
            return
        yield picture, damage
        last, before = picture, time


def source_of(path, record, last):
    if path.is_dir() or is_image(path):
        return image_source(path, record, last)
    if path.suffix.lower() in MAYBE_ANIMATED[1:] and pages(path):
        return animation_source(path, record)
    return video_source(path, record)


def stream_frames(path, start=0, step=1, record=None, needed=None):
    """Yield the frames of a clip one by one, uint8 (H, W, 3), from number `start` on (frames, or seconds as '3.5s'),
    every `step`-th; what is found goes to the record. needed: at most how many will be asked for. InputError if it
    cannot be read, or if more than a few of the frames are damaged."""
    path = Path(path)
    record = record or Record(printable(path.name))
    last = int(start) + needed * step if needed and str(start).isdecimal() else None
    count, picture, shown, damaged = 0, None, None, []
    try:
        for number, (each, damage) in enumerate(in_time(source_of(path, record, last), record)):
            if number == 0:
                record.first, record.step = first_frame(start, record.rate), step
            if number < record.first:
                continue
            if damage:
                damaged += range(number + 2 - damage, number + 2)
                check_damage(path, damaged, number + 1 - record.first, record)
            if (number - record.first) % step == 0:
                if each is not picture:
                    picture, shown = each, each()
                record.size = record.size or shown.shape[:2]
                count += 1
                yield shown
    except InputError:
        raise
    except Exception as error:  # decoders raise many types; each means that this file cannot be read
        raise InputError(f"cannot read '{path}' after {count} frames: {one_line(error)}") from error


def check_damage(path, numbers, count, record):
    """Note the numbers of damaged frames among `count`, or InputError if they are more than a few."""
    spans = f"frame {numbers[0]}" if len(numbers) == 1 else f"{len(numbers)} frames from {numbers[0]} to {numbers[-1]}"
    record.notes = [note for note in record.notes if "damaged" not in note] + [f"damaged: {spans}"]
    if len(numbers) > max(FEW, SHARE * count):
        raise InputError(f"'{path}' is damaged: {spans}, or more; use frames before or after them (-num_frames, "
                         "-start_frame), or repair it")


def first_frame(start, rate=None):
    """How many frames are left out at the start: a number, or seconds as '3.5s', of `rate` frames (None: 25)."""
    text = str(start)
    return round(float(text[:-1]) * float(rate or 25)) if text.endswith("s") else int(text)


def read(path, num_frames=None, im_size=None, at_most=None, start=0, step=1):
    """Frames of a clip, from number `start` on every `step`-th: `num_frames` of them (if None all, but `at_most`),
    resized to im_size (H, W) if given. Returns them, uint8 (T, H, W, 3), and the Record of the clip.

    Frames are streamed: a long clip costs only what is read of it. InputError if the clip cannot be read or is too
    short.
    """
    record, wanted = Record(printable(Path(path).name)), num_frames or at_most
    stream = stream_frames(path, start, step, record, wanted)
    frames, count, sizes = None, 0, set()
    for frame in itertools.islice(stream, wanted):
        sizes.add(frame.shape[:2])
        frame = resize_frame(frame, *im_size) if im_size else frame
        if frames is None:
            room = wanted or room_for(path, record)
            frames = np.empty((min(room, record.frames or room), *frame.shape), np.uint8)
        if len(sizes) > 1 and not im_size:
            some = " and ".join(f"{height}x{width}" for height, width in sorted(sizes))
            raise InputError(f"'{path}' has frames of several sizes ({some}): give -im_size, or frames of one size")
        if count == len(frames):
            frames = np.concatenate([frames, np.empty_like(frames[: max(count // 2, 16)])])
        frames[count] = frame
        count += 1
    if not count:
        raise InputError(f"'{path}' has no frames" + (f" after the first {record.first}" if record.first else ""))
    if num_frames and count < num_frames:
        raise InputError(f"'{path}' has {count} frames, {num_frames} are needed: lower -num_frames")
    if len(sizes) > 1:
        record.note(f"frames of {len(sizes)} sizes, resized")
    record.used = count
    return frames[:count], record


def room_for(path, record):
    """About how many frames a clip will give; a word if they are many."""
    room = max((record.frames or 256) - record.first, 1) // record.step + 1
    if room > LONG:
        tell_once(f"reading '{path}': about {room} frames")
    return room


def read_clip(path, num_frames=None, im_size=None, at_most=None):
    """The frames of `read`, without its record."""
    return read(path, num_frames, im_size, at_most)[0]


def fingerprint(frames):
    """SHA-256 of an array: of its shape, type and values."""
    digest = hashlib.sha256(f"{frames.shape}{frames.dtype}".encode())
    digest.update(np.ascontiguousarray(frames))
    return digest.hexdigest()
