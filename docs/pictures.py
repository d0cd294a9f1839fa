"""Pictures of the documentation, from the folders of finished runs: python docs/pictures.py NAME FOLDER

    NAME        FOLDER, and the command that makes it
    fire_pot    output/fire_pot: main.py -category fire_pot -num_chain 3 -im_size 128 -preset quality
    quality     the same
    new_videos  output/fire_pot/test: main.py -test -category fire_pot -num_frames 210, after the command above
    ocean       output_small/stg_space_time/quality/ocean: reproduce.py all, as are those that follow
    fires       output_small/stg_many/fires
    runner      output_small/stg_actions/runner
    recovery    output_small/stg_recovery/region/ocean
    boat        output_small/stg_inpainting/boat
    fire        output_small/dyn_synthesis/quality/fire

fire_pot is the README's film, output/fire_pot.gif; any other NAME becomes docs/images/NAME.png, a strip of moments,
observed above synthesised.
"""

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import data  # noqa: E402
import utils  # noqa: E402

WIDTH, LABEL, GAP = 900, 90, 4  # pixels of a strip, of its labels, between frames
ROWS = {  # label: what a run's folder has of it, and how many are shown
    "observed": ("final_results/observed_*.mp4", 2),
    "hidden": ("final_results/masked_*.mp4", 1),
    "recovered": ("recovered_*sequence/*", 2),
    "synthesised": ("synthesized_sequence/*", 3),
}
FILM = 2, 128  # the README's film: every other frame, so many colours
LARGEST = {"png": 300_000, "gif": 1_000_000}  # bytes of a picture


def videos_of(folder):
    """[(label, uint8 (T, H, W, 3))] of a finished run, from the top row down."""
    found = []
    for label, (pattern, shown) in ROWS.items():
        if label == "synthesised" and any(each == "recovered" for each, _ in found):
            continue
        paths = sorted(folder.glob(pattern), key=lambda path: (len(path.name), path.name))  # 2 before 10
        found += [(label, data.read_clip(path)) for path in paths[:shown]]
    if not found:
        raise SystemExit(f"'{folder}' has no videos of a finished run")
    return found


def strip(rows):
    """One picture of videos [(label, (T, H, W, 3))], a labelled row each: moments of each, evenly spread, enlarged."""
    h, w = rows[0][1].shape[1:3]
    moments = max(3, round(8 * (h / w) ** 0.5))  # fewer where frames are wide
    wide = (WIDTH - LABEL) // moments - GAP
    high = round(wide * h / w)
    picture = Image.new("RGB", (WIDTH, len(rows) * (high + GAP) - GAP), "white")
    draw = ImageDraw.Draw(picture)
    for k, (label, video) in enumerate(rows):
        top = k * (high + GAP)
        draw.text((4, top + high // 2 - 6), label, fill="black", font_size=13)
        for column, t in enumerate(np.linspace(0, len(video) - 1, moments).round().astype(int)):
            frame = Image.fromarray(video[t]).resize((wide, high), Image.Resampling.BICUBIC)
            picture.paste(frame, (LABEL + column * (wide + GAP), top))
    return picture.quantize(256, dither=Image.Dither.NONE)


def film(videos):
    """An endless GIF of videos (T, H, W, 3) side by side, at the speed of the clip."""
    step, colours = FILM
    frames = utils.side_by_side(videos)[::step]
    palette = Image.fromarray(np.concatenate(frames[:: max(1, len(frames) // 6)])).quantize(colours)
    frames = [Image.fromarray(each).quantize(palette=palette, dither=Image.Dither.NONE) for each in frames]
    gif = io.BytesIO()
    frames[0].save(gif, "GIF", save_all=True, append_images=frames[1:], duration=1000 * step // utils.FPS, loop=0)
    return gif.getvalue()


def make(name, folder, root=ROOT):
    """The picture of that name from a run's folder, below root. Returns its path."""
    rows = videos_of(Path(folder))
    if name == "fire_pot":
        path, content = root / "output/fire_pot.gif", film([video for _, video in rows])
    else:
        path, png = root / f"docs/images/{name}.png", io.BytesIO()
        strip(rows).save(png, "PNG", optimize=True)
        content = png.getvalue()
    if len(content) > LARGEST[path.suffix[1:]]:
        raise SystemExit(f"{path.name} would have {len(content)} bytes, more than {LARGEST[path.suffix[1:]]}")
    utils.write_atomically(path, content)
    return path


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print(make(*sys.argv[1:]))
