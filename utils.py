"""A program's surroundings: flags, exit codes, seeding, devices, and what a run leaves behind.

uint8 videos (T, H, W, C) exist only here and in data.py; everything else works on float32 (N, C, T, H, W).
"""

import argparse
import contextlib
import csv
import hashlib
import io
import json
import os
import platform
import shutil
import signal
import sys
import time
import weakref
import zlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch.optim.adam import adam
from tqdm import tqdm

FPS = 25
KEEP_CHECKPOINTS = 3
# Between a run's first log step and its last some outputs are renewed only while they take less of its time than this:
# those that move, and checkpoints of a large state
SHARES = {"animations": 0.0025, "films": 0.005, "checkpoints": 0.01}
CHEAP = 2**24  # bytes of a state that is saved at every log step all the same
SNAPSHOT = 2**28  # bytes of a CPU's state that is copied, to be saved while it learns on; a larger one makes it wait
BACKLOG = 8  # log steps whose outputs may wait to be written


class RunError(Exception):
    """A run that cannot go on: the message says what happened and what to do; `code` is the exit code."""

    def __init__(self, message, code=1):
        super().__init__(message)
        self.code = code


# ------------------------------------------------------------------------------------------------- command line


class ArgumentParser(argparse.ArgumentParser):
    """Long flags with one dash or two, exact match only; an error is one line and exit code 2."""

    def __init__(self, **kwargs):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **kwargs)

    def _get_option_tuples(self, option_string):
        return []  # argparse still abbreviates long flags with one dash; never here

    def parse_given(self, argv=None):
        """The settings, and by name those among them that the user gave."""
        args = self.parse_args(argv)
        unset = argparse.Namespace(**dict.fromkeys(vars(args)))
        return args, {name: value for name, value in vars(self.parse_args(argv, unset)).items() if value is not None}

    def error(self, message):
        self.exit(2, f"{self.prog}: {message} ({self.prog} -h lists the flags)\n")


def add_flag(group, names, default=None, help="", **kwargs):
    """Add a flag under one or more names (separated by blanks), each with one dash and with two; the default, which
    stands only here, is shown in the help."""
    flags = [dash + name for name in names.split() for dash in ("-", "--")]
    if default is not None and kwargs.get("action") != "store_true":
        help += f" (default {default})"
    if "action" in kwargs:
        group.add_argument(*flags, dest=names.split()[0], help=help, **kwargs)
    else:
        kwargs.setdefault("metavar", "X")
        group.add_argument(*flags, dest=names.split()[0], default=default, help=help, **kwargs)


def positive_int(text):
    value = int(text) if text.isdecimal() else 0
    if not 0 < value < 2**31:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above 0 (and below 2^31)")
    return value


def non_negative_int(text):
    return 0 if text == "0" else positive_int(text)


def number(text):
    """The number that a text says, or nan."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


def positive_float(text):
    value = number(text)
    if not 1e-12 <= value <= 1e18:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number above 0 (from 1e-12 to 1e18)")
    return value


def non_negative_float(text):
    value = number(text)
    if not 0 <= value <= 1e18:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 0 to 1e18")
    return value


def share(text):
    value = number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 0 to 1")
    return value


def image_size(text):
    """'224' or 'height x width' such as '100x200' -> (H, W)."""
    sides = text.lower().split("x")
    if len(sides) > 2 or "" in sides:
        raise argparse.ArgumentTypeError(f"'{text}' is neither a side such as 224 nor height x width such as 100x200")
    height, width = positive_int(sides[0]), positive_int(sides[-1])
    return height, width


def device_name(text):
    """'auto', 'cpu', 'cuda', 'cuda:1', ... -> a torch.device that exists."""
    if text == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(text)
        torch.empty(1, device=device).item()  # which a device without memory of its own refuses
    except (RuntimeError, AssertionError, NotImplementedError):
        raise argparse.ArgumentTypeError(f"there is no device '{text}' here; 'auto' takes what there is") from None
    return device


def run_program(program, bad_input):
    """Call program() and return its exit code: 0 done, 1 failed, 2 bad input (an exception of type bad_input), 130
    interrupted. What a user can cause ends in one line on stderr, never in a traceback."""
    name = Path(sys.argv[0]).name
    try:
        program()
        return 0
    except bad_input as error:
        message, code = str(error), 2
    except RunError as error:
        message, code = str(error), error.code
    except OSError as error:
        where = f" '{error.filename}'" if error.filename else ""
        message, code = f"cannot read or write{where}: {error.strerror or error}", 1
    except torch.OutOfMemoryError:
        message, code = "out of memory: use smaller frames or fewer of them, fewer chains or smaller batches", 1
    except KeyboardInterrupt as stop:
        message, code = str(stop) or "interrupted", 130
    print(f"{name}: {message}", file=sys.stderr)
    return code


@contextlib.contextmanager
def uninterrupted():
    """Hold back Ctrl-C until the block has ended, so that what belongs together changes together."""
    pending = []
    previous = signal.signal(signal.SIGINT, lambda *_: pending.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if pending:
        raise KeyboardInterrupt


# ------------------------------------------------------------------------------------------- randomness, optimiser


def generator(device, *key):
    """A torch.Generator whose stream depends on `key` alone, e.g. (seed, epoch, 'chain', 2)."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)


