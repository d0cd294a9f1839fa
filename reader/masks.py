"""Masks: which pixels of a clip are hidden; drawn as in the paper, or read from a file.

A mask is bool (T, H, W), True where a pixel is hidden; all channels of a pixel are hidden together.
"""

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from reader.clips import Record, fingerprint, first_frame, read
from reader.pictures import InputError, is_image, list_images, one_line, resize_frame
from utils import printable

MASK_TYPES = ("region", "missing_frames", "salt_pepper", "every_second", "future")
LABELS = 127  # a mask that has no value above this names its objects by number: all but 0 hide
MOST = 0.95  # share of the pixels that may be hidden; beyond it a mask is the wrong way round


def draw_mask(mask_type, num_frames, im_size, rng):
    """One mask of the paper's Experiment 4 (CVPR 2017, section 5.4), bool (T, H, W), from a numpy Generator.

    region: one square of 40 % of the shorter side (60 of 150 px) at a random place, anew each frame.
    missing_frames: half of the frames, at random. salt_pepper: half of the 7x7 blocks, anew each frame. No part of the
    paper: every_second, every second frame, and future, the last quarter of them.
    InputError if the clip is so small that this hides nothing.
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
    elif mask_type == "every_second":
        mask[1::2] = True
    elif mask_type == "future":
        mask[-max(1, num_frames // 4) :] = True
    elif mask_type == "salt_pepper":
        rows, columns = math.ceil(height / 7), math.ceil(width / 7)
        for frame in mask:
            hidden = rng.permutation(rows * columns) < rows * columns // 2
            blocks = hidden.reshape(rows, columns).repeat(7, axis=0).repeat(7, axis=1)
            frame[:] = blocks[:height, :width]
    else:
        raise InputError(f"mask type '{mask_type}' is not one of {', '.join(MASK_TYPES)}")
    return hiding(mask, mask_type)


def hiding(mask, mask_type):
    """A mask (T, H, W) that was drawn, if it hides anything; else InputError."""
    if not mask.any():
        raise InputError(f"-mask_type {mask_type} hides nothing of {times(mask.shape)} (frames x height x width): "
                         "take more frames, or larger ones")
    return mask


def read_mask(path, num_frames, im_size):
    """The mask of `read_recorded_mask`, without its record."""
    return read_recorded_mask(path, num_frames, im_size)[0]


def read_recorded_mask(path, num_frames, im_size, start=0, step=1):
    """A mask from a file, bool (T, H, W), True where hidden, and its Record, which says how much is hidden.

    path: .mat (variable 'masks', (H, W), (H, W, T) or (H, W, T, 3)), .npy ((H, W), (T, H, W) or (T, H, W, 3)), a video,
    a picture or a folder of pictures; white, or any label but 0, hides. A single picture is the mask of all frames.
    With more frames than num_frames it belongs to the whole clip, of which `start` and `step` take their part, if that
    lies in it; else to the clip's used frames. What is not of size im_size (H, W) is resized, arrays only where the
    proportions are the same. InputError if it does not fit, hides nothing or nearly everything.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"mask file '{path}' does not exist")
    record, last = Record(printable(path.name)), first_frame(start) + num_frames * step
    if path.suffix.lower() in (".mat", ".npy"):
        mask = fitted(path, read_mask_array(path), num_frames, im_size)
    elif path.is_dir() or is_image(path):
        mask = read_mask_pictures(path, last)
    else:
        video, record = read(path, at_most=last)
        mask = binary(video.max(axis=-1), "video", path)
    record.size, record.frames = mask.shape[1:], len(mask)
    if len(mask) == 1:
        mask = np.repeat(mask, num_frames, axis=0)
        record.note("one picture for all frames")
    elif len(mask) >= first_frame(start) + (num_frames - 1) * step + 1:
        record.first, record.step = first_frame(start), step
        mask = mask[record.first :: step]
    if len(mask) < num_frames:
        raise InputError(f"mask '{path}' is {times(mask.shape)} (frames x height x width), the clip is "
                         f"{times((num_frames, *im_size))}: a mask has one frame for all, or one for each")
    mask = np.stack([resized(frame, *im_size) for frame in mask[:num_frames]])
    record.used, hidden = len(mask), mask.mean()
    record.note(f"hides {hidden:.1%}")
    if not mask.any():
        raise InputError(f"mask '{path}' hides no pixel: white, True and labels above 0 hide")
    if hidden > MOST:
        much = "every pixel" if mask.all() else f"{hidden:.1%} of the pixels"
        raise InputError(f"mask '{path}' hides {much}: white, True and 1 hide; is it the wrong way round?")
    if hidden > 0.5:
        record.note("more than half: white, True and 1 hide")
    record.sha256 = fingerprint(mask)
    return mask, record


