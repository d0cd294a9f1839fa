"""STGConvNet: learn a dynamic pattern from videos and synthesise new ones, by analysis by synthesis.

Xie, Zhu, Wu, "Synthesizing Dynamic Patterns by Spatial-Temporal Generative ConvNet", CVPR 2017. Algorithm 1 (learning
from complete videos) and Algorithm 2 (hidden pixels) are `Learner.learn`; model.py has the nets and the glossary.
"""

import math
import sys
import time

import numpy as np
import torch

import utils
from data import InputError, category_folder, list_clips, load_clips, to_tensor
from fast.device import available_memory, pick_chunk, prepare
from fast.gradient import FastGradient, pick_precision, some_frames
from fast.graph import FastLangevin
from judge.metrics import QUICK_COLUMNS, quick_metrics
from judge.page import write_page
from model import descriptor, fixed_axes
from recover import first_guess, load_recovery
from reference import GaussianField, WhiteNoise, load_reference
from run.adam import Adam, learning_rate
from run.flags import (
    RunError,
    listed,
    run_program,
)
from run.folder import Run, start_from
from run.inputs import check_memory, inputs_of
from run.loop import fit
from sample import sample_learned
from stg.outputs import header, memory, save_outputs
from stg.settings import CHANGEABLE, parse, settings_of

SHOWN = ("gap", "chain_std")  # metrics on the progress bar
LOST = 20  # epochs without a gradient at the chains, after which they are not expected back


# -------------------------------------------------------------------------------------------------------- learning


