"""Langevin dynamics over any score function: pixels of videos, latent vectors of generators."""

from concurrent.futures import ThreadPoolExecutor

import torch

THREADS = ThreadPoolExecutor(torch.get_num_threads())  # a CPU draws a row's noise in one thread only


def drawing(z, generators):
    """Start to fill z (N, ...) in place with unit Gaussian noise, row i from generators[i], in memory order. Returns an
    iterator: z is full once it is used up. On a CPU the rows are drawn in threads, beside whatever is computed until
    then.

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
    for step in range(steps):
        noise = () if generators is None else drawing(z, generators)
        drift = score(x)
        if free is not None:
            drift.mul_(free)
        x = x.addcmul_(drift, half_square) if step else torch.addcmul(x, drift, half_square)
        if generators is not None:
            list(noise)
            x.addcmul_(z if free is None else z.mul_(free), delta)
    return x