class Adam:
    """Adam with TensorFlow's epsilon, which is added before the bias correction (fused: one pass over the weights).

    PyTorch's own class imports its compiler, which takes two seconds, to tell it to leave the optimiser alone.
    """

    BETA2 = 0.999

    def __init__(self, parameters, lr, beta1):
        self.parameters, self.lr, self.beta1, self.count = list(parameters), lr, beta1, 0
        self.state = [{"step": torch.zeros((), device=p.device), "exp_avg": torch.zeros_like(p),
                       "exp_avg_sq": torch.zeros_like(p)} for p in self.parameters]

    def zero_grad(self):
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, lr=None):
        """One step, from now on with the rate lr if it is given."""
        self.lr, self.count = self.lr if lr is None else lr, self.count + 1
        eps = 1e-8 / (1 - self.BETA2**self.count) ** 0.5
        moving = [(p, own) for p, own in zip(self.parameters, self.state, strict=True) if p.grad is not None]
        each = [(p, p.grad, own["exp_avg"], own["exp_avg_sq"]) for p, own in moving]
        # as they lie in memory, all in one order: of a gradient in another the fused kernel would make a copy
        flat = [[x.as_strided((x.numel(),), (1,)) for x in those] for those in zip(*each, strict=True)]
        adam(*flat, [], [own["step"] for _, own in moving], fused=True, amsgrad=False, beta1=self.beta1,
             beta2=self.BETA2, lr=self.lr, weight_decay=0, eps=eps, maximize=False)
        torch.autograd.graph.increment_version([p for p, _ in moving])  # the fused kernel does not tell

    def state_dict(self):
        return {"state": dict(enumerate(self.state))}

    def load_state_dict(self, state):
        """Moments of another device's run may lie in another memory order, which the fused kernel would not see."""
        for own, saved in zip(self.state, state["state"].values(), strict=True):
            for name, value in own.items():
                value.copy_(saved[name])
        self.count = int(max(own["step"] for own in self.state))


def learning_rate(args, epoch):
    """The rate after `epoch` epochs: -lr, over the last part (-anneal) falling to a tenth, evenly in its log."""
    left = 1 - epoch / args.num_epochs
    return args.lr * 0.1 ** (1 - left / args.anneal) if left < args.anneal else args.lr


def prepare(device):
    """Settings of the process for a device, before its first use.

    A GPU: cuDNN tries the three kernels that it expects most of and keeps the fastest (its first alone may be many
    times slower, ten are no faster and take seconds more to try); float32 products are float32, not TF32. A CPU: the C
    library keeps large freed blocks, for all threads, since giving them back and faulting them in again costs a
    Langevin step more than its arithmetic (Linux with glibc; elsewhere nothing happens).
    """
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)
        torch.backends.cudnn.benchmark, torch.backends.cudnn.benchmark_limit = True, 3
        torch.backends.cudnn.conv.fp32_precision = torch.backends.cuda.matmul.fp32_precision = "ieee"
    elif platform.system() == "Linux" and platform.libc_ver()[0] == "glibc":
        import ctypes

        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-4, 0)  # M_MMAP_MAX: no block gets a mapping of its own
        libc.mallopt(-8, 1)  # M_ARENA_MAX: threads share one heap
        libc.mallopt(-1, -1)  # M_TRIM_THRESHOLD: never shrink the heap


