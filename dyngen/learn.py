"""Dynamic generator: learn how a state moves and how it looks, and generate new videos of any length.

Xie, Gao, Zheng, Zhu, Wu, "Learning Dynamic Generator Model by Alternating Back-Propagation Through Time", AAAI 2019.
`Learner.learn_chunk` is the paper's algorithm: Langevin inference of everything unknown, then one step of the weights,
both by back-propagation through time. nets.py has the nets and the glossary.
"""

import copy
import itertools
import math
import time
from pathlib import Path

import numpy as np
import torch

import data
import utils
from dyngen.generate import asked_for, build_net, check_content, grey, new_videos, replayed_videos, slices, unit
from dyngen.nets import layer_table, memory_per_frame
from dyngen.settings import settings_of
from dyngen.start import start
from fast.device import available_memory, prepare
from judge.fillings import interpolate_field
from judge.page import write_page
from judge.pictures import draw_texture_report
from judge.tables import in_pieces, recovery_report, save_report, set_report, texture_report
from langevin import gaussian_, langevin
from run import ranks
from run.adam import Adam, learning_rate
from run.flags import RunError, listed
from run.folder import Elsewhere, Run, start_from
from run.inputs import check_memory, inputs_of
from run.loop import fit, together

# Settings that a resumed run may change; all others decide the result.
CHANGEABLE = ("num_epochs", "lr", "anneal", "log_step", "keep", "device", "data_path", "mask_path", "output_dir",
              "readout", "init_state", "burn_in", "content", "num_sections_in_test", "num_batches_in_test", "fps")
MEMORY = 50  # epochs over which recovered clips are averaged
SHOWN = 4  # clips of each kind on a contact sheet


def released_mask(mask_type, num_frames, im_size, rng):
    """The masks that the released code draws itself, which are not the paper's, bool (T, H, W).

    missingFrames: the middle third of the frames, one block. randomRegion: in every frame 53 of the 81 blocks of 16x16
    pixels that fit into 150 px (so that the last 6 rows and columns are never hidden), and the same share at other
    sizes. InputError if that hides nothing.
    """
    mask = np.zeros((num_frames, *im_size), dtype=bool)
    if mask_type == "missingFrames":
        mask[math.ceil(num_frames / 3) : math.ceil(2 * num_frames / 3)] = True
        return data.hiding(mask, mask_type)
    rows, columns = im_size[0] // 16, im_size[1] // 16
    for frame in mask:
        hidden = rng.permutation(rows * columns) < round(53 / 81 * rows * columns)
        frame[: 16 * rows, : 16 * columns] = hidden.reshape(rows, columns).repeat(16, axis=0).repeat(16, axis=1)
    return data.hiding(mask, mask_type)


def load(*, data_path, category, num_frames, im_size, encoder, mask_type, mask_file, mask_path, seed, start, step):
    """The clips uint8 (N, T, H, W, 3), which of their pixels are hidden, bool (N, T, H, W) or None, the Records of the
    clips, and of what else was read.

    For an encoder, each clip is cut into all the windows of num_frames frames that it holds, to learn from the first of
    each.
    """
    size = (im_size, im_size)
    if encoder:
        videos, records = load_windows(data_path, category, num_frames, size, start, step)
        return videos, None, records, []
    videos, records = data.read_category(data_path, category, num_frames, size, start, step)
    if mask_type == "none":
        return videos, None, records, []
    if mask_type == "external":
        path = Path(mask_path) / category / mask_file
        path = path if path.exists() and not Path(mask_file).exists() else mask_file
        mask, record = data.read_recorded_mask(path, num_frames, size, records[0].first, step)
        return videos, np.stack([mask] * len(videos)), records, [record]
    rng = np.random.default_rng(seed)
    draw = data.draw_mask if mask_type in data.MASK_TYPES else released_mask
    return videos, np.stack([draw(mask_type, num_frames, size, rng) for _ in videos]), records, []


