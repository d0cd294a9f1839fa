"""New scenes from a learned VideoGAN, and the foreground, mask and background that they are made of."""

import math
from pathlib import Path

import numpy as np
import torch

import data
import utils
from fast.device import prepare
from judge.page import write_page
from run.folder import delete_outputs, find_checkpoint, load_checkpoint
from videogan.clips import first_of, grey, load, unit
from videogan.nets import FRAMES, LATENT, SIZE, Generator
from videogan.released import load_released

SAMPLES = 128  # new videos, if nothing else is said (released)


def draw(device, seed, count, *key):
    """z ~ N(0, 1), (count, 100), of this seed and key."""
    return torch.randn(count, LATENT, device=device, generator=utils.generator(device, seed, "z", *key))


def first_frames(clips):
    """The first frames (N, 3, 64, 64) in [-1, 1] of clips uint8 (N, T, 64, 64, 3)."""
    return unit(torch.from_numpy(clips))[:, :, 0]


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


def read_pictures(paths):
    """Pictures, and all those in folders, as first frames uint8 (N, 64, 64, 3)."""
    found = []
    for path in map(Path, paths):
        inside = sorted(filter(data.is_image, path.iterdir()), key=data.natural_key) if path.is_dir() else [path]
        if not inside:
            raise data.InputError(f"there is no picture in '{path}'")
        found += [data.read_picture(each, (SIZE, SIZE)) for each in inside]
    return np.stack(found)


def frames_of_clips(count, settings):
    """`count` first frames uint8 (N, 64, 64, 3), no two the same, of the clips that these settings name, of those held
    out before the others; where there are fewer clips, later frames of them serve, too."""
    names = ("data_path", "data_list", "category", "window_step")
    train, held_out, _ = load(**{name: settings[name] for name in names}, share=settings["held_out"],
                              start=settings["start_frame"], step=settings["frame_step"])
    clips = np.concatenate([first_of(part, count) for part in (held_out, train)])
    moments = np.arange(FRAMES).reshape(4, -1).T.ravel()  # every eighth, then those after them
    frames = {frame.tobytes(): frame for frame in clips[:, moments].swapaxes(0, 1).reshape(-1, SIZE, SIZE, 3)}
    if len(frames) < count:
        raise data.InputError(f"-sample_size {count}: the clips of '{settings['category']}' have no more than "
                              f"{len(frames)} first frames, which make a video each")
    return np.stack(list(frames.values())[:count])


def load_generator(path, device):
    """The generator that draws samples, of a checkpoint or a released model (.t7), and the state that the checkpoint
    holds; a released model has none, {}."""
    if Path(path).suffix == ".t7":
        G = load_released(path)
        if not isinstance(G, Generator):
            raise data.InputError(f"'{path}' is a discriminator: -ckpt takes a generator")
        return G.to(device), {}
    state = load_checkpoint(path, device, "G")
    G = Generator(state["settings"]["streams"], state["settings"]["conditional"]).to(device)
    G.load_state_dict(state.get("average") or state["G"])
    return G, state


def generate(args, given):
    """-test: new videos, and the foreground, mask and background that they are made of."""
    prepare(args.device)
    folder = Path(args.output_dir) / args.category
    path = find_checkpoint(folder, args.ckpt)
    G, state = load_generator(path, args.device)
    if args.image and not G.conditional:
        raise data.InputError(f"-image needs a model learned with -conditional, '{path}' is not")
    if args.image:
        frames = read_pictures(args.image)
        if args.sample_size not in (None, len(frames)):
            raise data.InputError(f"{len(frames)} first frames (-image) make as many videos, not {args.sample_size}")
        source = first_frames(frames[:, None]).to(args.device)
    elif not G.conditional:
        source = draw(args.device, args.seed, args.sample_size or SAMPLES, "generate")
    elif not state:
        raise data.InputError(f"'{path}' makes videos from pictures: name them with -image")
    elif args.sample_size and args.sample_size > len(state["fixed"]):
        frames = frames_of_clips(args.sample_size, vars(args) | state["settings"] | given)
        source = first_frames(frames[:, None]).to(args.device)
    else:
        source = state["fixed"][: args.sample_size]
    scenes = generate_scenes(G, source)
    delete_outputs(folder / "test")
    save_scenes(folder / "test/final_results", scenes, args.fps or state.get("rate", utils.FPS))
    utils.save_frames(folder / "test/synthesized_sequence", scenes["gen"])
    write_page(folder)
    print(f"{len(source)} videos are in '{folder}/test'")
