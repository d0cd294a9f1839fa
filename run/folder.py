"""What a run leaves in its folder: settings, pictures, logs, checkpoints."""

import csv
import json
import os
import platform
import re
import shutil
import sys
import weakref
from collections import deque
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import torch

from run.flags import KEEP, RunError
from run.inputs import Inputs, compare_inputs
from utils import FPS, contact_sheet, gif_bytes, jpeg_bytes, png_bytes, printable, side_by_side, write_atomically

CHEAP = 2**24  # bytes of a state up to which a GPU's is saved at every log step
SNAPSHOT = 2**28  # bytes of a state in the CPU's memory that are copied, to be saved while learning goes on; more wait
BACKLOG = 8  # log steps whose outputs may wait to be written


class Run:
    """The folder of one run: settings, pictures, logs, checkpoints (see the README's output tree)."""

    def __init__(self, folder, settings, changeable, overwrite=False, unit="epoch", inputs=None):
        """Open the folder of a new run or of one to resume.

        settings: plain types by name; those not named in `changeable` must be what the folder's earlier run had, or
        RunError (code 2) lists the differences. With overwrite an earlier run's outputs are deleted. unit: what the
        run counts, epochs or iterations. inputs: the Inputs that it learns from, which must be what they were.
        """
        self.inputs = inputs or Inputs([], {}, FPS)
        if printable(folder) != str(folder):  # TensorBoard could not write there
            raise RunError(f"'{printable(folder)}' is no name in UTF-8: rename category or -output_dir", code=2)
        self.folder, self.settings, self.unit, self.unlock = Path(folder), settings, unit, None
        self.keep = settings.get("keep", KEEP)
        self.worker, self.pending = ThreadPoolExecutor(1), deque()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.lock()
            if overwrite and any((self.folder / name).exists() for name in ("config.json", "model/latest.pt")):
                delete_outputs(self.folder)
            if (self.folder / "config.json").exists():
                earlier = json.loads((self.folder / "config.json").read_text())
                self.compare(earlier["settings"], changeable)
                compare_inputs(folder, earlier.get("fingerprints"), self.inputs.fingerprints)
            found = {"inputs": self.inputs.lines, "fingerprints": self.inputs.fingerprints, "rate": self.inputs.rate}
            self.write("config.json", json.dumps({"settings": settings, **found, **versions()}, indent=2).encode())
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
        """RunError where a setting that decides the result was another; one that the earlier run's version did not have
        is not compared."""
        earlier = {"ckpt": None} | earlier  # runs of before -ckpt meant where learning starts
        differences = [
            f"{name} was {earlier.get(name)}, now {value}"
            for name, value in self.settings.items()
            if name not in changeable and earlier.get(name, value) != value
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
        """Queue job() for the one thread that writes; jobs run in their order, and this waits while BACKLOG of them are
        queued. What a job has raised is raised by the next call of this, or by wait()."""
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

    # checkpoints

    def save(self, state, epoch, write, told, moving, last):
        """In the background call write(), which writes what there is to see, then save the state, then call told(): a
        line or a checkpoint never claims what is not there.

        A CPU's state is saved every time; a GPU's, whose steps are short, if it is small, if more than usual are to be
        kept, or if the moment is one of those that are `moving` or the run's `last`. Learning goes on meanwhile with a
        copy of the state kept aside, unless the CPU's memory has most of it already, and no room to spare for it twice.
        """
        size, gpu = size_of(state), str(self.settings.get("device")).startswith("cuda")
        due = last or moving or size < CHEAP or self.keep > KEEP or not gpu
        copied = due and not last and size_of(state, "cpu") < SNAPSHOT  # a GPU's chains may be in the CPU's memory
        if copied and size >= CHEAP:
            self.wait()  # no more than one large copy at a time
        kept = None if not due else snapshot(state) if copied else state  # jobs that wait hold no more than they need

        def job():
            write()
            if due:
                self.save_checkpoint(kept, epoch)
                told()

        self.in_background(job)
        if due and not copied:
            self.wait()

    def save_checkpoint(self, state, epoch):
        """Save the whole state; the newest `keep` epochs are kept, and latest.pt is the last of them."""
        state = {**state, "fingerprints": self.inputs.fingerprints, "rate": self.inputs.rate}
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
        for old in self.numbered_checkpoints()[self.keep :]:
            old.unlink()

    def numbered_checkpoints(self):
        """The checkpoints that are kept under their number, the newest first."""
        paths = self.folder.glob(f"model/{self.unit}_*.pt")
        return sorted(paths, key=lambda path: -int(path.stem[len(self.unit) + 1 :]))

    def newest(self):
        """What is saved, in words."""
        kept = self.numbered_checkpoints()
        return f"{self.unit} {int(kept[0].stem.split('_')[-1]) if kept else 0} is saved in '{self.folder}'"

    def load_checkpoint(self, device):
        """The newest state, or None. One that does not load gives way to the one before it; RunError if it has learned
        from other inputs."""
        for path in [self.folder / "model/latest.pt", *self.numbered_checkpoints()]:
            if path.exists():
                try:
                    state = load_checkpoint(path, device)
                except RunError as error:
                    print(f"skipped: {error}", file=sys.stderr)
                    continue
                compare_inputs(self.folder, state.get("fingerprints"), self.inputs.fingerprints)
                return state
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
        text = f"| flag | value |\n|---|---|\n{rows}".encode("utf-8", "backslashreplace").decode()
        self.board.add_text("settings", text, epoch)

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

    def log_pictures(self, epoch, videos, names, moving):
        """A contact sheet of videos (T, H, W, 3), in progress/ and TensorBoard, where they also move if `moving`."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        self.write(f"progress/{self.unit}_{epoch:04d}.png", png_bytes(contact_sheet(videos, names)))
        step = -(-max(videos[0].shape[1:3]) // 128)
        small = [video[:, ::step, ::step] for video in videos]
        encoded = {"sheet": jpeg_bytes(contact_sheet(small, names))}  # whose every byte TensorBoard sums up in Python
        if moving:
            encoded["animated"] = gif_bytes(side_by_side(small), self.inputs.rate)
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


class Elsewhere(Run):
    """A run in processes other than the first, which leave nothing."""

    def __init__(self, folder, unit="epoch"):
        self.folder, self.unit, self.pending = Path(folder), unit, ()

    def open_logs(self, epoch):
        pass

    def log(self, epoch, metrics):
        pass

    def in_background(self, job):
        pass

    def save(self, state, epoch, write, told, moving, last):
        pass

    def save_checkpoint(self, state, epoch):
        pass

    def close(self):
        pass


OUTPUTS = (
    "config.json metrics.csv evaluation.json evaluation.csv evaluation.png recovery.json recovery.csv "
    "observed_sequence synthesized_sequence recovered_sequence recovered_mean_sequence recovered_sample_sequence "
    "final_results progress log model test generated "
    "index.html page_parts.js"
).split()


def delete_outputs(folder):
    """Delete what a program has left in a folder, and nothing else."""
    for path in (Path(folder) / name for name in OUTPUTS):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def snapshot(state):
    """A copy of nested dicts, lists and tensors on the CPU, which learning on does not change."""
    if isinstance(state, torch.Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {key: snapshot(value) for key, value in state.items()}
    return [snapshot(value) for value in state] if isinstance(state, list | tuple) else state


def size_of(state, device=None):
    """Bytes of the tensors in nested dicts, lists and tuples, or of those on one type of device."""
    if isinstance(state, torch.Tensor):
        return state.nbytes if device in (None, state.device.type) else 0
    values = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return sum(size_of(value, device) for value in values)


def find_checkpoint(folder, ckpt=None):
    """The file that -ckpt names for the run in a folder: a path, or a name in its folder model; if None, its newest.
    model.ckpt-2960 is the checkpoint of epoch (or iteration) 2960. RunError if there is none.

    Differs from the released code: that counts epochs from 0, and its model.ckpt-2960 has learned for 2961.
    """
    model = Path(folder) / "model"
    if ckpt is None:
        return model / "latest.pt"
    released = re.fullmatch(r"model\.ckpt-(\d+)", Path(ckpt).name)
    for path in (Path(ckpt), model / ckpt):
        numbered = sorted(path.parent.glob(f"*_{int(released[1]):04d}.pt")) if released else []
        for found in (path, *numbered):
            if found.exists():
                return found
    kept = sorted((path.name for path in model.glob("*_*.pt")), key=lambda name: (len(name), name))
    kept = f": '{model}' has {kept[0]} to {kept[-1]}; a run with -keep N keeps the newest N" if kept else ""
    raise RunError(f"there is no checkpoint '{ckpt}'{kept}", code=2)


def start_from(ckpt, folder, overwrite, device, load=None, **nets):
    """Give nets, by their names in checkpoints, the weights of the checkpoint `ckpt`, from which a run in the folder is
    to start; not if ckpt is None, or if the folder has a run to resume. RunError if it has other nets. load: in place
    of load_checkpoint, which finds all of them; the nets that load does not find start anew."""
    if ckpt is None or (not overwrite and any((Path(folder) / "model").glob("*.pt"))):
        return
    path = find_checkpoint(folder, ckpt)
    state = (load or load_checkpoint)(path, device, *nets)
    for name in filter(state.get, nets):
        load_weights(nets[name], state[name], path)
    anew = "".join(f"; {name} starts anew" for name in nets if name not in state)
    print(f"starting from the weights in '{path}'{anew}")


def load_weights(net, weights, path):
    """Give a net its weights from the checkpoint `path`; RunError if they are another net's."""
    if not isinstance(weights, dict) or not all(isinstance(w, torch.Tensor) for w in weights.values()):
        raise RunError(f"'{path}' is not a checkpoint of this program", code=2)
    here, there = ({name: "x".join(map(str, w.shape)) or "a number" for name, w in each.items()}
                   for each in (net.state_dict(), weights))
    for name in {**here, **there}:
        if here.get(name) != there.get(name):
            raise RunError(f"the net in '{path}' is another: its {name} is {there.get(name, 'missing')}, here it is "
                           f"{here.get(name, 'missing')}", code=2)
    net.load_state_dict(weights)


def load_checkpoint(path, device, *parts):
    """A checkpoint's state on the device; RunError if the file is missing, damaged, or has not the parts that tell this
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
    if not isinstance(state, dict) or not state.keys() >= {*parts}:
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
