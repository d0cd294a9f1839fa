"""Small clips, and runs that several tests look at."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from small import EPOCHS, SMALL, call
from tools import (
    contents,
)


@pytest.fixture(scope="session")
def data_path(tmp_path_factory, moving, write_clip):
    """Categories: clip (one clip), three (of different sizes), and those that cannot be learned from."""
    root = tmp_path_factory.mktemp("data")
    whole = write_clip(root / "clip" / "clip.mp4", moving(15))
    write_clip(root / "other" / "clip.mp4", moving(16, phase=3))
    for k, size in ((1, (24, 24)), (2, (20, 32)), (10, (40, 18))):
        write_clip(root / "three" / f"clip{k}.mp4", moving(13, *size, phase=k))
    write_clip(root / "short" / "brief.mp4", moving(5))
    write_clip(root / "still" / "black.mp4", np.zeros((12, 16, 16, 3), np.uint8))
    for bad in ("empty", "text", "truncated"):
        (root / bad).mkdir()
    (root / "text" / "words.mp4").write_text("no video")
    (root / "truncated" / "half.mp4").write_bytes(whole.read_bytes()[:2000])
    return root


@pytest.fixture(scope="session")
def flags(data_path):
    """flags(output_dir, *more) -> the command line of a small run, category `clip` unless `more` says otherwise."""

    def build(output, *more):
        return ["-category", "clip", "-data_path", str(data_path), "-output_dir", str(output), *SMALL, *map(str, more)]

    return build


@pytest.fixture(scope="session")
def learned(tmp_path_factory, flags):
    """The folder of a run that nothing disturbed."""
    output = tmp_path_factory.mktemp("learned")
    done = call(flags(output, "-num_epochs", EPOCHS))
    assert (done.code, done.err) == (0, "")
    return output / "clip"


@pytest.fixture(scope="module")
def earlier(tmp_path_factory, learned):
    """The output_dir of an earlier run, and all that is in it and has to stay as it is."""
    output = tmp_path_factory.mktemp("earlier")
    shutil.copytree(learned, output / "clip")
    return SimpleNamespace(output=output, contents=contents(output))


@pytest.fixture
def copy_of(tmp_path):
    """copy_of(run) -> the output_dir of a copy of a run's folder."""

    def copy(run):
        shutil.copytree(run, tmp_path / "output" / run.name)
        return tmp_path / "output"

    return copy


@pytest.fixture(scope="module")
def models(tmp_path_factory, flags, learned):
    """models(net) -> the output_dir of a run of that net; "ST field" has a field as its reference."""
    made = {"FC_S_large": learned.parent}

    def get(net):
        if net not in made:
            made[net], (net_type, *reference) = tmp_path_factory.mktemp(net.replace(" ", "_")), net.split()
            more = ("-lr", 0.0003, "-reference", *reference) if reference else ("-lr", 0.02)  # the drift soon matters
            assert call(flags(made[net], "-net_type", net_type, *more, "-num_epochs", 4, "-step_size", 0.5)).code == 0
        return made[net]

    return get
