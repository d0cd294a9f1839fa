"""A program as small as one can be around run.loop: python toy.py FOLDER EPOCHS [SECONDS_AN_EPOCH]."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch  # noqa: E402

import utils  # noqa: E402
from data import InputError  # noqa: E402
from run.flags import run_program  # noqa: E402
from run.folder import Run  # noqa: E402
from run.loop import fit  # noqa: E402


class Toy:
    """A walk of one vector, whose steps depend on the epoch alone."""

    def __init__(self, state, pause=0.0):
        self.w, self.done = (state["w"], state["epoch"]) if state else (torch.zeros(2000), 0)
        self.pause = pause

    def learn(self):
        time.sleep(self.pause)
        self.found = self.w + torch.randn(2000, generator=utils.generator("cpu", self.done))

    def commit(self):
        self.w, self.done = self.found, self.done + 1
        return {"loss": self.w.mean().item()}

    def undo(self):
        self.found = None

    def state(self):
        return {"w": self.w, "epoch": self.done, "settings": {}}


def learn(folder, epochs, pause=0.0, overwrite=False, seen=None, **settings):
    """A run; seen: a list that gets (moving, last) of each call of outputs."""
    run = Run(folder, {"num_epochs": epochs, "device": "cpu", **settings}, ("num_epochs",), overwrite)
    learner = Toy(run.load_checkpoint("cpu"), pause)

    def outputs(moving, last):
        if seen is not None:
            seen.append((learner.done, moving, last))
        content = str(learner.done).encode()
        return lambda: run.write("progress/newest.txt", content)

    fit(learner, run, outputs, total=epochs, log_step=2, shown=("loss",), header="a toy")


if __name__ == "__main__":
    folder, epochs, *pause = sys.argv[1:]
    sys.exit(run_program(lambda: learn(folder, int(epochs), *map(float, pause)), InputError))