def load_windows(data_path, category, num_frames, size, start, step):
    """All windows of num_frames frames of a category's clips, uint8 (N, T, H, W, 3), and the Records of the clips."""
    windows, records = [], []
    for path in data.list_clips(data.category_folder(data_path, category)):
        clip, record = data.examined(*data.read(path, None, size, start=start, step=step))
        whole = len(clip) // num_frames
        windows.append(clip[: whole * num_frames].reshape(whole, num_frames, *clip.shape[1:]))
        record.note(f"{whole} windows")
        records.append(record)
    if not any(map(len, windows)):
        raise data.InputError(f"no clip of '{category}' has {num_frames} frames: lower -num_frames")
    return windows[0] if len(windows) == 1 else np.concatenate(windows), records


def pack(latents):
    """Latents by name, each (N, ...), as one tensor (N, D), which langevin.py can move."""
    return torch.cat([u.flatten(1) for u in latents.values()], dim=1)


def unpack(u, like):
    """The inverse of `pack`: u (N, D) as latents with the names and shapes of `like`."""
    parts = u.split([v.shape[1:].numel() for v in like.values()], dim=1)
    return {name: part.reshape(v.shape) for (name, v), part in zip(like.items(), parts, strict=True)}


def squared_error(x, I, visible):
    """Sum over visible entries of (I - x)^2."""
    error = (I - x).square()
    return error.sum() if visible is None else (error * visible).sum()


def count_entries(I, visible):
    """How many entries of I (N, 3, T, H, W) are visible."""
    return I.numel() if visible is None else 3 * int(visible.sum())


def likelihood_weight(I, visible, scale):
    """What a chunk's log likelihood is multiplied by: 1 for 'sum', the paper's posterior; for 'mean', as released,
    1 / (N T), or 1 / number of visible entries where pixels are hidden, of all processes' clips."""
    if scale == "sum":
        return 1.0
    count = ranks.total(I.shape[0] * I.shape[2] if visible is None else count_entries(I, visible))
    return 1 / max(count, 1)


def rms(x):
    """The root mean square of the entries of all processes' x."""
    squares, count = x.square().sum(), ranks.total(x.numel())
    ranks.sum_([squares])
    return (squares / count).sqrt().item()


