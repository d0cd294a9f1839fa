"""New videos from a learned model, without learning: main.py -test."""

import itertools
import math
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import utils
from data import InputError
from fast.device import pick_chunk, prepare
from fast.gradient import FastGradient
from judge.clip import judge_against_clip
from judge.tables import in_pieces
from langevin import langevin
from model import descriptor, fixed_axes
from reference import add_reference_, white_noise
from run.adam import learning_rate, step_size
from run.flags import RunError
from run.folder import delete_outputs, load_checkpoint

JUDGED = 12  # pieces of new videos at most, as long as the clip
ORDERS = (0, 2, 1), (1, 0, 2), (2, 1, 0)  # of three pieces, none of which is followed by its next
MARGIN = 24  # frames sampled beyond each end of a video of another length, and cut off: they see the padding


def sample_learned(args, given):
    """-test: new videos from a learned model, without learning. `given` has the flags that the user set."""
    prepare(args.device)
    run = Path(args.output_dir) / args.category
    folder, state = run / "test", load_checkpoint(args.ckpt or run / "model/latest.pt", args.device, "chains")
    learned = state["settings"]
    f = descriptor(learned["net_type"], learned["num_frames"], learned["im_size"]).to(args.device)
    f.load_state_dict(state["net"])
    size = (given.get("num_frames", learned["num_frames"]), *given.get("im_size", learned["im_size"]))
    check_fits(f, size, learned)
    if args.loop:  # on a circle all strides must come out even
        period = math.prod(layer.stride[0] for layer in f.layers)
        size = (-(-size[0] // period) * period, *size[1:])
    margin = 0 if args.loop or size[0] == f.size[0] else MARGIN
    J = first_videos(args, torch.cat(state["chains"]), state["level"], size, margin)
    generators = [utils.generator(args.device, args.seed, "test", k) for k in range(len(J))]
    chunk = args.chunk or pick_chunk(f, J.shape[2:], len(J), args.device)
    gradient = FastGradient(f.wrap_time(args.loop), state["precision"])

    def score(x):
        return add_reference_(gradient(x), x, state["level"], learned["refsig"])

    parts = [slice(k, k + chunk) for k in range(0, len(J), chunk)]
    epochs = [state["epoch"] * (k + 1) / args.test_steps for k in range(args.test_steps)]
    rates = [learning_rate(learned["lr"], learned["anneal"], epoch, learned["num_epochs"]) for epoch in epochs]
    deltas = [step_size(learned["step_size"], learned["lr"], rate) for rate in rates]  # fall as they did while learning
    for rows, delta in tqdm(list(itertools.product(parts, deltas)), unit="step", disable=None):
        J[rows] = langevin(J[rows], score, 1, delta, generators[rows])
    if not torch.isfinite(J).all():
        raise RunError("sampling diverged: the model was learned with too large a -step_size or -lr")
    J = utils.to_uint8(J + state["mean"])[:, margin : margin + size[0]]
    delete_outputs(folder)
    utils.save_videos(folder, "synthesized", J)
    if args.loop:
        tell_seams(J)
    if size[1:] == f.size[1:] and learned["mask_type"] == "none":
        judged = dict(itertools.islice(in_pieces(J, min(size[0], f.size[0])).items(), JUDGED))
        settings = learned | {"data_path": given.get("data_path", learned["data_path"])}
        judge_against_clip(folder, judged, settings, f.layers[0].stride[0])
    print(f"{len(J)} new videos of {size[0]} frames of {size[1]}x{size[2]} are in '{folder}/final_results'")


def tell_seams(loops):
    """How much successive frames of loops uint8 (N, T, H, W, 3) differ where they close, and elsewhere."""
    closed = np.concatenate([loops, loops[:, :1]], axis=1).astype(np.int16)
    for k, (*inside, seam) in enumerate(np.abs(np.diff(closed, axis=1)).mean(axis=(2, 3, 4))):
        print(f"video {k}: frames differ by {seam:.1f} across the seam, by {min(inside):.1f} to {max(inside):.1f} "
              "elsewhere")


def first_videos(args, chains, level, size, margin):
    """Where new videos of size (T, H, W) start, with a margin of frames at both ends, (sample_size, 3, T + 2 * margin,
    H, W): pieces of the saved chains, or noise around the reference's level."""
    fits, numbers = chains.shape[3:] == size[1:], range(args.sample_size)
    if args.start == "noise" or not (fits or args.start):
        draws = [utils.generator(args.device, args.seed, "start", k) for k in numbers]
        return white_noise(len(numbers), (size[0] + 2 * margin, *size[1:]), draws) + level
    if not fits:
        raise InputError("saved chains keep the frame size that was learned: use -start noise for another")
    draws = [utils.generator("cpu", args.seed, "pieces", k) for k in numbers]
    J = torch.stack([join_pieces(chains[k % len(chains)], size[0], margin, draw) for k, draw in enumerate(draws)])
    return J.contiguous(memory_format=torch.channels_last_3d)


def join_pieces(chain, length, margin, generator):
    """`length` frames, with a margin at both ends, made of a chain (3, T, H, W): from the first on, rounds of all its T
    frames, cut into thirds or so at random moments and put in an order in which no third is followed by its next."""
    frames, rounds = chain.shape[1], []
    before = -margin % frames  # a round begins with the first frame after the margin
    for _ in range(-(-(before + length + 2 * margin) // frames)):
        shifts = torch.randint(-(frames // 12), frames // 12 + 1, (2,), generator=generator)
        pieces = torch.arange(frames).tensor_split(shifts + torch.tensor([frames // 3, 2 * frames // 3]))
        rounds += [pieces[k] for k in ORDERS[torch.randint(len(ORDERS), (), generator=generator)]]
    return chain[:, torch.cat(rounds)[before :][: length + 2 * margin]]


def check_fits(f, size, settings):
    """InputError if the net, learned with these settings, cannot slide to videos of size (T, H, W)."""
    net_type, image = settings["net_type"], settings["mean"] == "image"
    fixed = [a or b for a, b in zip(fixed_axes(net_type), (False, image, image), strict=True)]
    if any(stays and have != want for stays, have, want in zip(fixed, f.size, size, strict=True)):
        learned, asked = ("x".join(map(str, s)) for s in (f.size, size))
        raise InputError(f"{net_type} has learned {learned} (frames x height x width) and cannot sample {asked}: "
                              "ST slides in space (without -mean image) and time, FC_S, FC_S_large and FC_S_multi in "
                              "time, FC not at all")
