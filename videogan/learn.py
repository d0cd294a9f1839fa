"""VideoGAN: learn to generate short scenes, a moving foreground over a still background, from many clips.

Vondrick, Pirsiavash, Torralba, "Generating Videos with Scene Dynamics", NIPS 2016. `Learner.commit` is one step of
the discriminator and one of the generator; nets.py has the nets and the glossary.
"""

import copy
import math
import os
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from fast.device import available_memory, prepare
from judge.page import write_page
from judge.tables import save_report, window_report
from run import ranks
from run.adam import Adam
from run.flags import Spoilt, listed
from run.folder import Elsewhere, Run, load_checkpoint, load_weights, start_from
from run.inputs import check_memory
from run.loop import fit
from utils import save_frames
from videogan.clips import check_bad, collate, first_of, load, order, unit
from videogan.generate import draw, first_frames, generate_scenes, save_scenes
from videogan.nets import (
    FAKE,
    FRAMES,
    LATENT,
    REAL,
    SIZE,
    Discriminator,
    Generator,
    layer_table,
    map_entries,
    synchronise,
)
from videogan.released import load_released
from videogan.settings import settings_of

# Settings that a resumed run may change; all others decide the result.
CHANGEABLE = ("num_iterations", "lr", "average", "sync_batch_norm", "log_step", "keep", "device", "data_path",
              "data_list", "output_dir", "workers", "fps")
LOG_EVERY = 10  # at most: iterations of one row of metrics.csv; only then the device is waited for
SHOWN = ("loss_D", "loss_G", "accuracy_real", "accuracy_fake")  # metrics on the progress bar
SAMPLES = 16  # videos of a fixed z, drawn at each log step
JUDGED = 64  # videos that are compared with those held out, at the end


def build_nets(streams, conditional, spectral, device):
    """G and D, on the device and in the memory order that is fastest there."""
    G, D = Generator(streams, conditional).to(device), Discriminator(conditional, spectral).to(device)
    if device.type == "cuda":
        for layer in (*G.modules(), *D.modules()):
            if isinstance(layer, torch.nn.Conv3d | torch.nn.ConvTranspose3d):
                layer.to(memory_format=torch.channels_last_3d)
    return G, D


def cross_entropy(logits, label):
    """Two-class cross entropy of D's logits (N, 2) against one class for all (released)."""
    return F.cross_entropy(logits, torch.full((len(logits),), label, device=logits.device))


def discriminator_loss(D, real, fake, r1=0.0):
    """Cross entropy on real and on generated videos, summed, and the R1 penalty, weighted by r1 / 2; `fake` lets no
    gradient through. Also D's logits, and the two alone."""
    real = real.detach().requires_grad_(r1 > 0)
    on_real, on_fake = D(real), D(fake.detach())
    entropy = cross_entropy(on_real, REAL) + cross_entropy(on_fake, FAKE)
    penalty = r1_penalty(real, on_real) if r1 else entropy.new_zeros(())
    return entropy + r1 / 2 * penalty, on_real, on_fake, entropy, penalty


def r1_penalty(real, logits):
    """R1 (Mescheder, Geiger, Nowozin, ICML 2018): the squared norm of the gradient, at real videos, of what a
    discriminator of one logit would say; for our two it is their difference."""
    g, = torch.autograd.grad((logits[:, REAL] - logits[:, FAKE]).sum(), real, create_graph=True)
    return g.square().flatten(1).sum(1).mean()


@torch.no_grad()
def average_into(sampler, G, share):
    """Move the weights and running statistics of `sampler` by this share of the way to G's."""
    for mean, now in zip(sampler.state_dict().values(), G.state_dict().values(), strict=True):
        mean.lerp_(now, share) if mean.is_floating_point() else mean.copy_(now)


def generator_loss(D, scene, frame, mask_penalty, frame_weight):
    """How far D is from taking the videos for real (non-saturating), the mask's mean and, where the first frame was
    given, its L1 error, weighted. D's weights get no gradient. Also the three alone."""
    D.requires_grad_(False)  # nor does autocast keep copies of them that D's step would make old
    adversarial = cross_entropy(D(scene.video), REAL)
    D.requires_grad_(True)
    zero = adversarial.new_zeros(())
    mask = zero if scene.mask is None else scene.mask.abs().mean()  # mean, as released; the paper writes the sum
    error = zero if frame is None else (scene.video[:, :, 0] - frame).abs().mean()
    return adversarial + mask_penalty * mask + frame_weight * error, adversarial, mask, error