def times(shape):
    return "x".join(map(str, shape))


def binary(values, kind, path):
    """Which of the values (T, H, W) hide: labels, as whole numbers of which none is above LABELS, but 0; else those
    above half of their range. Lossy video has no labels, but may have grey for white."""
    if not np.isfinite(values).all():
        raise InputError(f"mask '{path}' has values that are no numbers")
    highest = values.max(initial=0)
    if values.dtype.kind == "f":
        return values > (0.5 if highest <= 1 else 127.5 if highest <= 255 else highest / 2)
    if kind == "video":
        return values > (127 if highest > LABELS else highest / 2)
    if highest <= LABELS:
        return values > 0
    return values > next(2**bits for bits in (8, 10, 12, 16, 32) if highest < 2**bits) // 2 - 1


def read_mask_pictures(path, last):
    """The mask of a picture or of the first pictures of a folder, up to number `last`, which must be of one size; of a
    palette's colours, as label images have them, all but black hide."""
    images = list_images(path)[:last] if path.is_dir() else [path]
    if not images:
        raise InputError(f"mask '{path}' holds no pictures")
    frames, palette = [], False
    for each in images:
        try:
            with Image.open(each) as image:
                ImageOps.exif_transpose(image, in_place=True)
                palette |= image.mode == "P"
                deep = image.mode.startswith(("I", "F"))
                frames.append(np.array(image) if deep else np.array(image.convert("RGB")).max(axis=-1))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise InputError(f"cannot read mask '{each}': {one_line(error)}") from None
    if len({frame.shape for frame in frames}) > 1:
        raise InputError(f"mask '{path}' has pictures of several sizes")
    values = np.stack(frames)
    return values > 0 if palette else binary(values, "pictures", path)


def resized(frame, height, width):
    """A mask's frame, bool, at height x width."""
    if frame.shape == (height, width):
        return frame
    grey = np.repeat(frame[..., None], 3, axis=2).astype(np.uint8) * 255
    return resize_frame(grey, height, width)[..., 0] > 127


def fitted(path, mask, num_frames, im_size):
    """The mask of an array, if its proportions are those of im_size (H, W)."""
    height, width = mask.shape[1:]
    if abs(height * im_size[1] - width * im_size[0]) > 0.02 * height * im_size[1]:
        raise InputError(f"mask '{path}' is {times(mask[:num_frames].shape)} (frames x height x width), the clip is "
                         f"{times((num_frames, *im_size))}: change -num_frames or -im_size")
    return mask


def read_mask_array(path):
    """The array of a .mat or .npy mask as bool (T, H, W)."""
    try:
        if path.suffix.lower() == ".mat":
            import scipy.io

            variables = scipy.io.loadmat(path)
            mask = np.moveaxis(np.atleast_3d(variables["masks"]), 2, 0)  # (H, W), (H, W, T) or (H, W, T, 3)
        else:
            mask = np.load(path, allow_pickle=False)
    except KeyError:
        names = ", ".join(f"'{name}'" for name in variables if not name.startswith("__")) or "none"
        raise InputError(f"mask '{path}' has no variable 'masks'; there are: {names}") from None
    except NotImplementedError:
        raise InputError(f"mask '{path}' is a MATLAB file of version 7.3: save it with the option -v7") from None
    except Exception as error:
        raise InputError(f"cannot read mask '{path}': {one_line(error)}") from error
    if mask.dtype.kind not in "biuf":
        raise InputError(f"mask '{path}' holds no numbers")
    if mask.ndim == 2:
        mask = mask[None]
    if mask.ndim == 4:
        mask = mask.max(axis=-1)
    if mask.ndim != 3 or not mask.size:
        raise InputError(f"mask '{path}' has {mask.ndim} dimensions; 2 (H, W), 3 (T, H, W) or 4 are read")
    return binary(mask, "array", path) if mask.dtype.kind == "f" else mask != 0
