"""The reference q of the model p(I; w) = exp(f(I; w)) q(I) / Z(w), and the map from its noise to a video.

A chain is the noise y, and the video that f sees is x(y). Langevin dynamics (Xie, Zhu, Wu 2017, equation 8) moves y:

    y <- y + (delta^2 / 2) ((dx/dy)^T df/dx - y / sigma^2) + delta Z,     Z ~ N(0, 1)

`WhiteNoise` is the paper's q: x = y. `GaussianField` (field/) is no part of the paper: a q that already has the clip's
colours, its range at each pixel and its correlations in time and space, so that f adds only what these do not say.

Both have: mean, what to add to x for grey levels; sigma, the std of y under q; noise, video, pull, state. y and x are
float32 (N, 3, T, H, W).
"""

import torch

from data import InputError
from field.gaussian import GaussianField
from langevin import gaussian_


class WhiteNoise:
    """q(I) = N(mean, sigma^2 Id), mean one grey level: the paper's. x(y) = y."""

    def __init__(self, size, *, mean, sigma):
        """size: (T, H, W) of the videos; mean: tensor of one grey level; sigma: std in grey levels."""
        self.size, self.mean, self.sigma = size, mean, sigma

    def resized(self, size, loop=False):
        """The same reference for videos of another size (T, H, W)."""
        return WhiteNoise(size, mean=self.mean, sigma=self.sigma)

    def noise(self, generators):
        """Where chains start: unit noise (as released), a video each generator, channels last."""
        y = torch.empty(len(generators), *self.size, 3, device=self.mean.device)
        return gaussian_(y, generators).permute(0, 4, 1, 2, 3)

    def video(self, y):
        """x(y)."""
        return y

    def pull(self, y, gradient):
        """df(x(y))/dy, given the function gradient(x) = df/dx."""
        return gradient(y)

    def step_size(self, delta, fall):
        """delta once the learning rate has fallen to the share `fall`: its square falls with the rate, as the weights
        that the chains follow move less and less."""
        return delta * fall**0.5

    def balance(self, moved):
        """A factor of the learning rate, given how much the chains move."""
        return 1.0

    several = None  # whether it was fitted to several clips

    share = 1.0  # of the clip's std that noise has

    def state(self):
        """What a checkpoint keeps, as plain types and tensors."""
        return {"size": self.size, "mean": self.mean, "sigma": self.sigma}


def load_reference(state):
    """The reference that a checkpoint's state keeps; an earlier version's was white noise around one grey level, or
    around an image (InputError)."""
    if state.get("level"):
        raise InputError("this model was learned with -mean image, which is gone: learn anew with -reference field")
    if "reference" not in state:
        learned = state["settings"]
        size = (learned["num_frames"], *learned["im_size"])
        return WhiteNoise(size, mean=state["mean"], sigma=learned["refsig"])
    kept = state["reference"]
    return GaussianField(**kept) if "maps" in kept else WhiteNoise(**kept)
