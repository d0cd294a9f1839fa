"""New videos from a learned model, without learning: main.py -test."""

import itertools
import math
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import utils
from data import InputError, load_clips
from fast.device import pick_chunk, prepare
from fast.gradient import FastGradient
from judge.clip import Judge, table_of_clips
from judge.page import write_page
from judge.tables import in_pieces, recovery_report, save_report
from langevin import langevin
from model import descriptor, fixed_axes
from recover import first_guess, load_recovery, save_recovered
from reference import load_reference
from run import ranks
from run.adam import learning_rate
from run.flags import RunError
from run.folder import delete_outputs, find_checkpoint, load_checkpoint
from run.inputs import inputs_of

JUDGED = 12  # pieces of new videos at most, as long as the clip
FILLING = 20  # steps where pixels are hidden, if nothing else is said
MARGIN = 24  # frames sampled beyond each end of a video of another length, and cut off: they see the padding


def sample_learned(args, given):
    """-test: new videos from a learned model, without learning. `given` has the flags that the user set."""
    prepare(args.device)
    run = Path(args.output_dir) / args.category
    folder, state = run / "test", load_checkpoint(find_checkpoint(run, args.ckpt), "cpu", "chains")
    chains, learned = [y for mini_batch in state.pop("chains") for y in mini_batch], state["settings"]
    state = ranks.on(state, args.device)
    f = descriptor(learned["net_type"], learned["num_frames"], learned["im_size"]).to(args.device)
    f.load_state_dict(state["net"])
    size = (given.get("num_frames", learned["num_frames"]), *given.get("im_size", learned["im_size"]))
    check_fits(f, size, learned)
    if args.mask_type != "none":
        return fill_in(args, given, f, state, size, folder)
    if args.loop:  # on a circle all strides must come out even
        period = math.prod(layer.stride[0] for layer in f.layers)
        size = (-(-size[0] // period) * period, *size[1:])
    margin = 0 if args.loop or size[0] == f.size[0] else MARGIN
    q = load_reference(state).resized((size[0] + 2 * margin, *size[1:]), args.loop)
    if args.start == "chains" and (args.loop or q.size != f.size):
        raise InputError("-start chains keeps the size that was learned, without -loop: use -start noise")
    J = sample(f.wrap_time(args.loop), q, chains, state, args)[:, margin : margin + size[0]]
    delete_outputs(folder)
    utils.save_videos(folder, "synthesized", J, rate=args.fps or state.get("rate", utils.FPS))
    if args.loop:
        tell_seams(J)
    if size[1:] == f.size[1:] and learned["mask_type"] == "none":
        piece = min(size[0], f.size[0]), *size[1:]
        judged = dict(itertools.islice(in_pieces(J, piece[0]).items(), JUDGED))
        settings = learned | {"data_path": given.get("data_path", learned["data_path"])}
        judge = Judge("evaluation", lambda: table_of_clips(settings, piece, f.layers[0].stride[0]), settings)
        judge.report(folder, judged)
    write_page(run)
    print(f"{len(J)} new videos of {size[0]} frames of {size[1]}x{size[2]} are in '{folder}/final_results'")


def fill_in(args, given, f, state, size, folder):
    """Hidden pixels of clips of size (T, H, W), which need not be those learned from, sampled in the learned model."""
    if args.loop or args.start == "chains":
        raise InputError("-loop and -start chains make new videos; -mask_type fills in a clip")
    learned, steps = state["settings"], given.get("test_steps", FILLING)
    start, step = (given.get(name, learned.get(name, default))
                   for name, default in (("start_frame", 0), ("frame_step", 1)))
    same = args.category == learned["category"]
    data_path = given.get("data_path", learned["data_path"] if same else args.data_path)
    videos, hidden, records, _ = load_clips(data_path, args.category, size[0], size[1:], args.mask_type,
                                            args.mask_file, args.seed, start, step, pad=True)
    inputs = inputs_of(records, args.fps)
    print(*inputs.lines, sep="\n")
    q, gradient = load_reference(state), FastGradient(f, state["precision"])
    fitted = learned.get("reference") == "field"
    full, saved = first_guess(videos, hidden, fitted, args.device, args.seed)
    recovery = load_recovery(saved | {"I": list((full - q.mean).split(1))}, hidden, q.mean, 1)
    generators = [[utils.generator(args.device, args.seed, "test", k)] for k in range(len(videos))]
    fall = learning_rate(1.0, learned["anneal"], state["epoch"], learned["num_epochs"])
    delta = q.step_size(learned["step_size"], fall)

    def score(x):
        return gradient(x).sub_(x, alpha=1 / q.sigma**2)

    def sampler(x, delta, generators, free):
        return langevin(x, score, 1, delta, generators, free)

    for done in tqdm(range(1, steps + 1), unit="step", disable=None):
        I = [recovery.move(k, x, gradient, sampler, delta, q.share, generators[k]) for k, x in enumerate(recovery.I)]
        recovery.update(I, done)
    found = {"mean of samples": recovery.mean(q.share), "one sample": recovery.sample(),
             "Gaussian field": recovery.guess()}
    found = {name: torch.cat(x) for name, x in found.items() if x is not None}
    check_finite(*found.values())
    found = {name: utils.to_uint8(x + q.mean) for name, x in found.items()}
    delete_outputs(folder)
    save_recovered(folder, found["mean of samples"], found["one sample"], videos, hidden, inputs.rate, {})
    known = min(record.used for record in records)
    if hidden[:, :known].any():
        rows = recovery_report(videos[:, :known], {name: x[:, :known] for name, x in found.items()}, hidden[:, :known])
        save_report(folder, "recovery", rows, learned | {"category": args.category})
    write_page(folder.parent)
    print(f"{len(videos)} clip(s) with their hidden pixels filled in are in '{folder}/final_results'")


def first_noise(args, q, chains, which):
    """Where new videos of these numbers start: noise of the reference q or, with -start chains, the saved chains."""
    if args.start == "noise":
        return q.noise([utils.generator(args.device, args.seed, "start", k) for k in which])
    return torch.stack([chains[k % len(chains)] for k in which]).to(args.device)


def sample(f, q, chains, state, args):
    """New videos, uint8 (N, T, H, W, 3), after -test_steps Langevin steps in the learned model of a checkpoint's state,
    each at the step size that learning had at that share of its epochs; a chunk of them at a time."""
    learned, steps = state["settings"], range(1, args.test_steps + 1)
    chunk = args.chunk or pick_chunk(f, q.size, args.sample_size, args.device)
    gradient, J = FastGradient(f, state["precision"]), []

    def score(y):
        return q.pull(y, gradient).sub_(y, alpha=1 / q.sigma**2)

    epochs = [state["epoch"] * k / len(steps) for k in steps]
    rates = [learning_rate(1.0, learned["anneal"], epoch, learned["num_epochs"]) for epoch in epochs]
    deltas = [q.step_size(learned["step_size"], rate) for rate in rates]
    parts = [range(args.sample_size)[k : k + chunk] for k in range(0, args.sample_size, chunk)]
    with tqdm(total=len(parts) * len(deltas), unit="step", disable=None) as bar:
        for which in parts:
            y = first_noise(args, q, chains, which)
            generators = [utils.generator(args.device, args.seed, "test", k) for k in which]
            for delta in deltas:
                y = langevin(y, score, 1, delta, generators)
                bar.update()
            check_finite(y)
            J.append(utils.to_uint8(q.video(y) + q.mean))
    return np.concatenate(J)


def check_finite(*samples):
    """RunError if samples are not numbers any more."""
    if not all(torch.isfinite(x).all() for x in samples):
        raise RunError("sampling diverged: the model was learned with too large a -step_size or -lr")


def tell_seams(loops):
    """How much successive frames of loops uint8 (N, T, H, W, 3) differ where they close, and elsewhere."""
    closed = np.concatenate([loops, loops[:, :1]], axis=1).astype(np.int16)
    for k, (*inside, seam) in enumerate(np.abs(np.diff(closed, axis=1)).mean(axis=(2, 3, 4))):
        print(f"video {k}: frames differ by {seam:.1f} across the seam, by {min(inside):.1f} to {max(inside):.1f} "
              "elsewhere")


def check_fits(f, size, settings):
    """InputError if the net, learned with these settings, cannot slide to videos of size (T, H, W)."""
    net_type, fixed = settings["net_type"], fixed_axes(settings["net_type"])
    if any(stays and have != want for stays, have, want in zip(fixed, f.size, size, strict=True)):
        learned, asked = ("x".join(map(str, s)) for s in (f.size, size))
        raise InputError(f"{net_type} has learned {learned} (frames x height x width) and cannot sample {asked}: ST "
                         "slides in space and time, FC_S, FC_S_large and FC_S_multi in time, FC not at all")