class Learner:
    """The state of learning, and one epoch of it: `learn`, then `commit`, or `undo`.

    Of several processes each has its rows of every mini-batch, and all have the same nets.

    net: F, G and perhaps E; clips: which ones are here, all of one process; I: observed videos (N, 3, T, H, W) in
    [-1, 1], 0 (mid-grey) where hidden; visible: 1 where a pixel is seen, 0 where not (N, 1, T, H, W), or None; truth: I
    with its hidden pixels, for the score alone, or None; latents: the current sample of all that is unknown, by the
    names of the net's arguments: xi (N, T, dim xi), s = s_0, a and m (N, dim); J: the videos that the last epoch drew,
    each chunk before its step; average: J over the last epochs, where pixels are hidden; done: epochs; before: `own`
    before an epoch that is not committed yet.
    """

    def __init__(self, net, state, videos, hidden, *, judged, num_epochs, batch_size, chunk, likelihood_scale, refsig,
                 sample_steps, step_size, precision, lr, anneal, beta1, seed, settings):
        """state: a checkpoint's, or None for a new run; videos uint8 (N, T, H, W, 3), hidden bool (N, T, H, W) or None;
        judged: whether hidden pixels have a truth; chunk: frames; settings: plain types by name, for checkpoints.
        Everything else is as its flag."""
        self.net, self.device, self.done, self.before = net, next(net.parameters()).device, 0, None
        self.num_epochs, self.likelihood_scale, self.refsig = num_epochs, likelihood_scale, refsig
        self.sample_steps, self.step_size, self.precision = sample_steps, step_size, precision
        self.lr, self.anneal, self.seed, self.settings = lr, anneal, seed, settings
        self.optimizer = Adam(net.parameters(), lr, beta1)
        self.count, t = videos.shape[:2]
        rows = [range(self.count)[b] for b in slices(self.count, batch_size)]
        rows = [batch[ranks.shares([len(batch)])[0]] for batch in rows]
        self.clips, ends = [k for batch in rows for k in batch], itertools.accumulate(map(len, rows), initial=0)
        self.batches, self.chunks = [slice(*pair) for pair in itertools.pairwise(ends)], slices(t, chunk)
        self.I, self.visible, self.truth, self.average = unit(videos[self.clips]).to(self.device), None, None, None
        if hidden is not None:
            hidden = torch.from_numpy(hidden[self.clips])[:, None].to(self.device)
            self.truth = self.I if judged else None
            self.I, self.visible = self.I.masked_fill(hidden, 0), (~hidden).float()
            self.average = torch.zeros_like(self.I)
        self.J = torch.zeros_like(self.I)
        if state:
            mine = {name: u[self.clips].to(self.device) for name, u in state["latents"].items()}
            average = None if state["average"] is None else state["average"][self.clips].to(self.device)
            self.restore(state | {"latents": mine, "average": average})
        else:
            motion_size, xi_size, state_size = net.transition.inputs
            sizes = {"xi": (t, xi_size), "s": (state_size,), "a": (net.content_size,), "m": (motion_size,)}
            self.latents = {
                name: gaussian_(torch.empty(len(self.clips), *size, device=self.device),
                                self.generators(name, self.clips))
                for name, size in sizes.items()
            }

    def generators(self, kind, clips):
        """The noise of this epoch: a generator for each clip, of its own for ever."""
        return [utils.generator(self.device, self.seed, self.done, kind, k) for k in clips]

    def whole(self, x):
        """All processes' clips in their order, of a tensor (N, ...) that has those of this one, or of several by name;
        None of None."""
        if isinstance(x, dict):
            return {name: self.whole(u) for name, u in x.items()}
        return x if x is None else ranks.gathered(x, self.clips, self.count)

    def log_likelihood(self, x, I, visible):
        """log p(I | x) of a chunk, but for a constant: -(weight / 2 sigma^2) sum (I - x)^2 over visible entries."""
        weight = likelihood_weight(I, visible, self.likelihood_scale)
        return -weight / (2 * self.refsig**2) * squared_error(x, I, visible)

    def score(self, u, like, known, I, visible):
        """Gradient of the log joint with respect to all unknowns of a chunk, u (N, D) packed as `like`: through G and,
        back in time, through F. Every unknown has the prior N(0, 1).

        Differs from upstream: these are the nets that are learned; there, F is a second, random net.
        """
        u = u.detach().requires_grad_()
        with together(), torch.enable_grad():
            x, _ = self.net(**unpack(u, like), **known, low=self.precision == "bf16", together=True)
            g = torch.autograd.grad(self.log_likelihood(x, I, visible), u)[0]
        self.likelihood_gradient = g.detach().clone()  # for the log
        return g.sub_(u.detach())

    def learn_chunk(self, rows, frames, s):
        """Inference and one learning step, for the clips `rows` in a chunk of `frames` that starts from the state s
        (N, dim s), a constant, or where s is None from the unknown s_0. Returns the state it ends with, and metrics."""
        I, visible = self.I[rows, :, frames], None if self.visible is None else self.visible[rows, :, frames]
        known = {} if s is None else {"s": s}
        if self.net.encoder:  # content and s_0 come from the clip's first frame
            a, s_0 = self.net.encoder(self.I[rows, :, 0])
            known = {"a": a, "s": s_0, "m": self.latents["m"][rows]} | known
        unknown = {name: u[rows, frames] if name == "xi" else u[rows] for name, u in self.latents.items()
                   if name not in known}

        # 1. inference: Langevin steps on everything unknown, at once
        begun = time.perf_counter()
        constant = {name: u.detach() for name, u in known.items()}
        noise = self.generators(("chunk", frames.start), self.clips[rows])
        u = langevin(pack(unknown), lambda u: self.score(u, unknown, constant, I, visible), self.sample_steps,
                     self.step_size, noise)
        seconds = (time.perf_counter() - begun) / self.sample_steps

        # 2. learning: one step of Adam on the weights of all nets
        latents = unpack(u, unknown) | known
        with together():
            x, states = self.net(**latents, together=True)
            loss = -self.log_likelihood(x, I, visible)
            self.optimizer.zero_grad()
            loss.backward()
            ranks.sum_([*(p.grad for p in self.net.parameters()), loss.detach()])
            gradients = unpack(self.likelihood_gradient, unknown)
            metrics = {f"gradient_{name}": rms(g) for name, g in gradients.items() if g.shape[1:].numel()}
            metrics |= {"seconds_per_step": seconds, "loss": loss.item(),
                        "likelihood_weight": likelihood_weight(I, visible, self.likelihood_scale)}
            for name, net in self.net.named_children():
                metrics[f"grad_norm_{name}"] = sum(p.grad.square().sum() for p in net.parameters()).sqrt().item()
            for name, value in metrics.items():
                if not math.isfinite(value):
                    raise RunError(f"diverged in epoch {self.done + 1}: {name} is {value}; lower -step_size or -lr")
            self.optimizer.step(learning_rate(self.lr, self.anneal, self.done, self.num_epochs))

        self.J[rows, :, frames] = x.detach()
        for name, u in latents.items():
            if name == "xi":
                self.latents[name][rows, frames] = u
            elif name in unknown or s is None:
                self.latents[name][rows] = u.detach()
        return states[:, -1].detach(), metrics

    def learn(self):
        """One epoch: every chunk of every mini-batch."""
        with together(ranks.PATIENCE):  # the first process may be writing
            self.before, self.chunk_metrics = copy.deepcopy(self.own()), []
        for rows in self.batches:
            s = None
            for frames in self.chunks:
                s, metrics = self.learn_chunk(rows, frames, s)
                self.chunk_metrics.append(metrics)

    def commit(self):
        """Count the epoch. Returns its metrics, means over the chunks."""
        self.done, self.before = self.done + 1, None
        if self.visible is not None:
            self.average = torch.lerp(self.average, self.J, 1 / min(self.done, MEMORY))
        names = dict.fromkeys(name for metrics in self.chunk_metrics for name in metrics)
        found = {name: [metrics[name] for metrics in self.chunk_metrics if name in metrics] for name in names}
        return self.metrics() | {name: sum(values) / len(values) for name, values in found.items()}

    def undo(self):
        """Back to the state before an epoch that is not counted yet."""
        if self.before is not None:
            self.restore(self.before)
            self.before = None

    def metrics(self):
        """What the epoch has come to: errors of the videos that it generated, and the spread of what it inferred."""
        error, count = squared_error(self.J, self.I, self.visible).item(), count_entries(self.I, self.visible)
        mse = ranks.total(error) / max(ranks.total(count), 1)
        numbers = {"psnr": 10 * math.log10(4 / max(mse, 1e-12))}  # visible entries, whose range is 2
        numbers |= {f"std_{name}": u.std().item() for name, u in self.whole(self.latents).items() if u.numel() > 1}
        if self.truth is not None:
            numbers |= {"recovery_error": self.recovery_error(self.J),
                        "recovery_error_mean": self.recovery_error(self.average)}
        return numbers

    def recovery_error(self, J):
        """Mean absolute error on hidden pixels, in grey levels 0-255."""
        hidden = 1 - self.visible
        error, count = ((J - self.truth).abs() * hidden).sum().item(), 3 * hidden.sum().item()
        return ranks.total(error) * 127.5 / max(ranks.total(count), 1)

    def own(self):
        """What an epoch changes, of this process's clips."""
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "latents": self.latents,
            "average": self.average,
            "epoch": self.done,
        }

    def state(self):
        """All that a resumed run needs, of all processes' clips, as plain types and tensors."""
        whole = {"latents": self.whole(self.latents), "average": self.whole(self.average)}
        return self.own() | whole | {"settings": self.settings}

    def restore(self, state):
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.latents, self.average, self.done = state["latents"], state["average"], state["epoch"]


