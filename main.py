"""STGConvNet: learn a dynamic pattern from videos and synthesise new ones, by analysis by synthesis.

Xie, Zhu, Wu, "Synthesizing Dynamic Patterns by Spatial-Temporal Generative ConvNet", CVPR 2017. Algorithm 1 (learning
from complete videos) and Algorithm 2 (hidden pixels) are `Learner.learn`; model.py has the nets and the glossary.
"""

import math
import sys
import time

import torch

import utils
from data import InputError, to_tensor
from fast.device import prepare
from fast.gradient import FastGradient
from fast.graph import FastLangevin
from judge.page import write_page
from model import descriptor
from recover import load_recovery
from reference import load_reference
from run import ranks
from run.adam import Adam, learning_rate
from run.flags import RunError, Spoilt, listed, run_program
from run.folder import Elsewhere, Run, start_from
from run.loop import fit
from sample import sample_learned
from stg.chains import Chains
from stg.inputs import read
from stg.outputs import FILMS, ROWS, judge_of, save_outputs
from stg.settings import CHANGEABLE, parse, settings_of
from stg.start import first_state, how_to_compute
from stg.tally import Tally

SHOWN = ("gap", "chain_std")  # metrics on the progress bar
LOST = 20  # epochs without a gradient at the chains, after which they are not expected back


# -------------------------------------------------------------------------------------------------------- learning