class Learner:
    """The state of learning and one iteration of it: `learn` gets the real videos, `commit` does a step of D and then
    of G on the same videos.

    G, D: generator and discriminator; sampler: what draws samples, G or its moving average; done: iterations; bad:
    clips that could not be read, by number; fixed: z, or first frames, of the samples that are drawn at each log step;
    recent: the figures since the last row of the log; rows, share: which rows of a mini-batch this process has, and how
    much of it they are.
    """

    def __init__(self, G, D, state, train, fixed, *, conditional, streams, num_iterations, batch_size, mask_penalty,
                 frame_weight, lr, beta1, average, r1, precision, seed, log_step, workers, settings):
        """state: a checkpoint's, or None for a new run; train: the dataset to learn from; settings: plain types by
        name, for checkpoints. Everything else is as its flag."""
        self.G, self.D, self.train, self.fixed, self.done, self.bad = G, D, train, fixed, 0, {}
        self.conditional, self.streams, self.num_iterations, self.seed = conditional, streams, num_iterations, seed
        self.mask_penalty, self.frame_weight, self.precision = mask_penalty, frame_weight, precision
        self.average, self.r1, self.batch_size = average, r1, batch_size
        [rows] = ranks.shares([batch_size])
        self.rows, self.share = rows, (rows.stop - rows.start) / batch_size
        self.log_step, self.settings, self.device = log_step, settings, fixed.device
        self.optimizers = [Adam(net.parameters(), lr, beta1) for net in (G, D)]
        if state:
            load_weights(G, state["G"], "model/latest.pt")
            load_weights(D, state["D"], "model/latest.pt")
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            self.fixed, self.done, self.bad = state["fixed"].to(self.device), state["iteration"], state["bad"]
        self.sampler = copy.deepcopy(G) if average else G
        if average and state:
            self.sampler.load_state_dict(state.get("average") or state["G"])
        batches = (numbers[rows] for numbers in order(len(train), batch_size, seed, self.done))
        self.loader = DataLoader(train, batch_sampler=batches, collate_fn=collate, num_workers=workers,
                                 pin_memory=self.device.type == "cuda", prefetch_factor=4 if workers else None,
                                 worker_init_fn=stand_apart)
        self.batches, self.recent, self.waited, self.begun = None, [], 0.0, time.perf_counter()

    def learn(self):
        """Get this process's next real videos (N, 3, 32, 64, 64) in [-1, 1], which may have to be waited for."""
        begun = time.perf_counter()
        if self.batches is None:  # reading, ahead of the iterations, begins with the first
            self.batches, self.begun = iter(self.loader), begun
        clips, self.unread = next(self.batches)
        self.waited += time.perf_counter() - begun
        self.real = None if clips is None else unit(clips.to(self.device, non_blocking=True))

    def skip(self):
        """Count and name the clips that could not be read, by any process; InputError if there are too many."""
        bad = dict(ranks.joined([*self.unread.items()]))
        new = bad.keys() - self.bad.keys()
        self.bad |= bad

        def tell():
            for k in new:
                print(f"skipped: {bad[k]}", file=sys.stderr)
            check_bad(len(self.bad), len(self.train))

        if new:
            ranks.first(tell)

    def commit(self):
        """One iteration. Returns the metrics of the last LOG_EVERY, or None between.

        Each process has its rows of the mini-batch, and the same nets: they add up gradients, weighted by rows, and the
        running statistics of batch norm."""
        self.skip()
        (optimizer_G, optimizer_D), real = self.optimizers, self.real
        frame = real[:, :, 0].contiguous() if self.conditional else None
        source = frame if self.conditional else draw(self.device, self.seed, self.batch_size, self.done)[self.rows]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            scene = self.G(source)

            # 1. discriminator: real videos against generated ones
            loss_D, on_real, on_fake, entropy, penalty = discriminator_loss(self.D, real, scene.video, self.r1)
            optimizer_D.zero_grad()
            (self.share * loss_D).backward()
            ranks.sum_([p.grad for p in self.D.parameters()])
            optimizer_D.step()

            # 2. generator: the same videos, for the discriminator as it is now
            loss_G, *terms = generator_loss(self.D, scene, frame, self.mask_penalty, self.frame_weight)
            optimizer_G.zero_grad()
            (self.share * loss_G).backward()
            buffers = [x.mul_(self.share) for net in (self.G, self.D) for x in net.buffers() if x.is_floating_point()]
            ranks.sum_([*(p.grad for p in self.G.parameters()), *buffers])
            optimizer_G.step()

        self.done += 1
        if self.average:  # at first the mean of all so far
            average_into(self.sampler, self.G, max(1 - self.average, 1 / self.done))
        with torch.no_grad():
            accuracies = [(on_real.argmax(1) == REAL).float().mean(), (on_fake.argmax(1) == FAKE).float().mean()]
            self.recent.append(torch.stack([entropy / 2, *accuracies, penalty, *terms]))
        if self.done % math.gcd(LOG_EVERY, self.log_step) and self.done != self.num_iterations:
            return None
        metrics = self.metrics()
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise Spoilt(f"diverged in iteration {self.done}: {name} is {value}; lower -lr")
        return metrics

    def undo(self):
        """`learn` reads, and changes no net; `commit` is not interrupted."""

    def metrics(self):
        """Means over the iterations since the last call, as plain numbers by name. loss_D is halved, as released."""
        names = ["loss_D", "accuracy_real", "accuracy_fake", "r1_penalty", "loss_G", "mask_mean", "first_frame_error"]
        means = self.share * torch.stack(self.recent).mean(0)
        ranks.sum_([means])
        numbers = dict(zip(names, means.tolist(), strict=True))
        if not self.r1:
            del numbers["r1_penalty"]
        if self.streams == 1:
            del numbers["mask_mean"]
        if not self.conditional:
            del numbers["first_frame_error"]
        now = time.perf_counter()
        numbers |= {"seconds_per_iteration": (now - self.begun) / len(self.recent),
                    "data_wait": self.waited / (now - self.begun)}  # share of the time
        self.recent, self.waited, self.begun = [], 0.0, now
        return numbers

    def state(self):
        """All that a resumed run needs, as plain types and tensors."""
        return {
            "G": self.G.state_dict(),
            "D": self.D.state_dict(),
            "average": self.sampler.state_dict() if self.average else None,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "fixed": self.fixed,
            "iteration": self.done,
            "bad": self.bad,
            "settings": self.settings,
        }


