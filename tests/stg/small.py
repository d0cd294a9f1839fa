"""Small runs of main.py in this process, and what they say and leave."""

import contextlib
import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import main

SMALL = "-im_size 16 -num_frames 12 -num_chain 2 -sample_steps 3 -log_step 2 -precision fp32 -device cpu".split()
EPOCHS = 4  # of most runs


def call(arguments):
    """main.main in this process: its exit code and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main.main(arguments)
        except SystemExit as stop:
            code = stop.code
        except KeyboardInterrupt:
            pytest.fail("an interrupt left the program")
    return SimpleNamespace(code=code, out=out.getvalue(), err=err.getvalue())


def sample(output, *more, steps=2):
    """main.py -test over the category clip of output; not judged, for it does not find the clip."""
    given = ["-test", "-category", "clip", "-output_dir", output, "-test_steps", steps, "-device", "cpu",
             "-data_path", "none", *more]
    return call([str(part) for part in given])


def new_videos(output):
    folders = sorted((output / "clip/test/synthesized_sequence").iterdir())
    return np.stack([np.stack([np.asarray(Image.open(p)) for p in sorted(folder.iterdir())]) for folder in folders])
