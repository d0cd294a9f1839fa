"""STGConvNet: learn a dynamic pattern from videos and synthesise new ones, by analysis by synthesis.

Xie, Zhu, Wu, "Synthesizing Dynamic Patterns by Spatial-Temporal Generative ConvNet", CVPR 2017. Algorithm 1 (learning
from complete videos) and Algorithm 2 (hidden pixels) are `Learner.learn_epoch`; model.py has the nets and the glossary.
"""

import itertools
import math
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from tqdm import tqdm

import data
import interpolate
import utils
from fast.device import available_memory, multiplies_bfloat16, prepare
from judge.metrics import QUICK_COLUMNS, quick_metrics
from judge.pictures import draw_texture_report
from judge.tables import in_pieces, recovery_report, save_report, texture_report
from langevin import LangevinGraph, gaussian_, langevin
from model import NETS, Descriptor, descriptor, layer_table
from run.adam import Adam, learning_rate
from run.flags import (
    ArgumentParser,
    RunError,
    add_flag,
    device_name,
    image_size,
    non_negative_float,
    non_negative_int,
    positive_float,
    positive_int,
    run_program,
    share,
)
from run.folder import Run, delete_outputs, load_checkpoint
from run.loop import fit, tell, uninterrupted

# Settings that a resumed run may change; all others decide the result.
CHANGEABLE = ("num_epochs", "lr", "anneal", "log_step", "device", "data_path", "output_dir")
# What made samples better on the clips it was tried on (RESULTS.md): fewer, longer steps and a faster rate; the mean
# image subtracted for nets of one scene, if nothing is hidden; how the rate falls then, and else.
QUALITY = {"sample_steps": 2, "step_size": 0.5, "lr": 0.002}
SCENE_NETS = ("FC_S", "FC_S_large")
SCHEDULES = {"image": {"anneal": 1.0, "num_epochs": 600}, "scalar": {"anneal": 0.4, "num_epochs": 1000}}
STEADY = 600  # epochs for which that rate may stay: after some 850 at 0.002 the chains leave the model
GUESSES = {"field": "Gaussian field", "linear": "linear interpolation", "mean": "flat"}  # their names in tables
TESTING = ("test", "ckpt", "sample_size", "test_steps", "start", "loop", "overwrite", "dry_run")  # no part of a run
SHOWN = ("gap", "chain_std")  # metrics on the progress bar
ROWS = 6  # of a contact sheet, for observed videos and for chains
LOST = 20  # epochs without a gradient at the chains, after which they are not expected back
BLENDS = [k / 20 for k in range(21)]  # of the way from the first guesses to the mean of samples, that a blend tries
LEVEL = 2  # the grey level of what stands still, in standard deviations of what moves, for -mean image
MEMORY = 50  # epochs over which recovered clips are averaged
TIMED = 24  # frames of a video, by which a CPU's precisions are timed
JUDGED = 12  # pieces of new videos at most, as long as the clip
ORDERS = (0, 2, 1), (1, 0, 2), (2, 1, 0)  # of three pieces, none of which is followed by its next
MARGIN = 24  # frames sampled beyond each end of a video of another length, and cut off: they see the padding