def multiplies_bfloat16(device):
    """Whether the device has instructions for products in bfloat16: without, they take a hundred times longer than
    float32's."""
    seconds = []
    for dtype, count in ((torch.float32, 30), (torch.bfloat16, 3)):  # a busy machine must not make the first look slow
        x, trials = torch.ones(256, 256, dtype=dtype, device=device), []
        for _ in range(count):
            begun = time.perf_counter()
            (x @ x)[0, 0].item()  # waits for the device
            trials.append(time.perf_counter() - begun)
        seconds.append(min(trials))
    return seconds[1] < 10 * seconds[0]


def available_memory(device):
    """Bytes that are free on the device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 8 * 2**30


# ------------------------------------------------------------------------------------------------------- pictures


def quantized(videos):
    """Float (N, C, T, H, W) in grey levels -> uint8 (N, T, H, W, C) on its device: clipped to [0, 255] and rounded,
    nothing else."""
    return videos.detach().permute(0, 2, 3, 4, 1).clamp(0, 255).round().to(torch.uint8).contiguous()


def to_uint8(videos):
    """`quantized` videos as an array."""
    return quantized(videos).cpu().numpy()


def side_by_side(videos, columns=None, margin=10):
    """Videos (T, H, W, 3) of one size in a grid on white: uint8 (T, H', W', 3)."""
    columns = columns or len(videos)
    t, h, w, c = videos[0].shape
    rows = -(-len(videos) // columns)
    canvas = np.full((t, rows * (h + margin) - margin, columns * (w + margin) - margin, c), 255, np.uint8)
    for k, video in enumerate(videos):
        top, left = k // columns * (h + margin), k % columns * (w + margin)
        canvas[:, top : top + h, left : left + w] = video
    return canvas


def contact_sheet(videos, names, moments=8, margin=2):
    """One picture: a named row for each video (T, H, W, 3), `moments` of its frames evenly spread. Returns uint8."""
    rows = []
    for video in videos:
        times = np.linspace(0, len(video) - 1, min(moments, len(video))).round().astype(int)
        rows.append(side_by_side([video[t : t + 1] for t in times], margin=margin)[0])
    label = 80
    h, w = rows[0].shape[:2]
    sheet = Image.new("RGB", (label + w, len(rows) * (h + margin) - margin), "white")
    for k, (row, name) in enumerate(zip(rows, names, strict=True)):
        sheet.paste(Image.fromarray(row), (label, k * (h + margin)))
        ImageDraw.Draw(sheet).text((4, k * (h + margin) + h // 2 - 6), name, fill="black")
    return np.asarray(sheet)


def png_bytes(picture):
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=1, compress_type=zlib.Z_RLE)  # faster, and smaller
    return buffer.getvalue()


def jpeg_bytes(picture):
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def gif_bytes(video):
    """An endless GIF of a video uint8 (T, H, W, 3) at 25 fps, with one palette for all its frames (no flicker)."""
    some = video[:: max(1, len(video) // 6), ::2, ::2]
    palette = Image.fromarray(some.reshape(-1, *some.shape[2:])).quantize(256)
    frames = [Image.fromarray(frame).quantize(palette=palette) for frame in video]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=1000 // FPS, loop=0)
    return buffer.getvalue()


def mp4_bytes(video):
    """An H.264 MP4 of a video uint8 (T, H, W, 3) at 25 fps; odd sides are padded by their edge, as the format asks."""
    video = np.pad(video, ((0, 0), (0, video.shape[1] % 2), (0, video.shape[2] % 2), (0, 0)), mode="edge")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        options = {"crf": "16", "preset": "fast", "threads": "1", "mbtree": "0"}  # the same bytes from run to run
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.height, stream.width, stream.pix_fmt = *video.shape[1:3], "yuv420p"
        for frame in video:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def save_frames(folder, videos):
    """Every frame of videos (N, T, H, W, 3) as folder/sequence_k/000.png, ..."""

    def save(numbered):
        target = Path(folder) / f"sequence_{numbered[0]}"
        target.mkdir(parents=True, exist_ok=True)
        for t, frame in enumerate(numbered[1]):
            (target / f"{t:03d}.png").write_bytes(png_bytes(frame))

    in_threads(save, enumerate(videos))


def in_threads(function, arguments):
    """[function(each) for each in arguments], a few at once: at 224 px one may take 300 MB."""
    with ThreadPoolExecutor(min(torch.get_num_threads(), 8)) as pool:
        return list(pool.map(function, arguments))


def save_videos(folder, name, videos, beside=()):
    """The frames of videos (N, T, H, W, 3) in folder/<name>_sequence, and in folder/final_results a GIF and an MP4 of
    each, and as `all` the videos `beside` and these side by side."""
    everything = [*beside, *videos]
    rows = -(-len(everything) // 6)
    films = {"all": side_by_side(everything, -(-len(everything) // rows))}  # the longest work first
    films |= {f"sequence_{k}": video for k, video in enumerate(videos)}
    jobs = [(encode, film, kind) for film in films for kind, encode in (("mp4", mp4_bytes), ("gif", gif_bytes))]

    def save(job):
        encode, film, kind = job
        write_atomically(Path(folder) / f"final_results/{film}.{kind}", encode(films[film]))

    in_threads(save, jobs)
    save_frames(Path(folder) / f"{name}_sequence", videos)


def write_atomically(path, content):
    """Write bytes, or what a function writes to an open file, so that `path` is either the old file or the whole new
    one, also after a crash."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            content(file) if callable(content) else file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


