"""Clips in: finding and decoding videos, resizing frames, reading and drawing masks.

Inside this module a video is uint8 (T, H, W, 3), RGB; what leaves it towards a net is a float32 tensor (N, 3, T, H, W)
in grey levels 0-255, stored channels last. All that a user can get wrong here is one `InputError` with a message of one
line.
"""

import itertools
import math
import os
import re
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

VIDEO_SUFFIXES = (".avi", ".mp4", ".mov", ".mkv", ".webm", ".gif")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


class InputError(Exception):
    """Bad input: the message is one line that says what is wrong and, where possible, what to do."""


# ---------------------------------------------------------------------------------------------------------- clips


def natural_key(path):
    """Sort key that puts 'clip2' before 'clip10'."""
    return [int(part) if part.isdecimal() else part.lower() for part in re.split(r"(\d+)", Path(path).name)]


def list_images(folder):
    """The images of a folder, in natural order."""
    return sorted((p for p in Path(folder).iterdir() if is_image(p)), key=natural_key)


def is_image(path):
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def category_folder(data_path, category):
    """The folder of a category below `data_path`; InputError if it does not exist or leaves `data_path`."""
    root = Path(data_path)
    if not root.is_dir():
        raise InputError(f"data_path '{data_path}' is not a folder")
    folder, inside = root / category, os.path.normpath(category)
    if not category or os.path.isabs(inside) or inside.split(os.sep)[0] in (".", ".."):
        raise InputError(f"category '{category}' must name a folder below '{data_path}'")
    if not folder.is_dir():
        known = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith((".", "_")))
        raise InputError(f"no category '{category}' in '{data_path}'; there are: {', '.join(known) or 'none'}")
    return folder


def list_clips(folder):
    """Every clip of a folder in natural order: video files and folders of images; or, without any, the folder itself
    as one clip of images."""
    folder = Path(folder)
    visible = [p for p in folder.iterdir() if not p.name.startswith(".")]
    clips = [p for p in visible if p.suffix.lower() in VIDEO_SUFFIXES or (p.is_dir() and list_images(p))]
    if not clips and list_images(folder):
        clips = [folder]
    if not clips:
        kinds = " ".join(VIDEO_SUFFIXES)
        raise InputError(f"no clip in '{folder}': it needs video files ({kinds}) or folders of numbered images")
    return sorted(clips, key=natural_key)


def stream_frames(path):
    """Yield the frames of a video file or a folder of images one by one, uint8 (H, W, 3)."""
    path = Path(path)
    count = 0
    try:
        if path.is_dir():
            frames = (np.asarray(Image.open(p).convert("RGB")) for p in list_images(path))
        else:
            frames = iio.imiter(path, plugin="pyav", format="rgb24")
        for frame in frames:
            yield frame
            count += 1
    except Exception as error:  # decoders raise many types; each means that this file cannot be read
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"cannot read '{path}' after {count} frames: {reason}") from error


def resize_frame(frame, height, width):
    """One frame, uint8 (H, W, 3), at height x width by Pillow's antialiased bilinear filter, as released."""
    if frame.shape[:2] == (height, width):
        return frame
    return np.array(Image.fromarray(frame).resize((width, height), Image.BILINEAR))


def read_clip(path, num_frames=None, im_size=None, at_most=None):
    """The first `num_frames` frames of a clip (if None all, but `at_most`), resized to im_size (H, W) if given.

    Frames are streamed: a long clip costs only what is read of it. Returns uint8 (T, H, W, 3); InputError if the clip
    cannot be read or is too short.
    """
    frames = []
    for frame in itertools.islice(stream_frames(path), num_frames or at_most):
        frames.append(resize_frame(frame, *im_size) if im_size else frame)
    if not frames:
        raise InputError(f"'{path}' has no frames")
    if num_frames and len(frames) < num_frames:
        raise InputError(f"'{path}' has {len(frames)} frames, {num_frames} are needed: lower -num_frames")
    return np.stack(frames)  # (T, H, W, 3)


def load_category(data_path, category, num_frames, im_size):
    """Every clip of a category: (videos uint8 (N, T, H, W, 3), names)."""
    clips = list_clips(category_folder(data_path, category))
    videos = np.stack([read_clip(p, num_frames, im_size) for p in clips])
    return videos, [p.name for p in clips]


def read_picture(path, im_size=None):
    """A picture, resized to im_size (H, W) if given, uint8 (H, W, 3)."""
    try:
        picture = np.array(Image.open(path).convert("RGB"))  # a copy, which may be written to
    except UnidentifiedImageError:
        raise InputError(f"cannot read picture '{path}': it is not one") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise InputError(f"cannot read picture '{path}': {reason}") from None
    return resize_frame(picture, *im_size) if im_size else picture


