"""Small clips, and runs that several tests look at."""

import shutil

import numpy as np
import pytest
from small import EPOCHS, SMALL, call

from field import conditional


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


@pytest.fixture(scope="module", autouse=True)
def small_boxes():
    """Boxes of Gaussian fields that are but a little larger than the clips, whose transforms are fast."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conditional, "MARGIN", 4)
        yield


@pytest.fixture(scope="session")
def runs(tmp_path_factory, flags):
    """runs("-net_type ST") -> the folder of a run of EPOCHS epochs with these flags, which nothing disturbed and
    nobody may change; what it printed is beside it, in said.txt."""
    made = {}

    def get(more=""):
        if more not in made:
            output = tmp_path_factory.mktemp("run")
            done = call(flags(output, "-num_epochs", EPOCHS, *more.split()))
            assert (done.code, done.err) == (0, ""), more
            (output / "said.txt").write_text(done.out)
            made[more] = output / ("three" if "-category three" in more else "clip")
        return made[more]

    return get


@pytest.fixture(scope="session")
def learned(runs):
    """The folder of a run without other flags."""
    return runs()


@pytest.fixture
def copy_of(tmp_path):
    """copy_of(run) -> the output_dir of a copy of a run's folder."""

    def copy(run):
        shutil.copytree(run, tmp_path / "output" / run.name)
        return tmp_path / "output"

    return copy
