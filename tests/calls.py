"""Programs called in this process, tiny runs of each, and films for them."""

import contextlib
import io
from types import SimpleNamespace
from unittest import mock

from tools import encode

import main
import main_dyn_G
import main_videogan

CPU = "-device cpu -seed 0 -log_step 1"
PROGRAMS = {  # by name: the module, flags of a tiny run (with nets that are narrow), and what it counts
    "main.py": (main, f"{CPU} -net_type ST -im_size 24 -num_frames 16 -num_chain 1 -sample_steps 1 -precision fp32",
                "epoch"),
    "main_dyn_G.py": (main_dyn_G, f"{CPU} -im_size 8 -num_frames 6 -state_size 4 -z_size 4 -sample_steps 1 "
                      "-num_sections_in_test 1 -num_batches_in_test 1", "epoch"),
    "main_videogan.py": (main_videogan, f"{CPU} -batch_size 1 -workers 0 -streams 1 -precision fp32", "iteration"),
}


@contextlib.contextmanager
def narrow(width=8, videos=2):
    """VideoGAN with nets of this WIDTH (released: 64), which draws and judges so many videos (16 and 64)."""
    with contextlib.ExitStack() as stack:
        for name, value in {"nets.WIDTH": width, "learn.SAMPLES": videos, "learn.JUDGED": videos}.items():
            stack.enter_context(mock.patch(f"videogan.{name}", value))
        yield


def call(program, *arguments, coding="utf-8"):
    """program.main: its exit code, and what it printed. Arguments that are strings are split at blanks."""
    flags = [flag for each in arguments for flag in (each.split() if isinstance(each, str) else [str(each)])]
    streams = [io.TextIOWrapper(io.BytesIO(), coding) for _ in range(2)]
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        try:
            code = program.main(flags)
        except SystemExit as stop:
            code = stop.code
    for stream in streams:
        stream.seek(0)
    return SimpleNamespace(code=code, out=streams[0].read(), err=streams[1].read())


def succeeds(program, *arguments, **kwargs):
    """What a program prints that ends well."""
    done = call(program, *arguments, **kwargs)
    assert (done.code, done.err) == (0, ""), done.err
    return done.out


def write_film(path, video, rate=25):
    """A video file of frames uint8 (T, H, W, 3). Returns its path."""
    return encode(path, video, rate=rate)


def frames_of(folder):
    """How many frames a run has left of each of its videos."""
    return [len(list(sequence.iterdir())) for sequence in sorted(folder.iterdir())]
