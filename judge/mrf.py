"""Markov random fields, what the paper's recovery is compared with: hidden pixels drawn by Gibbs sampling.

Xie, Zhu, Wu, CVPR 2017, section 4.2: p(x) is proportional to exp(-beta U(x)), where U is the sum of |x_i - x_j|^p over
all pairs of neighbours in time, height and width; p = 1 (l1) or 2 (l2). Hidden pixels are drawn given the visible ones.

Not in the paper, and chosen here:
- beta: the most likely one. U is homogeneous of degree p, so that the integral of exp(-beta U) over N pixels goes as
  beta^(-(N - 1) / p), and beta = (N - 1) / (p U); U is taken from the pairs of which both pixels are visible.
- Sweeps: SWEEPS, from linear interpolation on. A sweep draws every other pixel at once, as the squares of a
  chessboard, for these are no neighbours of each other; then the rest.
- What is judged: the last sweep, a draw, not the mean of many, which errs less.

Videos, masks and errors are as in judge/fillings.py. The channels do not know of each other.
"""

import numpy as np

from judge.fillings import interpolate_linear

SWEEPS = 30
ALIKE = 1e-6  # the least mean of |x_i - x_j|^p, for beta of a flat video
AT_ONCE = 4096  # pixels that are drawn together: what they need stays in a processor's cache
RARE = np.float32(2**-24)  # what a draw in single precision cannot tell from 0


def mrf_l1(video: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Hidden pixels of `video` (T, H, W, 3) by a draw from the field with potentials |x_i - x_j|; float32."""
    return gibbs(video, mask, 1)


def mrf_l2(video: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Hidden pixels of `video` (T, H, W, 3) by a draw from the field with potentials (x_i - x_j)^2; float32."""
    return gibbs(video, mask, 2)


def gibbs(video, mask, power, sweeps=SWEEPS):
    """The video after so many sweeps over its hidden pixels."""
    x = interpolate_linear(video, mask)
    beta, draw = strength(x, mask, power), {1: draw_l1, 2: draw_l2}[power]
    rng = np.random.default_rng(0)
    framed = np.pad(x, [(1, 1)] * 3 + [(0, 0)], constant_values=np.inf)  # inf: no neighbour
    pixels, (_, height, width, _) = framed.reshape(-1, 3), framed.shape
    t, i, j = np.argwhere(mask).T + 1
    places, black = (t * height + i) * width + j, (t + i + j) % 2 == 0
    steps = np.array([[step, -step] for step in (height * width, width, 1)]).reshape(6, 1)
    parts = [half[k : k + AT_ONCE] for half in (places[black], places[~black]) for k in range(0, len(half), AT_ONCE)]
    for _ in range(sweeps):
        for part in parts:
            near = pixels.take(part + steps, axis=0).reshape(6, -1)
            pixels[part] = draw(near, beta, rng).reshape(-1, 3)
    return framed[1:-1, 1:-1, 1:-1].copy()


def strength(x, mask, power):
    """beta, the most likely one."""
    total, seen, pairs = 0.0, 0, 0
    for axis in range(3):
        one, other = (np.delete(mask, end, axis) for end in (-1, 0))
        visible = ~(one | other)
        total += (np.abs(np.diff(x, axis=axis)[visible]) ** power).sum(dtype=np.float64)
        seen, pairs = seen + 3 * visible.sum(), pairs + visible.size
    return float((mask.size - 1) / (power * pairs * max(total / max(seen, 1), ALIKE)))


def draw_l2(near, beta, rng):
    """Draws x (N) of density exp(-beta sum_k (x - near_k)^2), near (6, N) with inf for none: a Gaussian around the mean
    of the n neighbours, of variance 1 / (2 beta n)."""
    there = np.isfinite(near)
    n = there.sum(axis=0, dtype=np.float32)
    return np.where(there, near, 0).sum(axis=0) / n + rng.standard_normal(len(n), np.float32) / np.sqrt(2 * beta * n)


@np.errstate(divide="ignore", invalid="ignore")
def draw_l1(near, beta, rng):
    """Draws x (N) of density exp(-beta sum_k |x - near_k|), near (6, N) with inf for none.

    Between two neighbours in order of size the log density is a straight line, whose slope is beta times the number of
    neighbours above less that of those below: so is the distribution function an exponential, whose inverse is known.
    """
    n, count = np.isfinite(near).sum(axis=0, dtype=np.float32), near.shape[1]
    infinite = np.full_like(near[:1], np.inf)
    ends = np.concatenate([-infinite, *in_order(near), infinite])  # of 7 intervals, (8, N)
    length = np.diff(ends, axis=0)  # inf - inf behind the one that ends at inf
    slope = beta * (n - np.arange(0, 14, 2, np.float32)[:, None])
    log = np.zeros_like(near)
    for k in range(1, 6):
        log[k] = log[k - 1] + slope[k] * length[k]
    log[np.arange(6)[:, None] >= n] = -np.inf
    density, below = np.zeros_like(ends), np.zeros_like(ends)
    density[1:7] = np.exp(log - log.max(axis=0))
    mass = np.where(slope == 0, density[1:] * length, np.diff(density, axis=0) / slope)
    for k in range(7):
        below[k + 1] = below[k] + mass[k]
    u = rng.random(count, np.float32) * below[7]
    k = (below[1:7] <= u).sum(axis=0)  # the interval that x is in
    at = k * count + np.arange(count)
    left, right, low, high = (x.take(at + step) for x in (ends, density) for step in (0, count))
    slope, more = slope.take(at), u - below.take(at)
    share = np.maximum((low + slope * more) / np.maximum(low, high), RARE)  # of the density at x in the higher end's
    return np.where(slope == 0, left + more / low, np.where(slope > 0, right, left) + np.log(share) / slope)


def in_order(rows):
    """The rows (1, N) of an array (M, N), sorted along M: by far the fastest way where M is small."""
    rows = list(rows[:, None])
    for last in reversed(range(len(rows))):
        for k in range(last):
            rows[k], rows[k + 1] = np.minimum(rows[k], rows[k + 1]), np.maximum(rows[k], rows[k + 1])
    return rows
