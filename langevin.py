"""Langevin dynamics over any score function: pixels of videos, latent vectors of generators."""

from concurrent.futures import ThreadPoolExecutor

import torch

THREADS = ThreadPoolExecutor(torch.get_num_threads())  # a CPU draws a row's noise in one thread only


def drawing(z, generators):
    """Fill z (N, ...) in place with unit Gaussian noise, row i from generators[i], in memory order: an iterator, at
    whose end z is full. A CPU begins at once, beside what is done meanwhile.

    Rows are independent of each other: how a batch is split never changes what a row receives.
    """

    def draw(pair):
        row, generator = pair
        row.as_strided((row.numel(),), (1,)).normal_(generator=generator)

    return (THREADS.map if z.device.type == "cpu" else map)(draw, zip(z, generators, strict=True))


def gaussian_(z, generators):
    """z (N, ...), filled with unit Gaussian noise as by `drawing`."""
    list(drawing(z, generators))
    return z


@torch.no_grad()
def langevin(x, score, steps, delta, generators, free=None):
    """`steps` steps of Langevin dynamics without accept/reject (Xie, Zhu, Wu 2017, equation 8):

        x <- x + (delta^2 / 2) score(x) + delta Z,   Z ~ N(0, 1)

    x (N, ...) is left as it is; score(x) is the gradient of the log density, and its result may be overwritten; delta
    is a number or a tensor of one; generators, one a row, give the noise, and None leaves it out (gradient ascent).
    Where free (broadcastable to x) is False, x does not move.
    """
    z, delta = torch.empty_like(x), torch.as_tensor(delta, dtype=x.dtype, device=x.device)
    half_square = delta**2 / 2
    for _ in range(steps):
        noise = () if generators is None else drawing(z, generators)
        drift = score(x)
        if free is not None:
            drift.mul_(free)
        x = torch.addcmul(x, drift, half_square)
        if generators is not None:
            list(noise)
            x.addcmul_(z if free is None else z.mul_(free), delta)
    return x


class LangevinGraph:
    """`langevin` on a GPU as one CUDA graph: all its steps, noise included, start with one call instead of thousands.

    Made from what `langevin` takes, it is called with a new delta, and new x, generators and free of the same shapes
    and number, and returns what `langevin` would. What the score reads must stay in its place in memory, like weights
    that an optimiser changes in place.
    """

    def __init__(self, x, score, steps, delta, generators, free=None):
        self.x, self.free = x.clone(), None if free is None else free.clone()
        self.delta = torch.full((), delta, dtype=x.dtype, device=x.device)
        self.generators = [torch.Generator(x.device) for _ in generators]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # libraries choose their kernels and take their memory at the first call
            langevin(self.x, score, 1, self.delta, self.generators, self.free)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        if hasattr(self.graph, "register_generator_state"):  # newer PyTorch registers by itself
            for generator in self.generators:
                self.graph.register_generator_state(generator)
        with torch.cuda.graph(self.graph):
            self.result = langevin(self.x, score, steps, self.delta, self.generators, self.free)

    def __call__(self, x, delta, generators, free=None):
        self.x.copy_(x)
        self.delta.fill_(delta)
        if free is not None:
            self.free.copy_(free)
        for ours, theirs in zip(self.generators, generators, strict=True):
            ours.manual_seed(theirs.initial_seed())
        self.graph.replay()
        return self.result.clone()
