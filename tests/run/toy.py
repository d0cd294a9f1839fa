"""A program as small as one can be around run.loop, which has no process of its own."""

import time

import torch

import utils
from run.folder import Run
from run.loop import fit


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


def learn(folder, epochs, pause=0.0, seen=None):
    """A run; seen: a list that gets (epoch, moving, last) of each call of outputs."""
    run = Run(folder, {"num_epochs": epochs, "device": "cpu"}, ("num_epochs",))
    learner = Toy(run.load_checkpoint("cpu"), pause)

    def outputs(moving, last):
        if seen is not None:
            seen.append((learner.done, moving, last))
        content = str(learner.done).encode()
        return lambda: run.write("progress/newest.txt", content)

    fit(learner, run, outputs, total=epochs, log_step=2, shown=("loss",), header="a toy")