def build_parser():
    parser = ArgumentParser(
        prog="main.py",
        description="Learn a dynamic texture from the clips of a category and synthesise new ones (STGConvNet).",
        epilog="Flags take one dash or two, in full; a negative number is written -flag=-1. The same command again "
        "resumes an unfinished run.",
    )
    add = add_flag
    flags = QUALITY, *SCHEDULES.values()
    in_words = [" ".join(f"-{name} {value}" for name, value in each.items()) for each in flags]
    add(parser, "preset", "released", f"defaults: released (below), or quality: {in_words[0]} and, for "
        f"{' and '.join(SCENE_NETS)} without a mask, -mean image {in_words[1]}, else {in_words[2]} (anneals from epoch "
        f"{STEADY} on in longer runs)", choices=("released", "quality"))
    group = parser.add_argument_group("data")
    add(group, "category", "fire_pot", "folder of clips below data_path")
    add(group, "data_path data_dir", "./trainingVideo", "where categories are")
    add(group, "im_size image_size sz", "224", "side, or height x width, in pixels", type=image_size)
    add(group, "num_frames", 70, "first frames of each clip that are used", type=positive_int)
    group = parser.add_argument_group("hidden pixels (recovery and inpainting)")
    add(group, "mask_type", "none", "what is hidden: none, external or " + ", ".join(data.MASK_TYPES),
        choices=("none", "external", *data.MASK_TYPES))
    add(group, "mask_file", None, "for -mask_type external: .mat, .npy, video or folder of images (white = hidden)")
    add(group, "hidden_start", "field", "how hidden pixels start: field (what a Gaussian field expects, given the "
        "visible ones), linear (interpolated in time) or mean (flat)", choices=tuple(GUESSES))
    add(group, "readout", "blend", "the recovered clip: the last sample, the mean of the last 50 or so, the last after "
        "noise_free steps, or a blend of start and mean, weighed on visible pixels that are hidden as a test",
        choices=("blend", "last", "mean", "noise_free"))
    group = parser.add_argument_group("model")
    add(group, "net_type", "FC_S_large", "net: " + ", ".join(NETS), choices=tuple(NETS))
    add(group, "mean", "scalar", "what is subtracted from videos, and around which the reference is: the mean of all "
        "values, or the mean image, which leaves to the net what moves: learns several times faster",
        choices=("scalar", "image"))
    add(group, "refsig", 1.0, "std sigma of the white-noise reference, in grey levels", type=positive_float)
    group = parser.add_argument_group("Langevin sampling")
    add(group, "num_chain sample_batch", 3, "chains (synthesised videos) per mini-batch", type=positive_int)
    add(group, "sample_steps", 20, "Langevin steps per epoch", type=positive_int)
    add(group, "step_size delta", 0.3, "step size delta, in grey levels (it falls with the rate: -anneal)",
        type=positive_float)
    group = parser.add_argument_group("learning")
    add(group, "num_epochs", 500, "epochs, one update of the parameters each", type=positive_int)
    add(group, "batch_size", 1, "clips per mini-batch", type=positive_int)
    add(group, "lr", 0.001, "learning rate of Adam", type=positive_float)
    add(group, "anneal", 0.0, "share of the epochs, at the end, over which the rate falls to a tenth, and "
        "with it the square of the step size", type=share)
    add(group, "data_noise", 0.0, "std of Gaussian noise, in grey levels, that observed videos get when the net learns "
        "from them, anew each epoch: against copying", type=non_negative_float)
    add(group, "beta1", 0.5, "first-moment decay of Adam", type=float)
    add(group, "seed", 0, "seed of all randomness", type=non_negative_int)
    group = parser.add_argument_group("sampling a learned model")
    add(group, "test", help="sample new videos from a learned model; -num_frames and -im_size may differ from what it "
        "learned where its net can slide", action="store_true")
    add(group, "ckpt", None, "checkpoint to sample from (default the category's model/latest.pt)")
    add(group, "sample_size", 3, "how many videos", type=positive_int)
    add(group, "test_steps", 300, "Langevin steps", type=positive_int)
    add(group, "start", None, "start from pieces of the saved chains, put together at random, or from noise (default "
        "chains, or noise for frames of another size)", choices=("chains", "noise"))
    add(group, "loop", help="make the last frame run into the first; the length is rounded up to "
        "a multiple of the net's strides in time", action="store_true")
    group = parser.add_argument_group("output")
    add(group, "output_dir", "./output", "a run's outputs go to output_dir/category")
    add(group, "log_step", 10, "epochs between outputs", type=positive_int)
    add(group, "overwrite", help="delete an earlier run of this category first", action="store_true")
    add(group, "dry_run", help="print the settings, the net and the memory it needs, and stop", action="store_true")
    group = parser.add_argument_group("performance")
    add(group, "device", "auto", "auto, cpu, cuda, cuda:1, ...", type=device_name)
    add(group, "precision", "auto", "products while sampling: fp32, bf16, auto (bf16 where accurate and faster)",
        choices=("auto", "fp32", "bf16"))
    add(group, "chunk", 0, "videos handled at once, 0: as many as fit in memory", type=non_negative_int)
    return parser


