"""VideoGAN: learn to generate short scenes, a moving foreground over a still background, from many clips.

Vondrick, Pirsiavash, Torralba, "Generating Videos with Scene Dynamics", NIPS 2016. `Learner.learn_iteration` is one
step of the discriminator and one of the generator; videogan.py has the nets and the glossary.
"""

import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

import data
import utils
from fast.device import prepare
from judge.tables import save_report, window_report
from run.adam import Adam
from run.flags import (
    ArgumentParser,
    RunError,
    add_flag,
    device_name,
    non_negative_int,
    positive_float,
    positive_int,
    run_program,
)
from run.folder import Run, load_checkpoint
from run.loop import fit
from videogan import FAKE, FRAMES, LATENT, REAL, SIZE, Discriminator, Generator, layer_table

# Settings that a resumed run may change; all others decide the result.
CHANGEABLE = ("num_iterations", "log_step", "device", "data_path", "data_list", "output_dir", "workers")
TESTING = ("generate", "ckpt", "sample_size", "image", "overwrite", "dry_run")  # no part of a run
LOG_EVERY = 10  # at most: iterations of one row of metrics.csv; only then the device is waited for
SHOWN = ("loss_D", "loss_G", "accuracy_real", "accuracy_fake")  # metrics on the progress bar
SAMPLES = 16  # videos of a fixed z, drawn at each log step
JUDGED = 64  # videos that are compared with those held out, at the end
BAD_SHARE = 0.1  # of the clips may be unreadable, and are skipped; a run with more of them stops


# ---------------------------------------------------------------------------------------------------- command line


def build_parser():
    parser = ArgumentParser(
        prog="main_videogan.py",
        description="Learn to generate videos of 32 frames of 64x64 pixels from the clips of a category (VideoGAN).",
        epilog="Flags take one dash or two, in full. The same command again resumes an unfinished run.",
    )
    add = add_flag
    group = parser.add_argument_group("data")
    add(group, "category", "beach", "folder below data_path: video files, or strips that its list.txt names")
    add(group, "data_path data_root", "./trainingVideo", "where categories are")
    add(group, "data_list", None, "a list of strips, one path a line, relative to data_path")
    add(group, "window_step", 8, "video files: frames from the start of one window of 32 to the next",
        type=positive_int)
    add(group, "held_out", 0.1, "share of the clips, or of each video's frames at its end (32 or more), that is not "
        "learned from but judges the samples", type=float)
    add(group, "workers", 1, "processes that read clips ahead, 0: none", type=non_negative_int)
    group = parser.add_argument_group("model")
    add(group, "conditional", help="generate from a first frame instead of noise", action="store_true")
    add(group, "streams", "2", "2: foreground, mask and background; 1: foreground alone", choices=("1", "2"))
    group = parser.add_argument_group("learning")
    add(group, "num_iterations", 65000, "iterations, one step of each net", type=positive_int)
    add(group, "batch_size", None, "clips per iteration (default 64, conditional 32)", type=positive_int)
    add(group, "mask_penalty", None, "weight of the mean of the mask (default 0.1, conditional 0)", type=float)
    add(group, "frame_weight", 10.0, "conditional: weight of the first frame's L1 error", type=float)
    add(group, "lr", 0.0002, "learning rate of Adam, both nets", type=positive_float)
    add(group, "beta1", 0.5, "first-moment decay of Adam", type=float)
    add(group, "seed", 0, "seed of all randomness", type=non_negative_int)
    group = parser.add_argument_group("generating with a learned model")
    add(group, "generate", help="write new videos and what they are made of", action="store_true")
    add(group, "ckpt", None, "checkpoint (default the category's model/latest.pt)")
    add(group, "sample_size", 16, "how many videos", type=positive_int)
    add(group, "image", None, "conditional: the first frame, a picture")
    group = parser.add_argument_group("output")
    add(group, "output_dir", "./output_videogan", "a run's outputs go to output_dir/category")
    add(group, "log_step", 100, "iterations between outputs", type=positive_int)
    add(group, "overwrite", help="delete an earlier run of this category first", action="store_true")
    add(group, "dry_run", help="print the settings and the nets, and stop", action="store_true")
    group = parser.add_argument_group("performance")
    add(group, "device", "auto", "auto, cpu, cuda, cuda:1, ...", type=device_name)
    add(group, "precision", "auto", "products: fp32, bf16, auto (bf16 on a GPU)", choices=("auto", "fp32", "bf16"))
    return parser


