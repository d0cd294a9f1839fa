"""Langevin dynamics over any score function: pixels of videos, latent vectors of generators."""

from concurrent.futures import ThreadPoolExecutor

import torch

THREADS = ThreadPoolExecutor(torch.get_num_threads())  # a CPU draws a row's noise in one thread only


def gaussian_(z, generators):
    """Fill z (N, ...) in place with unit Gaussian noise, row i from generators[i], in memory order.

    Rows are independent of each other: how a batch is split never changes what a row receives.
    """

    def draw(pair):
        row, generator = pair
        row.as_strided((row.numel(),), (1,)).normal_(generator=generator)

    each = THREADS.map if z.device.type == "cpu" else map
    list(each(draw, zip(z, generators, strict=True)))
    return z


@torch.no_grad()
def langevin(x, score, steps, delta, generators, free=None):
    """`steps` steps of Langevin dynamics without accept/reject (Xie, Zhu, Wu 2017, equation 8):

        x <- x + (delta^2 / 2) score(x) + delta Z,   Z ~ N(0, 1)

    x (N, ...) is left as it is; score(x) is the gradient of the log density, and its result may be overwritten;
    generators, one a row, give the noise, and None leaves it out (gradient ascent). Where free (broadcastable to x) is
    False, x does not move.
    """
    x = x.clone()
    z = torch.empty_like(x)
    for _ in range(steps):
        drift = score(x)
        if free is not None:
            drift.mul_(free)
        x.add_(drift, alpha=delta**2 / 2)
        if generators is not None:
            gaussian_(z, generators)
            x.add_(z if free is None else z.mul_(free), alpha=delta)
    return x