def read(args, outline):
    """What a run learns from: the clips and which of their pixels are hidden, as `load`, and the Inputs. outline: the
    net, without memory."""
    clips = len(data.list_clips(data.category_folder(args.data_path, args.category)))
    check_memory(memory(args, outline, clips), available_memory(args.device),
                 "use a smaller -im_size, -truncated_backprop_length or -batch_size")
    videos, hidden, *records = load(
        data_path=args.data_path, category=args.category, num_frames=args.num_frames, im_size=args.im_size,
        encoder=args.encoder, mask_type=args.mask_type, mask_file=args.mask_file, mask_path=args.mask_path,
        seed=args.seed, start=args.start_frame, step=args.frame_step)
    check_content(args.content, len(videos), args.content_size)
    ranks.check_rows(min(args.batch_size, len(videos)))
    return videos, hidden, inputs_of(records[0], args.fps, records[1])


def learn(args):
    """Learn from a category's clips; the newest state and pictures are in output_dir/category."""
    args.device = ranks.start(args.device)
    prepare(args.device)
    torch.manual_seed(args.seed)
    with torch.device("meta"):  # which has shapes, but no memory
        outline = build_net(args, "meta")
    videos, hidden, inputs = ranks.first(lambda: read(args, outline))
    settings = settings_of(args)
    about = "\n".join([header(args, outline, len(videos)), *inputs.lines])
    if args.dry_run:
        return print(about, *listed(settings), sep="\n")
    net = build_net(args, args.device)
    folder = f"{args.output_dir}/{args.category}"

    def opened():
        start_from(args.ckpt, folder, args.overwrite, args.device, net=net)
        return Run(folder, settings, CHANGEABLE, args.overwrite, inputs=inputs)

    run = ranks.first(opened, tell=False) or Elsewhere(folder)
    learner = make_learner(args, net, ranks.first(lambda: run.load_checkpoint(args.device)), videos, hidden)

    def begin():
        if learner.done == 0:
            seen = videos if hidden is None else np.where(hidden[..., None], np.uint8(128), videos)
            run.in_background(lambda: utils.save_frames(run.folder / "observed_sequence", seen))

    errors = [] if learner.truth is None else ["recovery_error", "recovery_error_mean"]
    fit(learner, run, lambda moving, last: outputs(args, learner, run, videos, hidden, moving, last),
        total=args.num_epochs, log_step=args.log_step, shown=["psnr", "std_xi", *errors], begin=begin, page=write_page,
        header=f"{about}\n{about_likelihood(learner)}",
        shorter="-num_epochs 300 shows the scene" if args.device.type == "cpu" else None)