def parse(argv=None):
    """The settings, checked."""
    parser = build_parser()
    args = parser.parse_args(argv)
    args.streams = int(args.streams)
    args.batch_size = args.batch_size or (32 if args.conditional else 64)
    if args.mask_penalty is None:
        args.mask_penalty = 0.0 if args.conditional else 0.1
    if args.precision == "auto":
        args.precision = "bf16" if args.device.type == "cuda" else "fp32"
    for name, low, high in (("beta1", 0, 1), ("held_out", 0, 0.9), ("mask_penalty", 0, 1e6), ("frame_weight", 0, 1e6)):
        if not low <= getattr(args, name) < high:
            parser.error(f"argument -{name}: {getattr(args, name)} is not in [{low}, {high:g})")
    if args.image and not args.generate:
        parser.error("-image goes with -generate")
    return args


# ------------------------------------------------------------------------------------------------------------ data


class Strips(Dataset):
    """Clips that are stored one a file, as vertical strips; read when they are needed."""

    def __init__(self, paths):
        self.paths = paths

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, k):
        """Clip k, uint8 (32, 64, 64, 3), and what could not be read: by an unreadable file's number what is wrong; the
        next one that can be read takes its place. The clip is None if there is none."""
        bad = {}
        for j in range(k, k + len(self.paths)):
            try:
                return data.read_strip(self.paths[j % len(self.paths)], FRAMES, SIZE), bad
            except data.InputError as error:
                bad[j % len(self.paths)] = str(error)
        return None, bad


class Windows(Dataset):
    """Windows of 32 frames of videos (T, 64, 64, 3), which are kept in memory; `starts`: (video, first frame)."""

    def __init__(self, videos, starts):
        self.videos, self.starts = videos, starts

    def __len__(self):
        return len(self.starts)

    def __getitem__(self, k):
        """Window k, uint8 (32, 64, 64, 3); a shorter video repeats its last frame. All of them can be read."""
        video, start = self.starts[k]
        frames = np.arange(start, start + FRAMES).clip(max=len(self.videos[video]) - 1)
        return self.videos[video][frames], {}


def load(args):
    """The clips to learn from and those held out, two datasets."""
    if args.data_list:
        return split_strips(data.list_strips(args.data_list, args.data_path), args.held_out)
    folder = data.category_folder(args.data_path, args.category)
    if (folder / "list.txt").exists():
        return split_strips(data.list_strips(folder / "list.txt", folder), args.held_out)
    videos, bad = [], []
    for path in data.list_clips(folder):
        try:
            videos.append(data.read_clip(path, None, (SIZE, SIZE)))
        except data.InputError as error:
            bad.append(str(error))
            print(f"skipped: {error}", file=sys.stderr)
    check_bad(len(bad), len(bad) + len(videos))
    train, held_out = [], []
    for v, video in enumerate(videos):
        t = len(video)
        cut = t - max(FRAMES, round(t * args.held_out)) if args.held_out and t >= 3 * FRAMES else t
        train += [(v, start) for start in range(0, max(cut - FRAMES, 0) + 1, args.window_step)]
        held_out += [(v, start) for start in range(cut, t - FRAMES + 1, FRAMES)]
    return Windows(videos, train), Windows(videos, held_out)


def split_strips(paths, share):
    """Every so many strips one is held out."""
    count = round(share * len(paths))
    held_out = {round((k + 0.5) * len(paths) / count) for k in range(count)}
    parts = [p for k, p in enumerate(paths) if k not in held_out], [p for k, p in enumerate(paths) if k in held_out]
    return tuple(map(Strips, parts))


def check_bad(bad, clips):
    """Stop where too many clips cannot be read; what is skipped silently is not what a model learns from."""
    if bad == clips or (bad > 3 and bad > BAD_SHARE * clips):
        raise data.InputError(f"{bad} of {clips} clips cannot be read")