def stand_apart(worker):
    """Take a process that reads ahead out of the group that torchrun sends its signals to."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)


def learn(args):
    """Learn from a category's clips; the newest state and pictures are in output_dir/category."""
    args.device = ranks.start(args.device)
    prepare(args.device)
    torch.manual_seed(args.seed)
    device = torch.device("meta")  # which has shapes, but no memory
    with device:
        outline = build_nets(args.streams, args.conditional, args.spectral_norm, device)

    def read():
        ranks.check_rows(args.batch_size)
        check_memory(memory(args, *outline), available_memory(args.device), "use a smaller -batch_size")
        return load(
            data_path=args.data_path, data_list=args.data_list, category=args.category, window_step=args.window_step,
            share=args.held_out, start=args.start_frame, step=args.frame_step, fps=args.fps)

    train, held_out, inputs = ranks.first(read)
    about = "\n".join([header(args, outline, train, held_out), *inputs.lines])
    if args.dry_run:
        return print(about, *listed(settings_of(args)), sep="\n")
    nets = build_nets(args.streams, args.conditional, args.spectral_norm, args.device)
    folder = f"{args.output_dir}/{args.category}"

    def opened():
        start_from(args.ckpt, folder, args.overwrite, args.device, load_nets, G=nets[0], D=nets[1])
        return Run(folder, settings_of(args), CHANGEABLE, args.overwrite, "iteration", inputs)

    run = ranks.first(opened, tell=False) or Elsewhere(folder, "iteration")
    state = ranks.first(lambda: run.load_checkpoint(args.device))
    for net in nets:
        ranks.alike(net)
        if args.sync_batch_norm and ranks.world() > 1:
            synchronise(net)
    unseen = ranks.first(lambda: first_of(held_out, JUDGED))
    learner = make_learner(args, nets, state, train, unseen)
    if learner.done == 0 and ranks.rank() == 0:  # not in the background: processes that read ahead are forked
        save_frames(run.folder / "observed_sequence", first_of(train, SAMPLES))
    fit(learner, run, lambda moving, last: outputs(args, learner, run, unseen, moving, last),
        total=args.num_iterations, log_step=args.log_step, shown=SHOWN, header=about, page=write_page,
        shorter="-batch_size 8 -num_iterations 1000 shows the scenes" if args.device.type == "cpu" else None)
    if learner.bad:
        print(f"{len(learner.bad)} of {len(train)} clips could not be read and were skipped")


