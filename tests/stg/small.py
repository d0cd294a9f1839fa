"""Small runs of main.py in this process, and what they say and leave."""

import calls
import numpy as np
from PIL import Image

import main

SMALL = "-im_size 16 -num_frames 12 -num_chain 2 -sample_steps 3 -log_step 2 -precision fp32 -device cpu".split()
EPOCHS = 4  # of most runs
DRIFT, FIELD = "-step_size 0.5 -lr 0.02", "-step_size 0.5 -lr 0.0003 -reference field"  # where the drift soon matters
LEARNED = {"FC_S_large": "", "ST": f"-net_type ST {DRIFT}", "FC": f"-net_type FC {DRIFT}",
           "FC_S_large field": FIELD, "ST field": f"-net_type ST {FIELD}"}  # models to sample, as flags of runs


def call(arguments):
    """main.main in this process: its exit code and what it printed."""
    return calls.call(main, *arguments)


def sample(output, *more, steps=2):
    """main.py -test over the category clip of output; not judged, for it does not find the clip."""
    given = ["-test", "-category", "clip", "-output_dir", output, "-test_steps", steps, "-device", "cpu",
             "-data_path", "none", *more]
    return call([str(part) for part in given])


def new_videos(output):
    folders = sorted((output / "clip/test/synthesized_sequence").iterdir())
    return np.stack([np.stack([np.asarray(Image.open(p)) for p in sorted(folder.iterdir())]) for folder in folders])