def order(clips, batch_size, seed, iteration):
    """Yield the clips' numbers of every mini-batch from `iteration` on, for ever: each epoch is the set once, in an
    order of its own that depends on the seed alone; a mini-batch may begin in one epoch and end in the next."""
    epoch, skip = divmod(iteration * batch_size, clips)
    numbers = []
    while True:
        shuffled = torch.randperm(clips, generator=utils.generator("cpu", seed, "order", epoch)).tolist()
        numbers += shuffled[skip:]
        epoch, skip = epoch + 1, 0
        while len(numbers) >= batch_size:
            yield numbers[:batch_size]
            numbers = numbers[batch_size:]


def collate(items):
    """Clips as one tensor uint8 (N, 32, 64, 64, 3), those that could be read, and all that could not."""
    clips = [torch.from_numpy(clip) for clip, _ in items if clip is not None]
    bad = {}
    for _, found in items:
        bad |= found
    return torch.stack(clips) if clips else None, bad


def first_of(dataset, count):
    """`count` clips evenly spread over a dataset, uint8 (N, 32, 64, 64, 3)."""
    picked = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)
    clips = [clip for clip, _ in (dataset[int(k)] for k in picked) if clip is not None]
    return np.stack(clips) if clips else np.empty((0, FRAMES, SIZE, SIZE, 3), np.uint8)


def unit(clips):
    """uint8 (N, T, H, W, 3) -> float32 (N, 3, T, H, W) in [-1, 1]."""
    return clips.permute(0, 4, 1, 2, 3).float().div_(127.5).sub_(1)


def grey(videos):
    """The inverse of `unit`; of masks, whose range is [0, 1], three equal channels."""
    if videos.shape[1] == 1:
        videos = 2 * videos.expand(-1, 3, -1, -1, -1) - 1
    return utils.to_uint8((videos + 1) * 127.5)


# -------------------------------------------------------------------------------------------------------- learning


def build_nets(args):
    """G and D, on the device and in the memory order that is fastest there."""
    G, D = Generator(args.streams, args.conditional).to(args.device), Discriminator(args.conditional).to(args.device)
    if args.device.type == "cuda":
        for layer in (*G.modules(), *D.modules()):
            if isinstance(layer, torch.nn.Conv3d | torch.nn.ConvTranspose3d):
                layer.to(memory_format=torch.channels_last_3d)
    return G, D


def cross_entropy(logits, label):
    """Two-class cross entropy of D's logits (N, 2) against one class for all (released)."""
    return F.cross_entropy(logits, torch.full((len(logits),), label, device=logits.device))


