"""New scenes from a learned VideoGAN, and the foreground, mask and background that they are made of."""

import math
from pathlib import Path

import torch

import data
import utils
from fast.device import prepare
from judge.page import write_page
from run.folder import delete_outputs, find_checkpoint, load_checkpoint
from videogan.clips import grey, unit
from videogan.nets import LATENT, SIZE, Generator


def draw(device, seed, count, *key):
    """z ~ N(0, 1), (count, 100), of this seed and key."""
    return torch.randn(count, LATENT, device=device, generator=utils.generator(device, seed, "z", *key))


@torch.no_grad()
def generate_scenes(G, source):
    """What G makes of z or first frames, with the running statistics of batch norm (released), as uint8 videos
    (N, 32, 64, 64, 3) by the released names; the background as videos of one frame."""
    G.eval()
    video, f, m, b = (None if x is None else torch.cat(x) for x in zip_scenes(G, source))
    G.train()
    if m is None:
        return {"gen": grey(video)}
    masked = m * (f + 1) - 1  # what the mask leaves of the foreground, over black
    return {"gen": grey(video), "video": grey(f), "videomask": grey(masked), "mask": grey(m),
            "static": grey(b[:, :, None])}


def zip_scenes(G, source):
    """G's scenes of mini-batches of 16, field by field; None where a scene has none."""
    scenes = [G(part) for part in source.split(16)]
    return [None if field[0] is None else field for field in zip(*scenes, strict=True)]


def save_scenes(folder, scenes, rate):
    """Each part of the scenes as one grid of all samples: GIF and MP4 at `rate` frames a second, or a picture where
    nothing moves. The grey levels are not stretched."""
    columns = math.ceil(math.sqrt(len(scenes["gen"])))
    for name, videos in scenes.items():
        grid = utils.side_by_side(list(videos), columns, margin=2)
        if len(grid) == 1:
            utils.write_atomically(folder / f"{name}.png", utils.png_bytes(grid[0]))
        else:
            utils.write_atomically(folder / f"{name}.gif", utils.gif_bytes(grid, rate))
            utils.write_atomically(folder / f"{name}.mp4", utils.mp4_bytes(grid, rate))


def generate(args):
    """-test: new videos, and the foreground, mask and background that they are made of."""
    prepare(args.device)
    folder = Path(args.output_dir) / args.category
    path = find_checkpoint(folder, args.ckpt)
    state = load_checkpoint(path, args.device, "G")
    learned = state["settings"]
    G = Generator(learned["streams"], learned["conditional"]).to(args.device)
    G.load_state_dict(state["G"])
    if args.image and not learned["conditional"]:
        raise data.InputError(f"-image needs a model learned with -conditional, '{path}' is not")
    if args.image:
        picture = data.read_picture(args.image, (SIZE, SIZE))
        source = unit(torch.from_numpy(picture)[None, None])[:, :, 0].to(args.device)
    elif learned["conditional"]:
        source = state["fixed"][: args.sample_size]
    else:
        source = draw(args.device, args.seed, args.sample_size, "generate")
    scenes = generate_scenes(G, source)
    delete_outputs(folder / "test")
    save_scenes(folder / "test/final_results", scenes, args.fps or state.get("rate", utils.FPS))
    utils.save_frames(folder / "test/synthesized_sequence", scenes["gen"])
    write_page(folder)
    print(f"{len(source)} videos are in '{folder}/test'")