def make_learner(args, net, state, videos, hidden):
    """The Learner of a run that begins, or goes on from the checkpoint `state`. With the stationary transition one that
    begins with no other run's weights starts from the clips, hidden pixels as a Gaussian field expects them."""
    learner = Learner(
        net, state, videos, hidden, judged=args.task == "recovery", num_epochs=args.num_epochs,
        batch_size=args.batch_size, chunk=args.truncated_backprop_length, likelihood_scale=args.likelihood_scale,
        refsig=args.refsig, sample_steps=args.sample_steps, step_size=args.step_size, precision=args.precision,
        lr=args.lr, anneal=args.anneal, beta1=args.beta1, seed=args.seed, settings=settings_of(args))
    if args.dynamic_mode == "stationary" and state is None and args.ckpt is None:
        def begun():
            filled = videos if hidden is None else np.stack([interpolate_field(*pair) for pair in zip(videos, hidden)])
            return start(net, unit(filled))

        found = ranks.first(begun)
        learner.latents |= {name: u[learner.clips].to(args.device) for name, u in found.items()}
    ranks.alike(net)
    return learner


def pictures(args, learner, videos):
    """What the run has come to: the name of its results, these, and what to see beside them, as name -> videos; all
    videos are uint8 (N, T, H, W, 3). None in processes other than the first."""
    net = learner.net
    latents, I, visible, average = map(learner.whole, (learner.latents, learner.I, learner.visible, learner.average))
    if ranks.rank():
        return None
    inferred = replayed_videos(net, latents, batch_size=args.batch_size, chunk=args.truncated_backprop_length)
    if visible is None:
        new = [new_videos(net, latents, batch, **asked_for(args)) for batch in range(args.num_batches_in_test)]
        return "synthesized", grey(torch.cat(new)), {"observed": videos, "inferred": grey(inferred)}
    recovered = torch.where(visible > 0, I, average if args.readout == "mean" else inferred)
    return "recovered", grey(recovered), {"observed": videos, "masked": grey(I)}