def parse(argv=None):
    """The settings, and those among them that the user gave."""
    parser = build_parser()
    args, given = parser.parse_given(argv)
    if args.preset == "quality":
        if "mean" not in given and args.net_type in SCENE_NETS and args.mask_type == "none":
            args.mean = "image"
        better = QUALITY | SCHEDULES[args.mean]
        vars(args).update({name: value for name, value in better.items() if name not in given})
        if "anneal" not in given:
            args.anneal = max(args.anneal, 1 - STEADY / args.num_epochs)
    if not 0 <= args.beta1 < 1:
        parser.error(f"argument -beta1: {args.beta1} is not in [0, 1)")
    if (args.mask_type == "external") != (args.mask_file is not None):
        parser.error("-mask_type external and -mask_file go together")
    return args, given


# ------------------------------------------------------------------------------------------------------ preparation


def load(args):
    """The clips uint8 (N, T, H, W, 3), which of their pixels are hidden, bool (N, T, H, W) or None, and their names."""
    videos, names = data.load_category(args.data_path, args.category, args.num_frames, args.im_size)
    if args.mask_type == "none":
        return videos, None, names
    if args.mask_type == "external":
        masks = [data.read_mask(args.mask_file, args.num_frames, args.im_size)] * len(names)
    else:
        rng = np.random.default_rng(args.seed)
        masks = [data.draw_mask(args.mask_type, args.num_frames, args.im_size, rng) for _ in names]
    return videos, np.stack(masks), names