# ---------------------------------------------------------------------------------------------------------- a run


class Run:
    """The folder of one run: settings, pictures, logs, checkpoints (see the README's output tree)."""

    def __init__(self, folder, settings, changeable, overwrite=False, unit="epoch"):
        """Open the folder of a new run or of one to resume.

        settings: plain types by name; those not named in `changeable` must be what the folder's earlier run had, or
        RunError (code 2) lists the differences. With overwrite an earlier run's outputs are deleted. unit: what the
        run counts, epochs or iterations.
        """
        self.folder, self.started, self.spent = Path(folder), time.time(), dict.fromkeys(SHARES, 0.0)
        self.settings, self.worker, self.pending, self.unit = settings, ThreadPoolExecutor(1), deque(), unit
        self.unlock, self.saving = None, False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.lock()
            if overwrite and (self.folder / "config.json").exists():
                delete_outputs(self.folder)
            if (self.folder / "config.json").exists():
                self.compare(json.loads((self.folder / "config.json").read_text())["settings"], changeable)
            self.write("config.json", json.dumps({"settings": settings, **versions()}, indent=2).encode())
        except OSError as error:
            raise RunError(f"cannot write to '{folder}': {error.strerror}", code=2) from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise RunError(f"'{folder}/config.json' is damaged: choose another -output_dir, or delete it to resume "
                           "without comparing settings", code=2) from None

    def lock(self):
        """Keep other programs out of the folder until close() or the end of this one, where the system can."""
        if os.name != "posix":
            return
        import fcntl

        folder = os.open(self.folder, os.O_RDONLY)
        self.unlock = weakref.finalize(self, os.close, folder)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"another program is at work in '{self.folder}': wait for it, or choose another -output_dir",
                           code=2) from None
        except OSError:
            pass

    def compare(self, earlier, changeable):
        differences = [
            f"{name} was {earlier.get(name)}, now {value}"
            for name, value in self.settings.items()
            if name not in changeable and earlier.get(name) != value
        ]
        if differences:
            raise RunError(
                f"'{self.folder}' holds a run with other settings ({'; '.join(differences)}): "
                "choose another -output_dir, or -overwrite to delete it",
                code=2,
            )

    def write(self, name, content):
        write_atomically(self.folder / name, content)

    def in_background(self, job):
        """Call job() in a thread, after those before, of which a few may wait for their turn; what one of them raised
        is raised here or by wait()."""
        while self.pending and (self.pending[0].done() or len(self.pending) == BACKLOG):
            self.finish_first()
        self.pending.append(self.worker.submit(job))

    def wait(self):
        """Wait until everything is written, and raise what went wrong."""
        while self.pending:
            self.finish_first()

    def finish_first(self):
        """Wait for the first job; if it failed, those after it are given up."""
        try:
            self.pending[0].result()
        except Exception:
            for job in self.pending:
                job.cancel()
            wait(self.pending)
            self.pending.clear()
            raise
        self.pending.popleft()

    def affords(self, kind):
        """Whether outputs of this kind (a key of SHARES) have taken less than their share of the run's time."""
        return self.spent[kind] <= SHARES[kind] * (time.time() - self.started)

    def renew(self, kind, always, job):
        """Call job(), which makes outputs of this kind, always or only if the run affords them."""
        if always or self.affords(kind):
            begun = time.time()
            job()
            self.spent[kind] += time.time() - begun

    # checkpoints

    def save(self, state, epoch, last, show):
        """In the background call show(), which writes what there is to see, and then save the state, which thus never
        claims what is not there: a large one, but for the run's last, only as often as its share allows."""
        size, gpu = size_of(state), str(self.settings.get("device")).startswith("cuda")
        due = last or size < CHEAP or (self.affords("checkpoints") and not self.saving)
        copied = due and not last and (gpu or size < SNAPSHOT)  # a GPU's is not among what the CPU's memory holds
        if copied:
            self.renew("checkpoints", True, lambda: state.update(snapshot(state)))
        kept = state if due else None  # jobs that wait hold no more than they need

        def write():
            show()
            if due:
                self.renew("checkpoints", True, lambda: self.save_checkpoint(kept, epoch))
                self.saving = False

        if due:
            self.saving = True
        self.in_background(write)
        if due and not copied:
            self.wait()

    def save_checkpoint(self, state, epoch):
        """Save the whole state; the newest few epochs are kept, and latest.pt is the last of them."""
        try:
            self.write("model/latest.pt", lambda file: torch.save(state, file))
        except (OSError, RuntimeError) as error:
            path = f"{self.folder}/model/latest.pt"
            raise RunError(f"cannot save '{path}': {reason(error)}; the one before is intact") from None
        numbered = self.folder / f"model/{self.unit}_{epoch:04d}.pt"
        numbered.unlink(missing_ok=True)
        try:
            os.link(self.folder / "model/latest.pt", numbered)
        except OSError:  # a file system without hard links
            shutil.copyfile(self.folder / "model/latest.pt", numbered)
        for old in self.numbered_checkpoints()[KEEP_CHECKPOINTS:]:
            old.unlink()

    def numbered_checkpoints(self):
        """The checkpoints that are kept under their number, the newest first."""
        paths = self.folder.glob(f"model/{self.unit}_*.pt")
        return sorted(paths, key=lambda path: -int(path.stem[len(self.unit) + 1 :]))

    def load_checkpoint(self, device):
        """The newest state, or None. One that does not load gives way to the one before it."""
        for path in [self.folder / "model/latest.pt", *self.numbered_checkpoints()]:
            if path.exists():
                try:
                    return load_checkpoint(path, device)
                except RunError as error:
                    print(f"skipped: {error}", file=sys.stderr)
        return None

    # logs

    def open_logs(self, epoch):
        """Open metrics.csv and TensorBoard to go on after `epoch`: rows of later epochs are dropped."""
        from torch.utils.tensorboard import SummaryWriter

        path = self.folder / "metrics.csv"
        if path.exists():
            lines = path.read_text().splitlines(keepends=True)
            kept = lines[:1] + [line for line in lines[1:] if line.endswith("\n") and int(line.split(",")[0]) <= epoch]
            self.write("metrics.csv", "".join(kept).encode())
        self.csv = open(path, "a", newline="")
        self.board = SummaryWriter(self.folder / "log", purge_step=epoch + 1)
        rows = "".join(f"| {name} | {value} |\n" for name, value in self.settings.items())
        self.board.add_text("settings", f"| flag | value |\n|---|---|\n{rows}", epoch)

    def log(self, epoch, metrics):
        """One row of metrics.csv and one point of every TensorBoard curve; a metric may be None, for none this time."""
        values = {name: value for name, value in metrics.items() if value is not None}
        writer = csv.DictWriter(self.csv, [self.unit, *metrics], restval="")
        if self.csv.tell() == 0:
            writer.writeheader()
        writer.writerow({self.unit: epoch, **{name: f"{value:.7g}" for name, value in values.items()}})
        self.csv.flush()
        for name, value in values.items():
            self.board.add_scalar(name, value, epoch)

    def log_pictures(self, epoch, videos, names, last):
        """A contact sheet of videos (T, H, W, 3), in progress/ and TensorBoard, where they also move; between the first
        call and the last they do so only when the run's time affords it."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        self.write(f"progress/{self.unit}_{epoch:04d}.png", png_bytes(contact_sheet(videos, names)))
        step = -(-max(videos[0].shape[1:3]) // 128)
        small = [video[:, ::step, ::step] for video in videos]
        encoded = {"sheet": jpeg_bytes(contact_sheet(small, names))}  # whose every byte TensorBoard sums up in Python
        self.renew("animations", last, lambda: encoded.update(animated=gif_bytes(side_by_side(small))))
        for tag, picture in encoded.items():
            image = Summary.Image(encoded_image_string=picture, colorspace=3)
            self.board.file_writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), epoch)
        self.board.flush()

    def close(self):
        self.worker.shutdown()
        self.csv.close()
        self.board.close()
        if self.unlock:
            self.unlock()


def fit(learner, run, report, shown, shorter):
    """Learn until all is done, with a progress bar; whatever ends it early leaves the last good state.

    With run.unit an epoch (or an iteration): learner has args.num_epochs, epoch, state() and learn_epoch(log) ->
    metrics, which calls log(epoch, metrics) as part of the change of its state; report(metrics) is called after each;
    shown: the metrics on the bar; shorter: what makes a long run on a CPU a short one, or None.
    """
    unit, total = run.unit, getattr(learner.args, f"num_{run.unit}s")
    learn, first = getattr(learner, f"learn_{unit}"), getattr(learner, unit) + 1
    bar = tqdm(total=total, initial=first - 1, unit=unit, disable=None)
    try:
        for done in range(first, total + 1):
            begun = time.perf_counter()
            metrics = learn(run.log)
            bar.set_postfix({name: f"{metrics[name]:.4g}" for name in shown if name in metrics}, refresh=False)
            bar.update()
            report(metrics)
            if done == first + 2 and done < total:  # the first prepares much that the others find
                seconds = time.perf_counter() - begun
                left = seconds * (total - done)
                slow = shorter and left > 1800 and learner.args.device.type == "cpu"
                hint = f"; on this CPU, {shorter}" if slow else ""
                tqdm.write(f"one {unit} took {seconds:.2g} s: about {duration(left)} to go{hint}")
        run.wait()
    except (KeyboardInterrupt, RunError) as stop:
        done = getattr(learner, unit)
        if run.pending:
            tqdm.write("stopping: what is left is being written")
        with contextlib.suppress(KeyboardInterrupt), uninterrupted():  # another Ctrl-C changes nothing
            run.wait()
            run.save_checkpoint(learner.state(), done)
        saved = f"{unit} {done} is saved in '{run.folder}'"
        if isinstance(stop, KeyboardInterrupt):
            raise KeyboardInterrupt(f"interrupted: {saved}; the same command goes on from there") from None
        raise RunError(f"{stop} ({saved})") from None
    finally:
        bar.close()
        run.close()


def tell(moment, metrics, shown):
    """A line about a moment, such as 'epoch 10/500', whose pictures are written, where there is no progress bar."""
    if not sys.stderr.isatty():
        print(moment, *(f"{name} {metrics[name]:.4g}" for name in shown), sep="  ", flush=True)


def duration(seconds):
    """A length of time as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


