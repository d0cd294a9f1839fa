"""What the tests share: the programs on the import path, tiny videos, and runs in a process of their own."""

import contextlib
import gc
import os
import signal
import subprocess
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # here and in processes that tests start: small tensors gain nothing by more

# ruff: isort: split
import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # kernels run on the CPU, slowly

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"

sys.path.insert(0, str(ROOT))
import pretend_gpu  # noqa: E402
from tools import encode  # noqa: E402

import judge.pictures  # noqa: E402

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell starts pytest in the background
gc.freeze()  # imageio collects garbage at each file that it closes: leave it nothing old to look through


def pytest_addoption(parser):
    parser.addoption("--many", action="store_true", help="draw 100 clips at random, not 12; kill 50 times, not 3")


@pytest.fixture(scope="session")
def shared():
    """shared('data/x.mat') -> its path; the test is skipped where the file is not at hand."""

    def find(name):
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"{path} is not here")
        return path

    return find


@pytest.fixture
def gpu(monkeypatch):
    """A GPU; where there is none, one that is pretended, which shows that code for GPUs runs, not how fast."""
    with contextlib.nullcontext() if torch.cuda.is_available() else pretend_gpu.at_hand(monkeypatch):
        yield


@pytest.fixture(scope="session")
def reference():
    """reference('x.npz') -> golden numbers, measured on the authors' nets."""
    return lambda name: np.load(Path(__file__).parent / "golden" / name)


@pytest.fixture(scope="session")
def moving():
    """moving(frames, height, width, phase) -> smooth coloured waves that differ in every frame, uint8 (T, H, W, 3)."""

    def make(frames=12, height=24, width=24, phase=0.0):
        t, y, x, c = np.ogrid[0:frames, 0:height, 0:width, 0:3]
        return (128 + 90 * np.sin(phase + 0.5 * t + 0.3 * y + 0.2 * x + 0.8 * c)).astype(np.uint8)

    return make


@pytest.fixture(scope="session")
def clip():
    """A smooth texture: white noise, averaged in time and space, 70 frames of 20x24, uint8."""
    noise = np.random.default_rng(5).normal(size=(78, 20, 24, 3))
    smooth = np.stack([noise[t : t + 9].mean(axis=0) for t in range(70)])
    smooth = smooth + np.roll(smooth, 1, axis=1) + np.roll(smooth, 1, axis=2)
    strength = 40 + 40 * np.linspace(0, 1, 24)[None, None, :, None]
    return np.clip(120 + strength * smooth, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def write_clip():
    """write_clip(path, video, codec) -> path: a video file at 25 fps."""
    return encode


@pytest.fixture(scope="module")
def undrawn():
    """Runs in this process leave an empty evaluation.png: drawing it takes longer than a small run, and is tested by
    itself and in processes of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge.pictures, "texture_png", lambda *portraits: b"")
        yield


@pytest.fixture(scope="session")
def run_script():
    """run_script(flags, script) -> CompletedProcess of a program in its own process."""

    def run(flags, script="main.py"):
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run([sys.executable, ROOT / script, *flags], cwd=ROOT, env=environment, text=True,
                              capture_output=True, timeout=100)

    return run
