"""The picture of an experiment: a strip of moments for each video, observed above synthesised or recovered ones."""

import io

import numpy as np
from PIL import Image, ImageDraw

import data

WIDTH, LABEL, GAP = 960, 130, 3  # pixels of a strip, of its labels, between frames
MOMENTS = 8  # of a square video
SEVERAL = 3  # observed clips of many, or new videos of one
FEW = 6  # new videos of many clips


def strips(runs):
    """A PNG of runs [(clip, variant, folder of the run, folders of the videos that it made)], or None where there are
    no videos. The clip is shown once, for all its runs."""
    rows, shown = [], set()
    for clip, variant, run, made in runs:
        observed = sequences(run / "observed_sequence")
        hidden = sorted((run / "final_results").glob("masked_0.mp4"))
        if hidden:  # observed_sequence has what the program saw of the clip
            observed = sorted((run / "final_results").glob("observed_0.mp4"))
        number = FEW if len(observed) > 1 else SEVERAL
        rows += [((clip, "observed"), path) for path in observed[:SEVERAL] if clip not in shown]
        rows += [((clip, variant, "hidden"), path) for path in hidden]
        rows += [((clip, variant, folder.name.removesuffix("_sequence")), path)
                 for folder in made for path in sequences(folder)[:number]]
        shown.add(clip)
    if not rows:
        return None
    return png([strip("\n".join(filter(None, label)).replace("_", " "), data.read_clip(path)) for label, path in rows])


def sequences(folder):
    return sorted(folder.glob("sequence_*"), key=data.natural_key)


def strip(label, video):
    """One row: the label, and moments of a video uint8 (T, H, W, 3), evenly spread."""
    h, w = video.shape[1:3]
    moments = max(3, round(MOMENTS * (h / w) ** 0.5))  # fewer where frames are wide
    wide = (WIDTH - LABEL) // moments - GAP
    high = round(wide * h / w)
    picture = Image.new("RGB", (WIDTH, high + GAP), "white")
    ImageDraw.Draw(picture).text((4, max(0, high // 2 - 24)), label, fill="black", font_size=12)
    for column, t in enumerate(np.linspace(0, len(video) - 1, moments).round().astype(int)):
        frame = Image.fromarray(video[t]).resize((wide, high), Image.Resampling.BICUBIC)
        picture.paste(frame, (LABEL + column * (wide + GAP), 0))
    return picture


def png(pictures):
    """Pictures one below the other, as a PNG of 256 colours."""
    whole = Image.new("RGB", (WIDTH, sum(picture.height for picture in pictures)), "white")
    top = 0
    for picture in pictures:
        whole.paste(picture, (0, top))
        top += picture.height
    buffer = io.BytesIO()
    whole.quantize(256, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