OUTPUTS = (
    "config.json metrics.csv evaluation.json evaluation.csv evaluation.png recovery.json recovery.csv "
    "observed_sequence synthesized_sequence recovered_sequence final_results progress log model test generated"
).split()


def delete_outputs(folder):
    """Delete what a program has left in a folder, and nothing else."""
    for path in (Path(folder) / name for name in OUTPUTS):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def snapshot(state):
    """A copy of nested dicts, lists and tensors on the CPU, which what goes on meanwhile does not change."""
    if isinstance(state, torch.Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {key: snapshot(value) for key, value in state.items()}
    return [snapshot(value) for value in state] if isinstance(state, list | tuple) else state


def size_of(state):
    """Bytes of the tensors in nested dicts, lists and tuples."""
    if isinstance(state, torch.Tensor):
        return state.nbytes
    values = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return sum(map(size_of, values))


def load_checkpoint(path, device, part=None):
    """A checkpoint's state on the device; RunError if the file is missing, damaged, or has not the part that tells this
    program's checkpoints from others."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise RunError(f"there is no checkpoint '{path}'", code=2) from None
    except torch.OutOfMemoryError:
        raise
    except OSError as error:
        raise RunError(f"cannot load checkpoint '{path}': {reason(error)}", code=2) from error
    except Exception as error:  # a damaged file can fail in many ways
        raise RunError(f"cannot load checkpoint '{path}': it is damaged, or none", code=2) from error
    if not isinstance(state, dict) or part not in (None, *state):
        raise RunError(f"'{path}' is not a checkpoint of this program", code=2)
    return state


def reason(error):
    """Why something failed, on one line: the system's words if it was the system, else the error's first line."""
    for cause in (error, error.__cause__, error.__context__):
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    return (str(error).splitlines() or [type(error).__name__])[0]


def versions():
    return {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