def discriminator_loss(D, real, fake):
    """Cross entropy on real and on generated videos, summed; `fake` lets no gradient through. Also D's logits."""
    on_real, on_fake = D(real), D(fake.detach())
    return cross_entropy(on_real, REAL) + cross_entropy(on_fake, FAKE), on_real, on_fake


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

    G, D: generator and discriminator; done: iterations; bad: clips that could not be read, by number;
    fixed: z, or first frames, of the samples that are drawn at each log step.
    """

    def __init__(self, args, train, held_out, nets):
        self.args, self.train, self.done, self.bad = args, train, 0, {}
        self.G, self.D = nets
        self.optimizers = [Adam(net.parameters(), args.lr, args.beta1) for net in nets]
        self.held_out = first_of(held_out, JUDGED)
        self.recent = []
        if args.conditional:
            clips = self.held_out if len(self.held_out) else first_of(train, SAMPLES)
            self.fixed = unit(torch.from_numpy(clips[:SAMPLES]))[:, :, 0].to(args.device)
        else:
            self.fixed = draw(args, SAMPLES, "fixed")

    def start(self):
        """Begin to read clips, ahead of the iterations, from the current one on."""
        args = self.args
        batches = order(len(self.train), args.batch_size, args.seed, self.done)
        loader = DataLoader(self.train, batch_sampler=batches, collate_fn=collate, num_workers=args.workers,
                            pin_memory=args.device.type == "cuda", prefetch_factor=4 if args.workers else None)
        self.batches, self.waited, self.begun = iter(loader), 0.0, time.perf_counter()

    def learn(self):
        """Get the next real videos (N, 3, 32, 64, 64) in [-1, 1], which may have to be waited for."""
        begun = time.perf_counter()
        clips, bad = next(self.batches)
        self.waited += time.perf_counter() - begun
        for k in bad.keys() - self.bad.keys():
            print(f"skipped: {bad[k]}", file=sys.stderr)
        self.bad |= bad
        check_bad(len(self.bad), len(self.train))
        self.real = unit(clips.to(self.args.device, non_blocking=True))

    def commit(self):
        """One iteration. Returns the metrics of the last LOG_EVERY, or None between."""
        args, (optimizer_G, optimizer_D), real = self.args, self.optimizers, self.real
        frame = real[:, :, 0].contiguous() if args.conditional else None
        source = frame if args.conditional else draw(args, len(real), self.done)
        with torch.autocast(args.device.type, torch.bfloat16, enabled=args.precision == "bf16"):
            scene = self.G(source)

            # 1. discriminator: real videos against generated ones
            loss_D, on_real, on_fake = discriminator_loss(self.D, real, scene.video)
            optimizer_D.zero_grad()
            loss_D.backward()
            optimizer_D.step()

            # 2. generator: the same videos, for the discriminator as it is now
            loss_G, *terms = generator_loss(self.D, scene, frame, args.mask_penalty, args.frame_weight)
            optimizer_G.zero_grad()
            loss_G.backward()
            optimizer_G.step()

        self.done += 1
        with torch.no_grad():
            accuracies = [(on_real.argmax(1) == REAL).float().mean(), (on_fake.argmax(1) == FAKE).float().mean()]
            self.recent.append(torch.stack([loss_D / 2, *accuracies, *terms]))
        if self.done % math.gcd(LOG_EVERY, args.log_step) and self.done != args.num_iterations:
            return None
        metrics = self.metrics()
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise RunError(f"diverged in iteration {self.done}: {name} is {value}; lower -lr")
        return metrics

    def undo(self):
        """`learn` changes nothing that a checkpoint keeps, and `commit` is not interrupted."""

    def metrics(self):
        """Means over the iterations since the last call, as plain numbers by name. loss_D is halved, as released."""
        names = ["loss_D", "accuracy_real", "accuracy_fake", "loss_G", "mask_mean", "first_frame_error"]
        numbers = dict(zip(names, torch.stack(self.recent).mean(0).tolist(), strict=True))
        if self.args.streams == 1:
            del numbers["mask_mean"]
        if not self.args.conditional:
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
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "fixed": self.fixed,
            "iteration": self.done,
            "bad": self.bad,
            "settings": settings_of(self.args),
        }

    def restore(self, state):
        self.G.load_state_dict(state["G"])
        self.D.load_state_dict(state["D"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.fixed, self.done, self.bad = state["fixed"], state["iteration"], state["bad"]


def draw(args, count, *key):
    """z ~ N(0, 1), (count, 100), of this seed and key."""
    return torch.randn(count, LATENT, device=args.device, generator=utils.generator(args.device, args.seed, "z", *key))


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


def settings_of(args):
    """The settings as plain types, for config.json, checkpoints and TensorBoard."""
    plain = {name: value for name, value in vars(args).items() if name not in TESTING}
    return plain | {"device": str(args.device)}


def learn(args):
    """Learn from a category's clips; the newest state and pictures are in output_dir/category."""
    prepare(args.device)
    torch.manual_seed(args.seed)
    train, held_out = load(args)
    nets = build_nets(args)
    if args.dry_run:
        return print_header(args, nets, train, held_out)
    run = Run(f"{args.output_dir}/{args.category}", settings_of(args), CHANGEABLE, args.overwrite, "iteration")
    learner, state = Learner(args, train, held_out, nets), run.load_checkpoint(args.device)
    if state:
        learner.restore(state)
    if learner.done >= args.num_iterations:
        return print(f"'{run.folder}' is finished: {learner.done} iterations; raise -num_iterations to go on")
    print_header(args, nets, train, held_out, learner)
    run.open_logs(learner.done)
    learner.start()
    shorter = "-batch_size 8 -num_iterations 1000 shows the scenes" if args.device.type == "cpu" else None
    fit(learner, run, lambda last: outputs(learner, run, last), total=args.num_iterations, log_step=args.log_step,
        shown=SHOWN, shorter=shorter)
    if learner.bad:
        print(f"{len(learner.bad)} of {len(train)} clips could not be read and were skipped")
    print(f"done: {learner.done} iterations; videos are in '{run.folder}/final_results'")