def draw_probes(hidden):
    """Visible pixels to hide, too, as a test: the masks moved by half the clip's length, height and width, in every
    eighth frame that then hides any more; none if nothing else is visible. Bool like `hidden`, (N, T, H, W)."""
    probes = np.roll(hidden, [n // 2 for n in hidden.shape[1:]], (1, 2, 3)) & ~hidden
    for mask, probe in zip(hidden, probes, strict=True):
        frames = np.flatnonzero(probe.any(axis=(1, 2)))
        probe[np.setdiff1d(frames, frames[::8])] = False
        probe &= not (mask | probe).all()
    return probes


def hide(videos, hidden, probes, start, device):
    """The clips with guesses in place of their hidden pixels and of the probes, which is what learning may see, and
    those with guesses of the hidden pixels alone. Two float32 (N, 3, T, H, W)."""
    blind, full = [], []
    for video, mask, probe in zip(videos, hidden, probes, strict=True):
        video = np.where(mask[..., None], np.float32(0), video)  # from here on, hidden values are gone
        if start == "field":
            guess = interpolate.GaussianField(video, mask | probe, device).fill
        else:
            guess = {"linear": interpolate.interpolate_linear, "mean": interpolate.fill_flat}[start]
        blind.append(guess(video, mask | probe))
        full.append(guess(video, mask) if probe.any() else blind[-1])
    return [data.to_tensor(np.stack(filled)) for filled in (blind, full)]


def memory_per_video(f, size):
    """Bytes that one video of size (T, H, W) takes in the learning step, which takes most: padded copies, maps and
    their gradients."""
    entries = 4 * 3 * math.prod(size)
    for layer in f.layers:
        size = layer.out_size(size)
        entries += 3 * len(layer.bias) * math.prod(size)
    return 4 * entries


def pick_chunk(f, size, videos, device):
    """How many of so many videos of size (T, H, W) fit at once into half of the memory that is free; on a CPU, where
    larger batches gain little, into 1 GiB."""
    parameters = 4 * 4 * sum(p.numel() for p in f.parameters())  # weights, gradients and Adam's two moments
    free = (available_memory(device) - parameters) / 2
    budget = min(free, 2**30) if device.type == "cpu" else free
    return int(min(max(budget // memory_per_video(f, size), 1), videos))


def fixed_axes(net_type):
    """Of time, height and width, those that a kernel of the net covers whole: along these it cannot slide."""
    return [0 in sides for sides in zip(*(kernel for _, kernel, _, _ in NETS[net_type]), strict=True)]


def pick_precision(f, x, limit=0.01):
    """'bf16' if on this device a new net's gradient at x is then within `limit` (relative) of float32's, and faster.

    A device without instructions for bfloat16 is not even tried: one gradient may take minutes. Biases that keep the
    units away from their kinks make it a test of the arithmetic alone: at its tiny first weights a net has units that
    any rounding turns on or off.
    """
    if not multiplies_bfloat16(x.device):
        return "fp32"
    nets = [Descriptor(f.layers, f.size).sample_in(dtype) for dtype in (torch.float32, torch.bfloat16)]
    biases, seconds = [layer.bias.detach() for layer in f.layers], [[], []]
    for bias in biases:
        bias.fill_(100)
    try:
        exact, rough = (net.gradient(x) for net in nets)  # the first call also prepares what others find
        error = ((rough - exact).norm() / exact.norm()).item()
        while sum(map(sum, seconds)) < 0.6:  # in turn, for the machine may be busy with other things
            for net, taken in zip(nets, seconds, strict=True):
                begun = time.perf_counter()
                net.gradient(x).norm().item()  # waits for the device
                taken.append(time.perf_counter() - begun)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # the library has no algorithm for it
        return "fp32"
    finally:
        for bias in biases:
            bias.zero_()
    slow, fast = map(min, seconds)
    return "bf16" if error <= limit and fast < slow else "fp32"


# -------------------------------------------------------------------------------------------------------- learning


def white_noise(count, size, generators):
    """`count` videos of unit Gaussian noise, float32 (N, 3, T, H, W), stored channels last: where chains start."""
    noise = torch.empty(count, *size, 3, device=generators[0].device)
    return gaussian_(noise, generators).permute(0, 4, 1, 2, 3)


def add_reference_(gradient, x, level, sigma):
    """df/dx, in place, to the gradient of the log density, df/dx - (x - level) / sigma^2 (paper, equation 7)."""
    gradient.sub_(x, alpha=1 / sigma**2)
    return gradient.add_(level / sigma**2) if level else gradient


def step_size(args, epoch):
    """delta after `epoch` epochs: its square falls with the learning rate, so that chains keep up with parameters."""
    return args.step_size * (learning_rate(args, epoch) / args.lr) ** 0.5


class Learner:
    """The state of learning and one epoch of it; `begin` or `restore` it first.

    f: descriptor; I: observed videos and J: chains, each a list of mini-batches (N, 3, T, H, W) in mean-subtracted grey
    levels; mean: what is subtracted, one value or an image (3, 1, H, W); level: the reference's mean after that, 0 but
    for a mean image: there, nothing would otherwise keep the units of layer 1 off the kinks of their ReLU where the
    scene stands still, and f would be all ridges; epoch: how many are done; lost: for how many f has had no gradient
    at the chains.

    Where pixels are hidden, more lists of mini-batches: hidden, which pixels of I move, and probes, those among them
    whose truth is known, (N, 1, T, H, W); average: I over the last epochs; blind: I at the start; full: the clips with
    guesses of the hidden pixels, but not of the probes.
    """

    def __init__(self, args, videos, hidden, f):
        """videos uint8 (N, T, H, W, 3), hidden bool (N, T, H, W) or None."""
        self.args, self.f, self.epoch, self.lost = args, f, 0, 0
        self.graphs, self.pixel_gradient = {}, torch.zeros((), device=args.device)  # rms of df/dJ, for the log
        self.device = next(f.parameters()).device
        self.optimizer = Adam(f.parameters(), args.lr, args.beta1)
        self.hidden = self.probes = self.average = self.blind = self.full = None
        if hidden is not None:
            probes = draw_probes(hidden) if args.readout == "blend" else np.zeros_like(hidden)
            self.hidden, self.probes = (self.batches(torch.from_numpy(m)[:, None]) for m in (hidden | probes, probes))
        self.judged = hidden is None and len(videos) == 1 and bool((videos != videos[:, :1]).any())  # by evaluate.py

    def begin(self, videos, hidden):
        """The first state: guesses of hidden pixels, the mean, chains of noise."""
        blind, unseen = data.to_tensor(videos), np.zeros(videos.shape[:-1], bool)
        if hidden is not None:
            print("guessing hidden pixels from visible ones", flush=True)
            unseen, probes = (torch.cat(m)[:, 0].cpu().numpy() for m in (self.hidden, self.probes))
            blind, full = hide(videos, hidden, probes, self.args.hidden_start, self.device)
        if self.args.mean == "image":  # of hidden pixels, of their guesses
            image = blind.mean((0, 2), keepdim=True, dtype=torch.float64)[0].float()
            self.level = LEVEL * (blind - image).std(correction=0).item()
            self.mean = image - self.level
        else:
            self.mean, self.level = torch.tensor(videos[~unseen].mean(dtype=np.float64), dtype=torch.float32), 0.0
        self.I = self.batches(blind - self.mean)
        if hidden is not None:
            self.average, self.blind, self.full = self.I, self.I, self.batches(full - self.mean)
        self.mean = self.mean.to(self.device)
        with torch.no_grad():
            if not self.f.features(self.I[0][:1]).any():  # all top units dead, as FC's only one may be: turn them over
                self.f.layers[-1].weight.neg_()
        noises = [self.generators("start", b) for b in range(len(self.I))]
        self.J = [white_noise(self.args.num_chain, self.f.size, noise) + self.level for noise in noises]

    def batches(self, x):
        return list(x.to(self.device).split(self.args.batch_size))

    def generators(self, kind, batch):
        """This epoch's noise: a generator for each video of a mini-batch, that no other video or epoch ever has."""
        count = self.args.num_chain if kind in ("J", "start") else self.args.batch_size
        numbers = range(batch * count, (batch + 1) * count)
        return [utils.generator(self.device, self.args.seed, self.epoch, kind, k) for k in numbers]

    def score(self, x):
        """Gradient of the log density at x; the root mean square of its part df/dx goes to pixel_gradient."""
        g = self.f.gradient(x)
        self.pixel_gradient.copy_(g[0].square().mean().sqrt())
        return add_reference_(g, x, self.level, self.args.refsig)

    def sample(self, x, kind, batch, free=None):
        """The epoch's Langevin steps from x, a chunk of videos at a time."""
        generators, parts = self.generators(kind, batch), []
        for k in range(0, len(x), self.chunk):
            rows = slice(k, k + self.chunk)
            moves = None if free is None else free[rows]
            parts.append(self.chain(x[rows], generators[rows][: len(x[rows])], moves))
        return torch.cat(parts)

    def chain(self, x, generators, free):
        """`langevin` with the run's settings; on a GPU as a CUDA graph, made at the first batch of a shape."""
        steps, delta = self.args.sample_steps, step_size(self.args, self.epoch)
        if not x.is_cuda:
            return langevin(x, self.score, steps, delta, generators, free)
        self.f.renew()
        key = (x.shape, free is None)
        if key not in self.graphs:
            self.graphs[key] = LangevinGraph(x, self.score, steps, delta, generators, free)
        return self.graphs[key](x, delta, generators, free)

    def with_noise(self, I, batch):
        """Observed videos with the epoch's -data_noise: the net meets a cloud around the clip, not its very frames."""
        if not self.args.data_noise:
            return I
        noise = gaussian_(torch.empty_like(I), self.generators("data", batch)[: len(I)])
        return I + self.args.data_noise * noise

    def backward_gap(self, I, J):
        """Add the gradient of gap / number of mini-batches, which is H_syn - H_obs (equation 9). Returns f(I), f(J),
        and which units of the top layer are alive."""
        weights = torch.cat([I.new_full((len(I),), -1 / len(I)), J.new_full((len(J),), 1 / len(J))]) / len(self.I)
        values, alive = [], 0
        for x, weight in zip(torch.cat([I, J]).split(self.chunk), weights.split(self.chunk), strict=True):
            top = self.f.features(x)
            value = top.flatten(1).sum(1)
            (value * weight).sum().backward()
            values.append(value.detach())
            alive = alive + (top.detach() > 0).sum((0, 2, 3, 4))
        return *torch.cat(values).split([len(I), len(J)]), alive > 0

    def learn_epoch(self, log):
        """One epoch (Algorithm 1; Algorithm 2 where pixels are hidden). Returns its metrics, which log(epoch, metrics)
        has got as part of the same uninterrupted change."""
        self.optimizer.zero_grad()
        I_new, J_new, values, seconds = [], [], [], 0.0
        for b, (I, J) in enumerate(zip(self.I, self.J, strict=True)):
            begun = time.perf_counter()
            J = self.sample(J, "J", b)  # synthesis: all pixels move
            drift = step_size(self.args, self.epoch) / 2 * self.pixel_gradient.item()  # also waits for the device
            seconds += time.perf_counter() - begun
            if self.hidden is not None:
                I = self.sample(I, "I", b, free=self.hidden[b])  # recovery: hidden pixels move
            f_I, f_J, alive = self.backward_gap(self.with_noise(I, b), J)
            values.append(torch.stack([f_I.mean(), f_J.mean(), alive.float().mean()]))
            I_new.append(I)
            J_new.append(J)
        metrics = self.metrics(torch.cat(I_new), torch.cat(J_new), torch.stack(values).mean(0), drift)
        metrics["seconds_per_step"] = seconds / (len(self.I) * self.args.sample_steps)
        self.check(metrics)
        with uninterrupted():
            self.optimizer.step(learning_rate(self.args, self.epoch))
            self.I, self.J, self.epoch = I_new, J_new, self.epoch + 1
            if self.hidden is not None:
                self.average = [torch.lerp(a, I, 1 / MEMORY) for a, I in zip(self.average, I_new, strict=True)]
            log(self.epoch, metrics)
        return metrics

    def metrics(self, I, J, values, drift):
        """What diagnoses an energy-based model, as plain numbers by name; None where this epoch has no figure."""
        f_I, f_J, alive = values.tolist()
        levels = J + self.mean
        std, mean = torch.std_mean(levels)
        numbers = {
            "f_obs": f_I,
            "f_syn": f_J,
            "gap": f_J - f_I,
            "drift_to_noise": drift,  # rms of (delta^2 / 2) df/dJ against that of delta Z
            "chain_mean": mean,
            "chain_std": std,
            "chain_min": levels.amin(),
            "chain_max": levels.amax(),
            "recon_err": (J.mean(0) - I.mean(0)).square().mean(),
            "alive": alive,
        }
        for k, layer in enumerate(self.f.layers, start=1):
            numbers[f"grad_norm_{k}"] = sum(p.grad.square().sum() for p in layer.parameters()).sqrt()
        numbers = {name: float(value) for name, value in numbers.items()}
        if self.judged:
            due = (self.epoch + 1) % self.args.log_step == 0
            numbers |= quick_metrics(J, I[0]) if due else dict.fromkeys(QUICK_COLUMNS)
        return numbers

    def check(self, metrics):
        """Stop a run that has diverged or died, before its state is touched."""
        for name, value in metrics.items():
            if value is not None and not math.isfinite(value):
                raise RunError(f"diverged in epoch {self.epoch + 1}: {name} is {value}; lower -lr or -step_size")
        self.lost = self.lost + 1 if metrics["drift_to_noise"] == 0 else 0
        if self.lost == LOST:
            raise RunError(f"the chains have left the model in epoch {self.epoch + 1}: f has no gradient there; "
                                 "start anew with a lower -lr or -step_size, or with -anneal")
        if metrics["alive"] == 0:
            raise RunError(f"all units of the top layer are dead in epoch {self.epoch + 1}: f is 0 everywhere, "
                                 "nothing is learned any more; lower -lr or change -seed")

    def state(self):
        """All that a resumed run needs, as plain types and tensors."""
        return {
            "net": self.f.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "chains": self.J,
            "recovered": None if self.hidden is None else [self.I, self.average, self.blind, self.full],
            "epoch": self.epoch,
            "mean": self.mean,
            "level": self.level,
            "precision": self.precision,
            "chunk": self.chunk,
            "settings": settings_of(self.args),
        }

    def pictures(self):
        """Observed videos, or what has been recovered of them, and chains as uint8 (N, T, H, W, 3), on the device."""
        I = self.I if self.hidden is None else self.recovered()
        return [utils.quantized(torch.cat(videos) + self.mean) for videos in (I, self.J)]

    def recovered(self):
        """The recovered clips, read off as -readout says."""
        if self.args.readout == "blend":
            share, batches = self.blend_share(), zip(self.full, self.average, self.blind, self.probes, strict=True)
            return [full + share * (average - blind) * ~probes for full, average, blind, probes in batches]
        if self.args.readout == "noise_free":
            steps, delta = self.args.sample_steps, step_size(self.args, self.epoch)
            pairs = zip(self.I, self.hidden, strict=True)
            return [langevin(x, self.score, steps, delta, None, free) for x, free in pairs]
        return self.I if self.args.readout == "last" else self.average

    def blend_share(self):
        """How far to go from the first guesses to the mean of samples, 0 to 1: where the probes' error is least."""
        errors = torch.zeros(len(BLENDS), device=self.device)
        for full, average, blind, probes in zip(self.full, self.average, self.blind, self.probes, strict=True):
            off, way = ((x - y)[probes.expand_as(x)] for x, y in ((blind, full), (average, blind)))
            errors += torch.stack([(off + share * way).abs().sum() for share in BLENDS])
        return BLENDS[errors.argmin()]

    def ingredients(self):
        """The first clip by its first guess and by the mean of samples, uint8 (T, H, W, 3) by name, for the table."""
        guess, mean = self.full[0][:1], torch.where(self.probes[0][:1], self.full[0][:1], self.average[0][:1])
        videos = {GUESSES[self.args.hidden_start]: guess, "mean of samples": mean}
        return {name: utils.to_uint8(x + self.mean)[0] for name, x in videos.items()}

    def restore(self, state, videos):
        """The state that `state` gave, of a run with these observed videos."""
        self.f.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.J, self.epoch, self.mean, self.level = (state[name] for name in ("chains", "epoch", "mean", "level"))
        if state["recovered"]:
            self.I, self.average, self.blind, self.full = state["recovered"]
        else:
            self.I = self.batches(data.to_tensor(videos).to(self.device) - self.mean)


def settings_of(args):
    """The settings as plain types, for config.json, checkpoints and TensorBoard."""
    plain = {name: value for name, value in vars(args).items() if name not in TESTING}
    return plain | {"im_size": list(args.im_size), "device": str(args.device)}


def learn(args):
    """Learn from a category's clips; the newest state and pictures are in output_dir/category."""
    prepare(args.device)
    torch.manual_seed(args.seed)
    videos, hidden, names = load(args)
    f = descriptor(args.net_type, args.num_frames, args.im_size).to(args.device)
    if args.dry_run:
        return print_header(args, f, names)
    run = Run(f"{args.output_dir}/{args.category}", settings_of(args), CHANGEABLE, args.overwrite)
    learner, state = Learner(args, videos, hidden, f), run.load_checkpoint(args.device)
    if state:
        learner.restore(state, videos)
    else:
        learner.begin(videos, hidden)
    if learner.epoch >= args.num_epochs:
        return print(f"'{run.folder}' is finished: {learner.epoch} epochs; raise -num_epochs to go on")
    chosen = state or {"precision": args.precision, "chunk": args.chunk}
    learner.chunk = chosen["chunk"] or pick_chunk(f, f.size, args.batch_size + args.num_chain, args.device)
    learner.precision = chosen["precision"]
    if learner.precision == "auto":  # on a CPU some frames of one video tell enough
        frames = None if fixed_axes(args.net_type)[0] else TIMED
        x = learner.J[0][: learner.chunk] if args.device.type == "cuda" else learner.I[0][:1, :, :frames]
        learner.precision = pick_precision(f, x)
    f.sample_in(torch.bfloat16 if learner.precision == "bf16" else torch.float32)
    print_header(args, f, names, learner)
    run.open_logs(learner.epoch)
    if learner.epoch == 0:
        observed = learner.pictures()[0].cpu().numpy()  # nothing may copy while the first epoch captures its graphs
        run.in_background(lambda: utils.save_frames(run.folder / "observed_sequence", observed))
    short = args.preset == "quality" and max(args.im_size) <= 64
    shorter = None if short else "-im_size 64 -preset quality takes minutes"
    fit(learner, run, lambda metrics: report(learner, run, metrics, videos, hidden), SHOWN, shorter)
    print(f"done: {learner.epoch} epochs; new videos are in '{run.folder}/final_results'")


def report(learner, run, metrics, videos, hidden):
    """At each log step save the pictures and the state; at the end the figures, too."""
    epoch, args, last = learner.epoch, learner.args, learner.epoch == learner.args.num_epochs
    if epoch % args.log_step and not last:
        return
    pictures = learner.pictures()

    def films(I, J):
        if hidden is None:
            return utils.save_videos(run.folder, "synthesized", J, videos)
        masked = np.where(hidden[..., None], np.uint8(128), videos)
        utils.save_videos(run.folder, "recovered", I, [*videos, *masked])
        utils.save_frames(run.folder / "synthesized_sequence", J)

    def show():
        I, J = (videos.cpu().numpy() for videos in pictures)
        sheet = {f"{'observed' if hidden is None else 'recovered'} {k}": video for k, video in enumerate(I[:ROWS])}
        sheet |= {f"chain {k}": video for k, video in enumerate(J[:ROWS])}
        run.log_pictures(epoch, list(sheet.values()), list(sheet), last)
        run.renew("films", last, lambda: films(I, J))
        if last:
            judge(learner, run.folder, I, J, videos, hidden)
        tell(f"epoch {epoch}/{args.num_epochs}", metrics, SHOWN)

    run.save(learner.state(), epoch, last, show)


def judge(learner, folder, I, J, videos, hidden):
    """The table of evaluate.py of a finished run: of the chains J or, where pixels are hidden, of the recovered I,
    against the clips. All videos are uint8 (N, T, H, W, 3)."""
    args, settings = learner.args, settings_of(learner.args)
    if hidden is None:
        return judge_textures(folder, {f"chain {k}": video for k, video in enumerate(J)}, settings)
    try:
        rows = recovery_report(videos[0], I[0], hidden[0], learner.ingredients())
    except data.InputError as error:  # a mask that hides nothing, say
        return print(f"not judged: {error}")
    if args.readout == "blend":
        settings["blend_share"] = learner.blend_share()
        print(f"recovered: {settings['blend_share']:.0%} of the way from first guess to mean of samples")
    save_report(folder, "recovery", rows, settings)


def judge_textures(folder, videos, settings):
    """The table and the picture of evaluate.py of synthesised videos by name, uint8 (T, H, W, 3), beside the clip that
    settings (as plain types) name, and its later frames."""
    frames, *size, _ = next(iter(videos.values())).shape
    stride = NETS[settings["net_type"]][0][2][0]
    try:
        clips = data.list_clips(data.category_folder(settings["data_path"], settings["category"]))
        if len(clips) > 1:
            raise data.InputError(f"'{settings['category']}' has {len(clips)} clips, not one to compare with")
        clip = data.read_clip(clips[0], None, tuple(size), at_most=2 * frames)
        later = clip[frames:] if len(clip) == 2 * frames else None
        stride = stride if stride < frames - 1 else None
        rows, portraits = texture_report(videos, clip[:frames], later, stride=stride)
        draw_texture_report(folder / "evaluation.png", portraits, stride)
        save_report(folder, "evaluation", rows, settings)
    except data.InputError as error:  # a clip that does not move, say
        print(f"not judged: {error}")


def print_header(args, f, names, learner=None):
    """What will run: clips, net, device, memory."""
    parameters = sum(p.numel() for p in f.parameters())
    videos = len(names) * args.num_chain + len(names)
    batch = args.batch_size + args.num_chain
    memory = 16 * parameters + memory_per_video(f, f.size) * batch + 24 * videos * math.prod(f.size)
    print(f"STGConvNet  {args.net_type}  '{args.category}': {len(names)} clip(s), {args.num_frames} frames of "
          f"{args.im_size[0]}x{args.im_size[1]}, {args.num_chain} chains a mini-batch of {args.batch_size}")
    print("\n".join(layer_table(f)))
    print(f"device {args.device}, {torch.get_num_threads()} threads, torch {torch.__version__}; "
          f"memory about {memory / 2**30:.1f} GiB if all is handled at once")
    if learner is None:
        for name, value in settings_of(args).items():
            print(f"  -{name} {value}")
    else:
        print(f"sampling in {learner.precision}, {learner.chunk} videos at once; epochs {learner.epoch + 1} to "
              f"{args.num_epochs}")


# -------------------------------------------------------------------------------------------------------- sampling


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
    f.wrap_time(args.loop).sample_in(torch.bfloat16 if state["precision"] == "bf16" else torch.float32)

    def score(x):
        return add_reference_(f.gradient(x), x, state["level"], learned["refsig"])

    parts = [slice(k, k + chunk) for k in range(0, len(J), chunk)]
    epochs = [state["epoch"] * (k + 1) / args.test_steps for k in range(args.test_steps)]
    deltas = [step_size(SimpleNamespace(**learned), epoch) for epoch in epochs]  # fall as they did while learning
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
        pieces = in_pieces(J, min(size[0], f.size[0]))
        settings = learned | {"data_path": given.get("data_path", learned["data_path"])}
        judge_textures(folder, dict(itertools.islice(pieces.items(), JUDGED)), settings)
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
        raise data.InputError("saved chains keep the frame size that was learned: use -start noise for another")
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
        raise data.InputError(f"{net_type} has learned {learned} (frames x height x width) and cannot sample {asked}: "
                              "ST slides in space (without -mean image) and time, FC_S, FC_S_large and FC_S_multi in "
                              "time, FC not at all")


def main(argv=None):
    args, given = parse(argv)
    return run_program(lambda: sample_learned(args, given) if args.test else learn(args), data.InputError)


if __name__ == "__main__":
    sys.exit(main())