class Learner:
    """The state of learning, and one epoch of it: `learn`, then `commit`.

    f: descriptor; reference: q; I: observed videos, less the reference's mean, as mini-batches (N, 3, T, H, W); clips:
    which of their rows this process counts; chains: y, whose videos J are reference.video(y); done: epochs; recovery:
    what Algorithm 2 keeps where pixels are hidden, or None; lost: epochs for which f has had no gradient at the chains.
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
        chains, pulls, weights, moments = (state.pop(name, None) for name in ("chains", "pulls", "net", "optimizer"))
        state = ranks.on(state, self.device)
        self.reference, self.optimizer = load_reference(state), Adam(f.parameters(), lr, beta1)
        f.load_state_dict(weights)
        if moments:
            self.optimizer.load_state_dict(moments)
        if hidden is None or ranks.rank():  # the first process alone moves hidden pixels
            I = to_tensor(videos).to(self.device) - self.reference.mean
            self.I, self.recovery = list(I.split(batch_size)), None
        else:
            self.recovery = load_recovery(state["recovered"], hidden, self.reference.mean, batch_size)
            self.I = self.recovery.I
        self.clips = (ranks.shares([len(I) for I in self.I], ranks.world() - 1 - ranks.rank()) if hidden is None else
                      [slice(0, 0 if ranks.rank() else len(I)) for I in self.I])  # those of its rows that count here
        self.chains = Chains(chains, pulls, f, self.reference, [num_chain] * len(self.I), self.chunk,
                             lambda b: noise(self.device, seed, 0, "start", b, num_chain))
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
        due = self.judged and (self.done + 1) % self.log_step == 0
        I_new, seconds, all_move = [], 0.0, self.chains.rested()
        tally = Tally(self.f, self.reference, len(self.I), torch.cat(self.I) if due else None)
        for b, I in enumerate(self.I):
            begun = time.perf_counter()
            self.chains.move(b, self.synthesis)  # synthesis: all pixels move
            tally.tilt = self.chains.pull(b)
            seconds += time.perf_counter() - begun
            if self.recovery:  # recovery: hidden pixels move
                I = self.recovery.move(b, I, self.slopes, self.langevin, self.delta(), self.reference.share,
                                       self.noise("I", b, self.batch_size))
            self.backward_gap(b, I, self.chains.y[b], tally)
            I_new.append(I)
        self.found = I_new, tally, seconds / (len(self.I) * self.sample_steps) if all_move else None

    def synthesis(self, b, rows, y):
        """The chains y, those rows of mini-batch b, after Langevin steps, and the rms of df/dy at the first of them."""
        y = self.langevin(y, self.delta(), self.noise("J", b, self.num_chain)[rows])
        self.check_finite(RunError, chain_mean=y.mean().item())
        return y, self.tilt.item()

    def slopes(self, I):
        """df/dI of clips, a chunk at a time."""
        return torch.cat([self.gradient(part) for part in I.split(self.chunk)])

    def commit(self):
        """The epoch's step of Adam, by what all processes have found. Returns its metrics."""
        I, tally, seconds = self.found
        tally.join([p.grad for p in self.f.parameters()])
        metrics = ranks.first(lambda: self.metrics(I, tally, seconds))
        self.I = I
        self.chains.rest()
        self.optimizer.step(self.rate() * self.reference.balance(tally.motion()))
        self.done += 1
        if self.recovery:
            self.recovery.update(self.I, self.done)
        return metrics

    def undo(self):
        """Nothing: `learn` goes on with the chains that have yet to move; what else it has found, it finds again."""

    def rate(self):
        """The learning rate of this epoch."""
        return learning_rate(self.lr, self.anneal, self.done, self.num_epochs)

    def delta(self):
        """The step size of this epoch."""
        return self.reference.step_size(self.step_size, self.rate() / self.lr)

    def noise(self, kind, batch, count):
        """This epoch's noise: a generator for each video of a mini-batch, that no other video or epoch ever has."""
        return noise(self.device, self.seed, self.done, kind, batch, count)

    def backward_gap(self, b, I, y, tally):
        """Add this process's part of the gradient of gap / number of mini-batches, which is H_syn - H_obs (equation 9),
        where I and y are mini-batch b; tally gets what f says of them."""
        clips = I[self.clips[b]]
        for k in range(0, len(clips) + len(y), self.chunk):
            x, z = clips[k : k + self.chunk], y[max(k - len(clips), 0) : max(k + self.chunk - len(clips), 0)]
            J = self.reference.video(z.to(self.device)) if len(z) else x[:0]
            weights = torch.cat([x.new_full((len(x),), -1 / len(I)), x.new_full((len(J),), 1 / self.num_chain)])
            top = self.f.features(torch.cat([videos for videos in (x, J) if len(videos)]))
            value = top.flatten(1).sum(1)
            (value * (weights / len(self.I))).sum().backward()
            tally.add(b, value.detach().split([len(x), len(J)]), J, (top.detach() > 0).sum((0, 2, 3, 4)))

    def metrics(self, I, tally, seconds):
        """What diagnoses an energy-based model, as plain numbers by name; None where this epoch has no figure."""
        f_I, f_J, alive = tally.values([len(clips) for clips in I], self.num_chain)
        numbers = {
            "f_obs": f_I,
            "f_syn": f_J,
            "gap": f_J - f_I,
            "drift_to_noise": self.delta() / 2 * tally.tilt,  # rms of (delta^2 / 2) df/dy against that of delta Z
            **tally.levels(),
            "recon_err": (tally.video / tally.rows() - sum(x.sum(0) for x in I) / sum(map(len, I))).square().mean(),
            "alive": alive,
        }
        for k, layer in enumerate(self.f.layers, start=1):
            numbers[f"grad_norm_{k}"] = sum(p.grad.square().sum() for p in layer.parameters()).sqrt()
        numbers = {name: float(value) for name, value in numbers.items()}
        numbers |= tally.quick() if self.judged else {}
        self.check(numbers)
        return numbers | {"seconds_per_step": seconds}

    def check(self, metrics):
        """Stop a run that has diverged or died: what was saved last is its last good state."""
        epoch = self.done + 1
        self.check_finite(Spoilt, **metrics)
        self.lost = self.lost + 1 if metrics["drift_to_noise"] == 0 else 0
        if self.lost == LOST:
            raise Spoilt(f"the chains have left the model in epoch {epoch}: f has no gradient there; "
                         "start anew with a lower -lr or -step_size, or with -anneal")
        if metrics["alive"] == 0:
            raise Spoilt(f"all units of the top layer are dead in epoch {epoch}: f is 0 everywhere, "
                           "nothing is learned any more; lower -lr or change -seed")

    def check_finite(self, error, **metrics):
        """Stop a run that has diverged, by this error."""
        for name, value in metrics.items():
            if value is not None and not math.isfinite(value):
                raise error(f"diverged in epoch {self.done + 1}: {name} is {value}; lower -lr or -step_size")

    def state(self):
        """All that a resumed run needs, as plain types and tensors."""
        return {
            "net": self.f.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            **self.chains.state(),
            "recovered": self.recovery and self.recovery.state(),
            "epoch": self.done,
            "reference": self.reference.state(),
            "precision": self.precision,
            "chunk": self.chunk,
            "settings": self.settings,
        }

    def observed(self):
        """The observed videos or, where pixels are hidden, the mean of samples and one sample of them: as uint8
        (N, T, H, W, 3) on the device, by name."""
        videos = {"observed": self.I}
        if self.recovery:
            videos = {"mean": self.recovery.mean(self.reference.share), "sample": self.recovery.sample()}
        return {name: utils.quantized(torch.cat(x) + self.reference.mean) for name, x in videos.items()}