def outputs(learner, run, last):
    """A function that writes what there is to see."""
    iteration, scenes = learner.done, generate_scenes(learner.G, learner.fixed)

    def write():
        rows = {f"{name} {k}": np.broadcast_to(videos[k], scenes["gen"][k].shape)
                for k in range(2) for name, videos in scenes.items()}
        rows |= {f"gen {k}": video for k, video in enumerate(scenes["gen"][2:6], start=2)}
        run.log_pictures(iteration, list(rows.values()), list(rows), last)
        run.renew("films", last, lambda: save_scenes(run.folder / "final_results", scenes))
        if last:
            judge(learner, run.folder)

    return write


def save_scenes(folder, scenes):
    """Each part of the scenes as one grid of all samples: GIF and MP4, or a picture where nothing moves. The grey
    levels are not stretched."""
    columns = math.ceil(math.sqrt(len(scenes["gen"])))
    for name, videos in scenes.items():
        grid = utils.side_by_side(list(videos), columns, margin=2)
        if len(grid) == 1:
            utils.write_atomically(folder / f"{name}.png", utils.png_bytes(grid[0]))
        else:
            utils.write_atomically(folder / f"{name}.gif", utils.gif_bytes(grid))
            utils.write_atomically(folder / f"{name}.mp4", utils.mp4_bytes(grid))


def judge(learner, folder):
    """The table of evaluate.py: new videos, beside windows that learning did not see."""
    if len(learner.held_out) == 0:
        return print("not judged: no clips are held out (-held_out)")
    args = learner.args
    source = unit(torch.from_numpy(learner.held_out))[:, :, 0].to(args.device) if args.conditional else (
        draw(args, JUDGED, "judge"))
    samples = generate_scenes(learner.G, source)["gen"]
    rows = window_report(samples, learner.held_out, first_of(learner.train, JUDGED))
    save_report(folder, "evaluation", rows, settings_of(args))


def print_header(args, nets, train, held_out, learner=None):
    """What will run: clips, nets, device."""
    kind = "conditional" if args.conditional else "unconditional"
    print(f"VideoGAN  {kind}, {args.streams} stream(s)  '{args.category}': {len(train)} clips of {FRAMES} frames of "
          f"{SIZE}x{SIZE}, {len(held_out)} held out, {args.batch_size} a mini-batch")
    print("\n".join([*layer_table(nets[0], "G"), *layer_table(nets[1], "D")]))
    print(f"device {args.device}, {torch.get_num_threads()} threads, torch {torch.__version__}, {args.precision}")
    if learner is None:
        for name, value in settings_of(args).items():
            print(f"  -{name} {value}")
    else:
        print(f"iterations {learner.done + 1} to {args.num_iterations}")


# ------------------------------------------------------------------------------------------------------- new videos


def generate(args):
    """-generate: new videos, and the foreground, mask and background that they are made of."""
    prepare(args.device)
    folder = Path(args.output_dir) / args.category
    path = args.ckpt or folder / "model/latest.pt"
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
        source = draw(args, args.sample_size, "generate")
    scenes = generate_scenes(G, source)
    save_scenes(folder / "generated", scenes)
    utils.save_frames(folder / "generated/sequences", scenes["gen"])
    print(f"{len(source)} videos are in '{folder}/generated'")


def main(argv=None):
    args = parse(argv)
    return run_program(lambda: generate(args) if args.generate else learn(args), data.InputError)


if __name__ == "__main__":
    sys.exit(main())
