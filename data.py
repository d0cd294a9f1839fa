"""Clips in: what a folder holds, the clips of a category, strips, and the tensors that leave for a net.

Inside this module a video is uint8 (T, H, W, 3), RGB; what leaves it towards a net is a float32 tensor (N, 3, T, H, W)
in grey levels 0-255, stored channels last. The package reader reads the single clip, picture and mask; its functions
are this module's, too. All that a user can get wrong is one `InputError` with a message of one line.
"""

import os
import re
from pathlib import Path

import numpy as np
import torch

from reader.clips import Record, fingerprint, first_frame, read, read_clip, stream_frames
from reader.masks import MASK_TYPES, draw_mask, hiding, read_mask, read_recorded_mask
from reader.pictures import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    InputError,
    is_image,
    is_video,
    list_images,
    natural_key,
    read_picture,
    resize_frame,
    tell_once,
    visible,
)

DARK = 16  # grey levels, below which a clip is called black

__all__ = [
    "IMAGE_SUFFIXES", "MASK_TYPES", "VIDEO_SUFFIXES", "InputError", "Record", "category_folder", "clean_category",
    "draw_mask", "examined", "fingerprint", "hiding", "is_image", "is_video", "list_clips", "list_images",
    "list_strips", "load_category", "natural_key", "read", "read_category", "read_clip", "read_mask", "read_picture",
    "read_recorded_mask", "read_strip", "resize_frame", "stream_frames", "tell_once", "to_tensor",
]  # fmt: skip


# ------------------------------------------------------------------------------------------------------- categories


def category_folder(data_path, category):
    """Where a category is: the folder of that name below `data_path`, or one folder deeper, or a single clip, which is
    a file; where `data_path` itself is a file, it. InputError if there is none, if two folders have the name, or if it
    leaves `data_path`."""
    root = Path(data_path)
    if root.is_file():
        return root
    if not root.is_dir():
        raise InputError(f"data_path '{data_path}' is not a folder")
    inside = os.path.normpath(category)
    if not category or os.path.isabs(inside) or inside.split(os.sep)[0] in (".", ".."):
        hint = ": for a file elsewhere give -data_path FILE" if category and Path(category).is_file() else ""
        raise InputError(f"category '{category}' must name a folder below '{data_path}'{hint}")
    deeper = sorted(p / inside for p in root.iterdir() if p.is_dir() and visible(p) and (p / inside).is_dir())
    files = [p for p in (root / inside).parent.glob("*") if p.stem == Path(inside).name and is_video(p)]
    found = [p for p in (root / inside, *files, *deeper) if p.exists()]
    if not found:
        known = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith((".", "_")))
        raise InputError(f"no category '{category}' in '{data_path}'; there are: {', '.join(known) or 'none'}")
    if len(found) > 1 and not category.startswith("./"):
        names = " and ".join(f"'./{p.relative_to(root)}'" for p in found)
        raise InputError(f"category '{category}' is there more than once in '{data_path}': say {names}")
    return found[0]


def clean_category(data_path, category, given=True):
    """A category's name as settings and folders of outputs have it: no ./ before it, but where it tells two folders of
    one name apart, no slash behind it, nor a video file's suffix. Of a `data_path` that is a file its name, if none is
    given."""
    if Path(data_path).is_file() and not given:
        return Path(data_path).stem
    inside = os.path.normpath(category) if category else category
    if Path(inside).suffix.lower() in VIDEO_SUFFIXES:
        inside = os.path.splitext(inside)[0]
    try:
        category_folder(data_path, inside)
    except InputError as error:
        return f"./{inside}" if category.startswith("./") and "more than once" in str(error) else inside
    return inside


def list_clips(folder):
    """Every clip of a folder in natural order: video files and folders of images; or the folder itself as one clip of
    numbered images, if it holds such and no video but animated pictures. A file is the one clip. What else is there is
    named."""
    folder = Path(folder)
    if folder.is_file():
        return [folder]
    there = sorted((p for p in folder.iterdir() if visible(p)), key=natural_key)
    images, folders = list_images(folder), [p for p in there if p.is_dir() and list_images(p)]
    videos = [p for p in there if is_video(p)]
    moving_pictures = [p for p in videos if p.suffix.lower() in (".gif", ".apng", *IMAGE_SUFFIXES)]
    clips = sorted(videos + folders, key=natural_key)
    if images and (not clips or (len(images) > 1 and clips == moving_pictures)):
        clips = [folder]
    if not clips:
        kinds = " ".join(VIDEO_SUFFIXES)
        raise InputError(f"no clip in '{folder}': it needs video files ({kinds}) or folders of numbered images")
    used = images if clips == [folder] else clips
    left_out = [p.name for p in there if p not in used]
    if left_out:
        names = ", ".join(left_out[:5]) + (f" and {len(left_out) - 5} more" if len(left_out) > 5 else "")
        tell_once(f"left out of '{folder}', as no clips of it: {names}")
    return clips