def outputs(args, learner, run, videos, hidden, moving, last):
    """A function that writes what there is to see of the clips, uint8 (N, T, H, W, 3), and what came of them."""
    epoch, found = learner.done, pictures(args, learner, videos)
    if found is None:
        return None
    name, results, others = found
    moments = np.arange(results.shape[1])  # shorter videos begin again
    beside = {f"{kind}_{k}": video for kind, shown in others.items() for k, video in enumerate(shown[:SHOWN])}
    sheet = {film.replace("_", " "): video[moments % len(video)] for film, video in beside.items()}
    sheet |= {f"{name} {k}": video for k, video in enumerate(results[:SHOWN])}

    def write():
        run.log_pictures(epoch, list(sheet.values()), list(sheet), moving)
        if moving:
            utils.save_videos(run.folder, name, results, beside, run.inputs.rate)
        if last:
            judge(args, run.folder, results, videos, hidden)

    return write


def judge(args, folder, results, videos, hidden):
    """The tables that judge a run. New videos are judged in pieces as long as the clips (not by an encoder's windows):
    those of later frames show whether they decay. One clip has a linear dynamical system with a state of the same size
    beside it. Recovered pixels are judged where the truth is known. All videos are uint8 (N, T, H, W, 3)."""
    try:
        if args.task == "recovery" and hidden is not None and hidden.any():
            name, rows = "recovery", recovery_report(videos, {"recovered": results}, hidden)
        elif hidden is None and results.shape[1] >= args.num_frames and not (args.encoder and len(videos) > 1):
            name, pieces = "evaluation", in_pieces(results, args.num_frames)
            rows, portraits = (texture_report(pieces, videos[0], lds=args.state_size) if len(videos) == 1
                               else set_report(pieces, videos))
            draw_texture_report(folder / "evaluation.png", portraits)
        else:
            return
    except data.InputError as error:  # a clip that does not move, say
        return print(f"not judged: {error}")
    save_report(folder, name, rows, settings_of(args))


def memory(args, net, clips):
    """Bytes that a run of so many clips takes in each process."""
    most, clips = (-(-n // ranks.world()) for n in (min(args.batch_size, clips), clips))
    return (16 * sum(p.numel() for p in net.parameters())
            + most * args.truncated_backprop_length * memory_per_frame(net)
            + 40 * clips * args.num_frames * args.im_size**2)


def header(args, net, clips):
    """What will run: clips, nets, device, memory."""
    return "\n".join([
        f"Dynamic generator  {args.task}  '{args.category}': {clips} clip(s), {args.num_frames} frames of "
        f"{args.im_size}x{args.im_size} in chunks of {args.truncated_backprop_length}, {args.batch_size} clip(s) a "
        "mini-batch",
        *layer_table(net),
        f"device {args.device}, {torch.get_num_threads()} threads, torch {torch.__version__}; memory about "
        f"{memory(args, net, clips) / 2**30:.1f} GiB",
    ])


def about_likelihood(learner):
    """How the squared error of the first chunk counts."""
    rows, frames = learner.batches[0], learner.chunks[0]
    visible = None if learner.visible is None else learner.visible[rows, :, frames]
    weight = likelihood_weight(learner.I[rows, :, frames], visible, learner.likelihood_scale)
    return (f"likelihood {learner.likelihood_scale}: {weight:.4g} x squared error / (2 x {learner.refsig}^2) in the "
            "first chunk")
