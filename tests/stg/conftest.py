"""Small clips, and runs that several tests look at."""

import shutil
from types import SimpleNamespace

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
    for k, size in ((1, (24, 24)), (2, (20, 32)), (10, (40, 18))):
        write_clip(root / "three" / f"clip{k}.mp4", moving(13, *size, phase=k))
    write_clip(root / "short" / "brief.mp4", moving(5))
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
    """models(net_type) -> the output_dir of a run of that net."""
    made = {"FC_S_large": learned.parent}

    def get(net_type):
        if net_type not in made:
            made[net_type] = tmp_path_factory.mktemp(net_type)
            more = "-num_epochs", 4, "-lr", 0.02, "-step_size", 0.5  # a rate at which the drift soon matters
            assert call(flags(made[net_type], "-net_type", net_type, *more)).code == 0
        return made[net_type]

    return get