def read_category(data_path, category, num_frames, im_size, start=0, step=1, pad=False):
    """Every clip of a category: (videos uint8 (N, T, H, W, 3), their Records); `start` and `step` as in `read`; pad: a
    shorter clip repeats its last frame."""
    clips = list_clips(category_folder(data_path, category))
    videos, records = None, []
    for k, path in enumerate(clips):
        video, record = examined(*read(path, None if pad else num_frames, im_size, num_frames, start, step))
        if videos is None:
            videos = np.empty((len(clips), num_frames or len(video), *video.shape[1:]), np.uint8)
        videos[k, : len(video)], videos[k, len(video) :] = video, video[-1:]
        records.append(record)
    return videos, records


def load_clips(data_path, category, num_frames, im_size, mask_type, mask_file, seed, start, step, pad=False):
    """The clips uint8 (N, T, H, W, 3), which of their pixels are hidden, bool (N, T, H, W) or None, and the Records of
    the clips and of what else was read. pad: where the future is hidden, a clip need not have it."""
    pad = pad and mask_type == "future"
    videos, records = read_category(data_path, category, num_frames, im_size, start, step, pad)
    if mask_type == "none":
        return videos, None, records, []
    if mask_type == "external":
        mask, record = read_recorded_mask(mask_file, num_frames, im_size, records[0].first, step)
        return videos, np.stack([mask] * len(videos)), records, [record]
    rng = np.random.default_rng(seed)
    masks = np.stack([draw_mask(mask_type, num_frames, im_size, rng) for _ in videos])
    for mask, record in zip(masks, records):
        mask[record.used :] = True
    return videos, masks, records, []


def examined(video, record):
    """A clip, and its Record with its fingerprint and with what would make it not worth learning."""
    record.sha256 = fingerprint(video)
    if len(video) > 1 and (video == video[:1]).all():
        record.note("does not move")
    if video.max() < DARK:
        record.note("black")
    return video, record


def load_category(data_path, category, num_frames, im_size):
    """Every clip of a category: (videos uint8 (N, T, H, W, 3), names)."""
    videos, records = read_category(data_path, category, num_frames, im_size)
    return videos, [record.name for record in records]


# ------------------------------------------------------------------------------------------------ strips, tensors


def list_strips(path, root):
    """The strips that a text list names, one path a line, relative to the folder `root`. What lists of other systems
    have is understood: a byte order mark, backslashes, lines of # comments, a class number at the end of a line, as
    released lists for UCF101 have."""
    try:
        raw = Path(path).read_bytes()
        coding = "utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
        lines = [line.strip() for line in raw.decode(coding).splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read list '{path}': {getattr(error, 'strerror', None) or error}") from None
    names = [re.sub(r"\s+\d+$", "", line) for line in lines if line and not line.startswith("#")]
    strips = [Path(root) / (name if (Path(root) / name).exists() else name.replace("\\", "/")) for name in names]
    if not strips:
        raise InputError(f"list '{path}' names no clips")
    return strips


def read_strip(path, num_frames, side, start=0, step=1):
    """Frames of a clip that is stored as one picture, square frames one below the other, from number `start` on every
    `step`-th: uint8 (num_frames, side, side, 3). A shorter clip repeats its last frame (as released)."""
    strip = read_picture(path)
    height, width = strip.shape[:2]
    if height % width:
        raise InputError(f"strip '{path}' is {height} rows of {width} pixels: no whole number of square frames")
    squares = strip.reshape(-1, width, width, 3)[first_frame(start) :: step]
    if not len(squares):
        raise InputError(f"strip '{path}' has no frames after the first {start}")
    frames = [resize_frame(frame, side, side) for frame in squares[:num_frames]]
    return np.stack(frames + frames[-1:] * (num_frames - len(frames)))


def to_tensor(videos):
    """uint8 (N, T, H, W, C) -> float32 (N, C, T, H, W) in the same memory order (channels last)."""
    return torch.from_numpy(np.ascontiguousarray(videos)).permute(0, 4, 1, 2, 3).float()