class Learner:
    """The state of learning, and one epoch of it: `learn`, then `commit`.

    f: descriptor; reference: q; I: observed videos, less the reference's mean, and y: chains, whose videos J are
    reference.video(y), each a list of mini-batches (N, 3, T, H, W); done: epochs; recovery: what Algorithm 2 keeps
    where pixels are hidden, or None; lost: epochs for which f has had no gradient at the chains.
    """

    def __init__(self, f, state, videos, hidden, *, num_epochs, batch_size, num_chain, sample_steps, step_size,
                 lr, anneal, beta1, seed, log_step, settings):
        """state: a checkpoint's or `first_state`; videos uint8 (N, T, H, W, 3); hidden bool (N, T, H, W), or None;
        settings: plain types by name, for checkpoints. Everything else is as its flag."""
        self.f, self.device, self.done, self.lost = f, next(f.parameters()).device, state["epoch"], 0
        self.num_epochs, self.batch_size, self.num_chain, self.sample_steps = (
            num_epochs, batch_size, num_chain, sample_steps)
        self.step_size, self.lr, self.anneal = step_size, lr, anneal
        self.seed, self.log_step, self.settings = seed, log_step, settings
        self.precision, self.chunk = state["precision"], state["chunk"]
        self.y, self.reference = state["chains"], load_reference(state)
        self.optimizer = Adam(f.parameters(), lr, beta1)
        if "net" in state:
            f.load_state_dict(state["net"])
            self.optimizer.load_state_dict(state["optimizer"])
        if hidden is None:
            self.I, self.recovery = batches(to_tensor(videos).to(self.device) - self.reference.mean, batch_size), None
        else:
            self.recovery = load_recovery(state["recovered"], hidden, self.reference.mean, batch_size)
            self.I = self.recovery.I
        self.judged = hidden is None and all((video != video[:1]).any() for video in videos)  # by quick_metrics
        self.tilt = torch.zeros((), device=self.device)  # rms of df/dy
        self.gradient = FastGradient(f, self.precision)  # f.gradient, faster
        self.langevin = FastLangevin(self.score, self.gradient, sample_steps, self.chunk)

    def score(self, y):
        """Gradient of the log density at y (equation 7); the root mean square of its part df/dy goes to tilt."""
        g = self.reference.pull(y, self.gradient)
        self.tilt.copy_(g[0].square().mean().sqrt())
        return g.sub_(y, alpha=1 / self.reference.sigma**2)

    def learn(self):
        """One epoch (Algorithm 1; Algorithm 2 where pixels are hidden): new chains, and the gradient of the weights."""
        self.optimizer.zero_grad()
        I_new, y_new, J_new, values, seconds = [], [], [], [], 0.0
        for b, (I, y) in enumerate(zip(self.I, self.y, strict=True)):
            begun = time.perf_counter()
            y = self.langevin(y, self.delta(), self.noise("J", b, self.num_chain))  # synthesis: all pixels move
            tilt = self.tilt.item()  # also waits for the device
            seconds += time.perf_counter() - begun
            if self.recovery:  # recovery: hidden pixels move
                I = self.recovery.move(b, I, self.gradient, self.langevin, self.delta(), self.reference.share,
                                       self.noise("I", b, self.batch_size))
            J = self.reference.video(y)
            f_I, f_J, alive = self.backward_gap(I, J)
            values.append(torch.stack([f_I.mean(), f_J.mean(), alive.float().mean()]))
            I_new.append(I)
            y_new.append(y)
            J_new.append(J)
        metrics = self.metrics(torch.cat(I_new), torch.cat(J_new), torch.stack(values).mean(0), tilt)
        metrics["seconds_per_step"] = seconds / (len(self.I) * self.sample_steps)
        self.check(metrics)
        self.found = I_new, y_new, torch.cat(J_new), metrics

    def commit(self):
        """The epoch's step of Adam, and its videos in place of the ones before. Returns its metrics."""
        self.I, self.y, J, metrics = self.found
        self.optimizer.step(self.rate() * self.reference.balance(J))
        self.done += 1
        if self.recovery:
            self.recovery.update(self.I, self.done)
        return metrics

    def undo(self):
        """`learn` changes nothing that is not thrown away at its next beginning."""

    def rate(self):
        """The learning rate of this epoch."""
        return learning_rate(self.lr, self.anneal, self.done, self.num_epochs)

    def delta(self):
        """The step size of this epoch."""
        return self.reference.step_size(self.step_size, self.rate() / self.lr)

    def noise(self, kind, batch, count):
        """This epoch's noise: a generator for each video of a mini-batch, that no other video or epoch ever has."""
        return noise(self.device, self.seed, self.done, kind, batch, count)

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

    def metrics(self, I, J, values, tilt):
        """What diagnoses an energy-based model, as plain numbers by name; None where this epoch has no figure."""
        f_I, f_J, alive = values.tolist()
        levels = J + self.reference.mean
        std, mean = torch.std_mean(levels)
        numbers = {
            "f_obs": f_I,
            "f_syn": f_J,
            "gap": f_J - f_I,
            "drift_to_noise": self.delta() / 2 * tilt,  # rms of (delta^2 / 2) df/dy against that of delta Z
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
            due = (self.done + 1) % self.log_step == 0
            numbers |= quick_metrics(J, I) if due else dict.fromkeys(QUICK_COLUMNS)
        return numbers

    def check(self, metrics):
        """Stop a run that has diverged or died, before its state is touched."""
        epoch = self.done + 1
        for name, value in metrics.items():
            if value is not None and not math.isfinite(value):
                raise RunError(f"diverged in epoch {epoch}: {name} is {value}; lower -lr or -step_size")
        self.lost = self.lost + 1 if metrics["drift_to_noise"] == 0 else 0
        if self.lost == LOST:
            raise RunError(f"the chains have left the model in epoch {epoch}: f has no gradient there; "
                           "start anew with a lower -lr or -step_size, or with -anneal")
        if metrics["alive"] == 0:
            raise RunError(f"all units of the top layer are dead in epoch {epoch}: f is 0 everywhere, "
                           "nothing is learned any more; lower -lr or change -seed")

    def state(self):
        """All that a resumed run needs, as plain types and tensors."""
        return {
            "net": self.f.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "chains": self.y,
            "recovered": self.recovery and self.recovery.state(),
            "epoch": self.done,
            "reference": self.reference.state(),
            "precision": self.precision,
            "chunk": self.chunk,
            "settings": self.settings,
        }

    def pictures(self):
        """As uint8 (N, T, H, W, 3) on the device, by name: chains, and the observed videos or, where pixels are hidden,
        the mean of samples and one sample of them."""
        videos = {"chain": [self.reference.video(y) for y in self.y]}
        if self.recovery:
            videos |= {"mean": self.recovery.mean(self.reference.share), "sample": self.recovery.sample()}
        else:
            videos["observed"] = self.I
        return {name: utils.quantized(torch.cat(x) + self.reference.mean) for name, x in videos.items()}


def first_state(f, videos, hidden, *, net_type, reference, refsig, batch_size, num_chain, seed):
    """The state of a run that has not begun: guesses of hidden pixels, the reference, chains of noise."""
    device, full, seen = next(f.parameters()).device, to_tensor(videos), videos
    if hidden is not None:
        full, recovered = first_guess(videos, hidden, reference == "field", device, seed)
        seen = videos[~hidden]
    if reference == "field":
        q = GaussianField.fit(full.to(device), refsig, stationary=not any(fixed_axes(net_type)[1:]))
    else:
        mean = torch.tensor(seen.mean(dtype=np.float64), dtype=torch.float32)
        q = WhiteNoise(f.size, mean=mean.to(device), sigma=refsig)
    I = batches(full.to(device) - q.mean, batch_size)
    wake(f, I[0][:1], each=reference == "field")
    chains = [q.noise(noise(device, seed, 0, "start", b, num_chain)) for b in range(len(I))]
    state = {"chains": chains, "epoch": 0, "reference": q.state()}
    return state if hidden is None else state | {"recovered": recovered | {"I": I}}


@torch.no_grad()
def wake(f, I, each):
    """Turn over the last layer's weights of units that are dead at the clip I: each of them, or only if all are.

    Differs from the released code: a dead unit never learns, and a run without a live one learns nothing."""
    dead = ~f.features(I).flatten(2).any(2).any(0)  # (c_out,)
    if each or dead.all():
        f.layers[-1].weight[dead] *= -1


def batches(x, size):
    """x (N, ...) as a list of mini-batches."""
    return list(x.split(size))


def noise(device, seed, epoch, kind, batch, count):
    """Generators of the videos of mini-batch number `batch`, `count` to each."""
    return [utils.generator(device, seed, epoch, kind, k) for k in range(batch * count, (batch + 1) * count)]


# ---------------------------------------------------------------------------------------------------------- a run


def learn(args):
    """Learn from a category's clips; the newest state and pictures are in output_dir/category."""
    prepare(args.device)
    torch.manual_seed(args.seed)
    with torch.device("meta"):  # which has shapes, but no memory
        outline = descriptor(args.net_type, args.num_frames, args.im_size)
    clips = len(list_clips(category_folder(args.data_path, args.category)))
    check_memory(memory(args, outline, clips, 1), available_memory(args.device),
                 "use a smaller -im_size or -num_frames, or fewer -num_chain")
    videos, hidden, *records = load_clips(args.data_path, args.category, args.num_frames, args.im_size, args.mask_type,
                                          args.mask_file, args.seed, args.start_frame, args.frame_step)
    if args.reference == "field" and (videos == videos[:, :1]).all():
        raise InputError(f"the clips of '{args.category}' do not move, and -reference field needs motion: use white")
    inputs = inputs_of(records[0], args.fps, records[1])
    about = "\n".join([header(args, outline, clips), *inputs.lines])
    if args.dry_run:
        return print(about, *listed(settings_of(args)), sep="\n")
    f = descriptor(args.net_type, args.num_frames, args.im_size).to(args.device)
    folder = f"{args.output_dir}/{args.category}"
    start_from(args.ckpt, folder, args.overwrite, args.device, net=f)
    run = Run(folder, settings_of(args), CHANGEABLE, args.overwrite, inputs=inputs)
    learner = make_learner(args, f, run.load_checkpoint(args.device), videos, hidden)

    def begin():
        if learner.done == 0:
            pictures = learner.pictures()  # nothing may copy while a graph is captured
            observed = pictures.get("observed", pictures.get("mean")).cpu().numpy()
            run.in_background(lambda: utils.save_frames(run.folder / "observed_sequence", observed))

    def outputs(moving, last):
        epoch, pictures = learner.done, learner.pictures()
        return lambda: save_outputs(args, learner, run, epoch, {name: x.cpu().numpy() for name, x in pictures.items()},
                                    videos, hidden, moving, last)

    quick = args.device.type != "cpu" or (args.preset == "quality" and max(args.im_size) <= 64)
    about += f"\nsampling in {learner.precision}, {learner.chunk} videos at once"
    fit(learner, run, outputs, total=args.num_epochs, log_step=args.log_step, shown=SHOWN, begin=begin, page=write_page,
        header=about, shorter=None if quick else "-im_size 64 -preset quality takes minutes")


def make_learner(args, f, state, videos, hidden):
    """The Learner of a run that begins, or goes on from the checkpoint `state`."""
    if state is None:
        chunk = args.chunk or pick_chunk(f, f.size, args.batch_size + args.num_chain, args.device)
        precision = args.precision
        if precision == "auto":
            precision = pick_precision(f, some_frames(videos, args.device, fixed_axes(args.net_type)[0]))
        state = {"precision": precision, "chunk": chunk} | first_state(
            f, videos, hidden, net_type=args.net_type, reference=args.reference, refsig=args.refsig,
            batch_size=args.batch_size, num_chain=args.num_chain, seed=args.seed)
    return Learner(
        f, state, videos, hidden, num_epochs=args.num_epochs, batch_size=args.batch_size,
        num_chain=args.num_chain, sample_steps=args.sample_steps, step_size=args.step_size, lr=args.lr,
        anneal=args.anneal, beta1=args.beta1, seed=args.seed, log_step=args.log_step, settings=settings_of(args))


def main(argv=None):
    args, given = parse(argv)
    return run_program(lambda: sample_learned(args, given) if args.test else learn(args), InputError)


if __name__ == "__main__":
    sys.exit(main())