def load_nets(path, device, *names):
    """The state of a checkpoint, or the weights of the one net that a released model (.t7) holds, by its name."""
    if path.suffix != ".t7":
        return load_checkpoint(path, device, *names)
    net = load_released(path)
    return {"G" if isinstance(net, Generator) else "D": net.state_dict()}


def make_learner(args, nets, state, train, unseen):
    """The Learner of a run that begins, or goes on from the checkpoint `state`; unseen: clips that are held out, uint8
    (N, 32, 64, 64, 3)."""
    if args.conditional:
        fixed = first_frames((unseen if len(unseen) else first_of(train, SAMPLES))[:SAMPLES]).to(args.device)
    else:
        fixed = draw(args.device, args.seed, SAMPLES, "fixed")
    return Learner(
        *nets, state, train, fixed, conditional=args.conditional, streams=args.streams,
        num_iterations=args.num_iterations, batch_size=args.batch_size, mask_penalty=args.mask_penalty,
        frame_weight=args.frame_weight, lr=args.lr, beta1=args.beta1, average=args.average, r1=args.r1,
        precision=args.precision, seed=args.seed, log_step=args.log_step, workers=args.workers,
        settings=settings_of(args))


def outputs(args, learner, run, unseen, moving, last):
    """A function that writes what there is to see."""
    if ranks.rank():  # the first process shows it
        return None
    iteration, scenes = learner.done, generate_scenes(learner.sampler, learner.fixed)

    def write():
        rows = {f"{name} {k}": np.broadcast_to(videos[k], scenes["gen"][k].shape)
                for k in range(2) for name, videos in scenes.items()}
        rows |= {f"gen {k}": video for k, video in enumerate(scenes["gen"][2:6], start=2)}
        run.log_pictures(iteration, list(rows.values()), list(rows), moving)
        if moving:
            save_scenes(run.folder / "final_results", scenes, run.inputs.rate)
        if last:
            judge(args, learner, run.folder, unseen)

    return write


def judge(args, learner, folder, unseen):
    """The table of new videos beside clips that learning did not see."""
    if len(unseen) == 0:
        return print("not judged: no clips are held out (-held_out)")
    source = first_frames(unseen).to(args.device) if args.conditional else draw(args.device, args.seed, JUDGED, "judge")
    samples = generate_scenes(learner.sampler, source)["gen"]
    rows = window_report(samples, unseen, first_of(learner.train, JUDGED))
    save_report(folder, "evaluation", rows, settings_of(args))


def memory(args, G, D):
    """Bytes that a run with these nets takes: weights, gradients and Adam's moments and, for each clip of a mini-batch,
    the maps of G, and of D at real and at generated clips; R1, which goes through D twice, takes half as much again."""
    source = torch.empty(1, 3, SIZE, SIZE) if args.conditional else torch.empty(1, LATENT)
    video = torch.empty(1, 3, FRAMES, SIZE, SIZE, device="meta")
    maps = map_entries(G, source.to("meta")) + 2 * map_entries(D, video) + 6 * video.numel()  # and a scene's parts
    weights = 16 * sum(p.numel() for net in (G, D) for p in net.parameters())
    weights += 4 * sum(p.numel() for p in G.parameters()) * (args.average > 0)
    return weights + 4 * -(-args.batch_size // ranks.world()) * maps * (1.5 if args.r1 else 1)


def header(args, nets, train, held_out):
    """What will run: clips, nets, device, memory."""
    kind = "conditional" if args.conditional else "unconditional"
    return "\n".join([
        f"VideoGAN  {kind}, {args.streams} stream(s)  '{args.category}': {len(train)} clips of {FRAMES} frames of "
        f"{SIZE}x{SIZE}, {len(held_out)} held out, {args.batch_size} a mini-batch",
        *layer_table(nets[0], "G"),
        *layer_table(nets[1], "D"),
        f"device {args.device}, {torch.get_num_threads()} threads, torch {torch.__version__}, {args.precision}; memory "
        f"about {memory(args, *nets) / 2**30:.1f} GiB",
    ])