def list_strips(path, root):
    """The strips that a text list names, one path a line, relative to the folder `root`; a class number at the end of a
    line, as released lists for UCF101 have, is left out."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read list '{path}': {getattr(error, 'strerror', None) or error}") from None
    strips = [Path(root) / re.sub(r"\s+\d+$", "", line.strip()) for line in lines if line.strip()]
    if not strips:
        raise InputError(f"list '{path}' names no clips")
    return strips


def read_strip(path, num_frames, side):
    """The first frames of a clip that is stored as one picture, square frames one below the other: uint8
    (num_frames, side, side, 3). A shorter clip repeats its last frame (as released)."""
    strip = read_picture(path)
    height, width = strip.shape[:2]
    if height % width:
        raise InputError(f"strip '{path}' is {height} rows of {width} pixels: no whole number of square frames")
    frames = [resize_frame(frame, side, side) for frame in strip[: num_frames * width].reshape(-1, width, width, 3)]
    return np.stack(frames + frames[-1:] * (num_frames - len(frames)))


def to_tensor(videos):
    """uint8 (N, T, H, W, C) -> float32 (N, C, T, H, W) in the same memory order (channels last)."""
    return torch.from_numpy(np.ascontiguousarray(videos)).permute(0, 4, 1, 2, 3).float()


# ---------------------------------------------------------------------------------------------------------- masks
# A mask is bool (N, T, H, W), True where a pixel is hidden; all channels of a pixel are hidden together.

MASK_TYPES = ("region", "missing_frames", "salt_pepper")


def draw_mask(mask_type, num_frames, im_size, rng):
    """One mask of the paper's Experiment 4 (CVPR 2017, section 5.4), bool (T, H, W), from a numpy Generator.

    region: one square of 40 % of the shorter side (60 of 150 px) at a random place, anew each frame.
    missing_frames: half of the frames, at random. salt_pepper: half of the 7x7 blocks, anew each frame.
    """
    height, width = im_size
    mask = np.zeros((num_frames, height, width), dtype=bool)
    if mask_type == "region":
        side = max(1, round(0.4 * min(height, width)))
        for frame in mask:
            top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
            frame[top : top + side, left : left + side] = True
    elif mask_type == "missing_frames":
        mask[rng.permutation(num_frames)[: num_frames // 2]] = True
    elif mask_type == "salt_pepper":
        rows, columns = math.ceil(height / 7), math.ceil(width / 7)
        for frame in mask:
            hidden = rng.permutation(rows * columns) < rows * columns // 2
            blocks = hidden.reshape(rows, columns).repeat(7, axis=0).repeat(7, axis=1)
            frame[:] = blocks[:height, :width]
    else:
        raise InputError(f"mask type '{mask_type}' is not one of {', '.join(MASK_TYPES)}")
    return mask


def read_mask(path, num_frames, im_size):
    """A mask from a file, bool (T, H, W): .mat (variable 'masks', (H, W, T) or (H, W, T, 3)), .npy ((T, H, W) or
    (T, H, W, 3)), a video or a folder of images (white = hidden); True where hidden. Videos and images are resized to
    im_size (H, W), arrays must have it."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"mask file '{path}' does not exist")
    if path.suffix.lower() in (".mat", ".npy"):
        mask = read_mask_array(path)[:num_frames]
    else:
        mask = read_clip(path, num_frames, im_size).max(axis=-1) > 127
    if mask.shape != (num_frames, *im_size):
        have, need = ("x".join(map(str, s)) for s in (mask.shape, (num_frames, *im_size)))
        raise InputError(f"mask '{path}' is {have} (frames x height x width), the clip is {need}: "
                         "change -num_frames or -im_size")
    if mask.all():
        raise InputError(f"mask '{path}' hides every pixel: True, 1 and white hide")
    return mask


def read_mask_array(path):
    """The array of a .mat or .npy mask as bool (T, H, W)."""
    try:
        if path.suffix.lower() == ".mat":
            import scipy.io

            mask = scipy.io.loadmat(path)["masks"]  # (H, W, T) or (H, W, T, 3)
            mask = np.moveaxis(mask, 2, 0)
        else:
            mask = np.load(path, allow_pickle=False)
    except KeyError:
        raise InputError(f"mask '{path}' has no variable 'masks'") from None
    except Exception as error:
        raise InputError(f"cannot read mask '{path}': {str(error).splitlines()[0]}") from error
    if mask.ndim == 4:
        mask = mask.max(axis=-1)
    if mask.ndim != 3:
        raise InputError(f"mask '{path}' has {mask.ndim} dimensions; 3 (T, H, W) or 4 are read")
    return mask != 0
