"""Pictures in: which files are pictures, and these upright and in 8 bits a sample, uint8 (H, W, 3), RGB."""

import functools
import re
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

VIDEO_SUFFIXES = (".avi", ".mp4", ".mov", ".mkv", ".webm", ".gif", ".m4v", ".mpg", ".mpeg", ".mts", ".m2ts", ".ts",
                  ".vob", ".wmv", ".asf", ".flv", ".3gp", ".3g2", ".ogv", ".mxf", ".dv", ".apng")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".tif", ".tiff", ".webp", ".avif", ".pgm", ".ppm", ".tga",
                  ".jp2")
MAYBE_ANIMATED = (".gif", ".apng", ".png", ".webp", ".avif", ".tif", ".tiff")  # of either kind, as their content says
LENIENT = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}  # titles need not be UTF-8
LEVELS = (8, 10, 12, 16, 24, 32)  # bits of a sample that files are made with


class InputError(Exception):
    """Bad input: the message is one line that says what is wrong and, where possible, what to do."""


@functools.cache
def tell_once(line):
    """Say what a user should know, the first time that it comes up."""
    print(line, flush=True)


def natural_key(path):
    """Sort key that puts 'clip2' before 'clip10'."""
    return [int(part) if part.isdecimal() else part.lower() for part in re.split(r"(\d+)", Path(path).name)]


def visible(path):
    """Whether a file or folder is a user's own, not a system's or an office program's."""
    return not path.name.startswith((".", "~$", "__MACOSX"))


def pages(path):
    """How many pictures a file holds: 1 of a still one, 0 of one that cannot be opened."""
    try:
        with Image.open(path) as image:
            return image.n_frames if "n_frames" in dir(image) else 1
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return 0


def is_video(path):
    """Whether a file is a clip by itself. A TIFF of two pages is a picture and its thumbnail."""
    suffix = path.suffix.lower()
    if not visible(path) or not path.is_file():
        return False
    if suffix not in MAYBE_ANIMATED:
        return suffix in VIDEO_SUFFIXES
    count = pages(path)
    return count > (2 if suffix in (".tif", ".tiff") else 1) or (count == 0 and suffix in VIDEO_SUFFIXES)


def is_image(path):
    return (visible(path) and path.is_file() and path.suffix.lower() in (*IMAGE_SUFFIXES, ".gif", ".apng")
            and not is_video(path))


def list_images(folder):
    """The images of a folder, in natural order; where some are numbered, these."""
    images = sorted((p for p in Path(folder).iterdir() if is_image(p)), key=natural_key)
    numbered = [p for p in images if re.search(r"\d", p.stem)]
    return numbered if len(numbered) > 1 else images


# ------------------------------------------------------------------------------------------------------------- decoding


def sample_range(paths):
    """The range (low, high) of the samples of pictures that have more than 8 bits, or None if the first has not.

    Whole numbers: that of the fewest bits of LEVELS that hold them all. Floating point: 0 to 1 or, beyond that, to 255
    or 65535; with negative values from the lowest to the highest.
    """
    low, high = 0, 0
    for path in paths:
        with Image.open(path) as image:
            mode = image.mode
            if not mode.startswith(("I", "F")):
                return None if path == paths[0] else (low, max(high, 255))
            values = np.asarray(image)
        if not np.isfinite(values).all():
            raise InputError(f"'{path}' has values that are no numbers")
        low, high = min(values.min(), low), max(values.max(), high)
        if mode.startswith("I;16") and high >= 2**12:
            return 0, 2**16 - 1
    if mode == "F":
        return (low, high) if low < 0 else (0, next((top for top in (1, 255, 65535) if high <= top), high))
    return 0, next(2**bits for bits in LEVELS if high < 2**bits) - 1


def decode_picture(path, levels=None):
    """A picture upright in 8 bits, uint8 (H, W, 3); levels: its range (low, high) where it has more, if not its own."""
    try:
        with Image.open(path) as image:
            ImageOps.exif_transpose(image, in_place=True)
            if not image.mode.startswith(("I", "F")):
                return np.array(image.convert("RGB"))  # a copy, which may be written to
            values = np.asarray(image).astype(np.float32)
    except UnidentifiedImageError:
        return decode_rare_picture(path)
    low, high = levels or sample_range([path])
    grey = np.clip((values - low) * (255 / max(high - low, 1e-9)), 0, 255).round().astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def decode_rare_picture(path):
    """A picture of a kind that Pillow does not know, as TIFFs of three floating-point channels are."""
    try:
        with open(path, "rb") as file, av.open(file, **LENIENT) as container:
            return next(container.decode(video=0)).to_ndarray(format="rgb24")
    except (av.FFmpegError, IndexError, StopIteration, ValueError):
        raise UnidentifiedImageError("it is not a picture") from None


def one_line(error):
    """Why something failed, on one line."""
    if isinstance(error, UnidentifiedImageError):
        return "it is not one"
    return getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]


def read_picture(path, im_size=None):
    """A picture, upright and resized to im_size (H, W) if given, uint8 (H, W, 3)."""
    try:
        picture = decode_picture(path)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise InputError(f"cannot read picture '{path}': {one_line(error)}") from None
    return resize_frame(picture, *im_size) if im_size else picture


def resize_frame(frame, height, width):
    """One frame, uint8 (H, W, 3), at height x width by Pillow's antialiased bilinear filter, as released."""
    if frame.shape[:2] == (height, width):
        return frame
    return np.array(Image.fromarray(frame).resize((width, height), Image.BILINEAR))