def noise(device, seed, epoch, kind, batch, count):
    """Generators of the videos of mini-batch number `batch`, `count` to each."""
    return [utils.generator(device, seed, epoch, kind, k) for k in range(batch * count, (batch + 1) * count)]


# ---------------------------------------------------------------------------------------------------------- a run


def learn(args):
    """Learn from a category's clips; the newest state and pictures are in output_dir/category."""
    args.device = ranks.start(args.device)
    prepare(args.device)
    torch.manual_seed(args.seed)
    with torch.device("meta"):  # which has shapes, but no memory
        outline = descriptor(args.net_type, args.num_frames, args.im_size)
    videos, hidden, inputs, about = ranks.first(lambda: read(args, outline))
    if args.dry_run:
        return print(about, *listed(settings_of(args)), sep="\n")
    f = descriptor(args.net_type, args.num_frames, args.im_size).to(args.device)
    folder, settings = f"{args.output_dir}/{args.category}", settings_of(args)

    def opened():
        start_from(args.ckpt, folder, args.overwrite, "cpu", net=f)
        return Run(folder, settings, CHANGEABLE, args.overwrite, inputs=inputs)

    run = ranks.first(opened, tell=False) or Elsewhere(folder)
    learner = make_learner(args, f, ranks.first(lambda: run.load_checkpoint("cpu"), tell=False), videos, hidden)
    judge = judge_of(args, f, videos, hidden)

    def begin():
        if learner.done == 0:
            pictures = learner.observed()  # nothing may copy while a graph is captured
            observed = pictures.get("observed", pictures.get("mean")).cpu().numpy()
            run.in_background(lambda: utils.save_frames(run.folder / "observed_sequence", observed))
        if args.device.type != "cpu":  # while a GPU learns, the CPU has time
            run.in_background(judge.prepare)

    def outputs(moving, last):
        pictures = learner.observed() | {"chain": learner.chains.shown(FILMS if moving else ROWS)}
        epoch, pictures = learner.done, {name: x.cpu().numpy() for name, x in pictures.items()}
        return lambda: save_outputs(judge, learner, run, epoch, pictures, videos, hidden, moving, last)

    quick = args.device.type != "cpu" or (args.preset == "quality" and max(args.im_size) <= 64)
    fused = ", by Triton's kernels" if utils.triton_works(args.device) else ""
    about += f"\nsampling in {learner.precision}, {learner.chunk} videos at once{fused}"
    fit(learner, run, outputs, total=args.num_epochs, log_step=args.log_step, shown=SHOWN, begin=begin, page=write_page,
        header=about, shorter=None if quick else "-im_size 64 -preset quality takes minutes")


def make_learner(args, f, state, videos, hidden):
    """The Learner of a run that begins, or goes on from the checkpoint `state`."""
    def ready():
        """What the other processes need of the state, too."""
        nonlocal state
        if state is None:
            state = how_to_compute(args, f, videos, hidden) | first_state(
                f, videos, hidden, net_type=args.net_type, reference=args.reference, refsig=args.refsig,
                batch_size=args.batch_size, seed=args.seed)
        return {name: value for name, value in state.items() if name not in ("chains", "pulls", "recovered")}

    told = ranks.first(ready)
    return Learner(
        f, (state or {}) | told, videos, hidden, num_epochs=args.num_epochs, batch_size=args.batch_size,
        num_chain=args.num_chain, sample_steps=args.sample_steps, step_size=args.step_size, lr=args.lr,
        anneal=args.anneal, beta1=args.beta1, seed=args.seed, log_step=args.log_step, settings=settings_of(args))


def main(argv=None):
    args, given = parse(argv)
    return run_program(lambda: sample_learned(args, given) if args.test else learn(args), InputError, not args.test)


if __name__ == "__main__":
    sys.exit(main())
