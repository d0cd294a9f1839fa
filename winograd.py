"""Strided convolution of few channels with fewer multiplications: Toom-Cook (Winograd) minimal filtering.

Along one axis with kernel k and stride s, output u is a sum over the phases p < s of filters with ceil((k - p) / s)
taps over x[u * s + p]. Toom-Cook takes m outputs of r taps from products at m + r - 1 points, A ((E x) * (K w))
(S. Winograd, Arithmetic Complexity of Computations, 1980; Lavin and Gray, CVPR 2016, for nets). The products of all
phases at a point are added up before A, and phases with a tap fewer leave one point out, so that m outputs take
(m - 1) * s + k products instead of m * k.

This is done along time and height. Along width windows are copied out, and width, channels and phases are the inner
dimension of one matrix product a point. The adjoint is the transposed steps in reverse order (transposition principle),
with as many products. Maps (N, C, T, H, W) are stored channels last.
"""

import functools
import itertools
import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

OUTPUTS = 3  # m: fewer save fewer products, more need points whose powers round worse
POINTS = (0, 1, -1, 2, -0.5)  # and infinity
MOST_TAPS = len(POINTS) + 2 - OUTPUTS
CACHE_ENTRIES = 2**21  # entries of a block's products at all points: what the cache holds


class Axis(NamedTuple):
    """Minimal filtering along one axis. Rows of E and K go by point, then by phase."""

    A: np.ndarray  # (m, points)
    E: np.ndarray  # (rows, rows): a tile's window has as many entries, (m - 1) * s + k
    K: np.ndarray  # (rows, k)
    phases: tuple  # of each point: how many rows it has
    step: int  # entries from tile to tile: m * s


def toom_cook(m, points):
    """A (m, n), E (n, n) and K (n, r) for m outputs of r taps at n = m + r - 1 points: these and infinity."""
    def powers(count):
        return np.array([[p**k for k in range(count)] for p in points] + [[0] * (count - 1) + [1]], dtype=float)

    n = len(points) + 1
    return powers(m).T, np.linalg.inv(powers(n)).T, powers(n - m + 1)


@functools.cache
def axis(kernel, stride):
    taps = math.ceil(kernel / stride)
    m = OUTPUTS if taps > 1 else 1
    points, longer, rows = POINTS[: m + taps - 2], kernel - (taps - 1) * stride, []
    A, E, K = toom_cook(m, points)
    order = [*range(len(points) - 1), len(points), len(points) - 1] if taps > 1 else [0]  # last, what short phases lack
    _, short_E, short_K = toom_cook(m, points[:-1]) if taps > 1 else (None, [], [])
    for place, point in enumerate(order):
        for phase in range(min(stride, kernel)):
            if phase < longer or place < len(short_E):
                e, k = (E[point], K[point]) if phase < longer else (short_E[place], short_K[place])
                row_E, row_K = np.zeros((m - 1) * stride + kernel), np.zeros(kernel)
                row_E[phase::stride], row_K[phase::stride] = e, k
                rows.append((place, row_E, row_K))
    places, E, K = zip(*rows)
    return Axis(A[:, order], np.stack(E), np.stack(K), tuple(map(places.count, range(len(order)))), m * stride)


class Tiles:
    """The convolution with weight (c_out, c, kd, kh, kw) at a stride (time, height, width) onto maps of size (T, H, W).

    in_size (T', H', W') is what the tiles see of the padded input; the last ones may stick out of the output.
    """

    def __init__(self, weight, stride, size):
        (self.c_out, self.c), kernel = weight.shape[:2], weight.shape[2:]
        self.size, self.time, self.height = size, axis(kernel[0], stride[0]), axis(kernel[1], stride[1])
        axes = self.time, self.height
        self.outputs, self.points = ([a.A.shape[k] for a in axes] for k in (0, 1))
        self.counts = [math.ceil(n / m) for n, m in zip(size, self.outputs)]
        width = (size[2] - 1 + math.ceil(kernel[2] / stride[2])) * stride[2]
        self.in_size = (*((n - 1) * a.step + len(a.E) for n, a in zip(self.counts, axes)), width)
        self.window, self.stride = kernel[2] * self.c, stride[2] * self.c
        self.E_t, self.E_h = (torch.from_numpy(a.E).to(weight) for a in axes)
        self.A = torch.from_numpy(np.kron(self.time.A, self.height.A)).to(weight)  # (outputs, points) of both axes
        self.products = []  # (point in time, points in height with equally many phases, their rows in E_t and in E_h)
        ends_t = np.cumsum(self.time.phases).tolist()
        for (point, phases), end in zip(enumerate(self.time.phases), ends_t):
            row = first = 0
            for in_height, same in itertools.groupby(self.height.phases):
                last, stop = first + (count := len(list(same))), row + count * in_height
                self.products.append((point, slice(first, last), slice(end - phases, end), slice(row, stop)))
                first, row = last, stop

    def kernels(self, weight):
        """The weight at the points: for each of `products` (points, phases * kw * c, c_out)."""
        K_t, K_h = (torch.from_numpy(a.K).to(weight) for a in (self.time, self.height))
        at = torch.einsum("oczhw,tz->ochwt", weight, K_t)
        at = torch.einsum("ochwt,gh->gtwco", at, K_h)
        return [at[rows_h, rows_t].unflatten(0, (points.stop - points.start, -1)).transpose(1, 2)
                .reshape(points.stop - points.start, -1, self.c_out) for _, points, rows_t, rows_h in self.products]

    def blocks(self):
        """Blocks of tiles, as many as the cache holds: (ranges of tiles, slices of outputs), in time and in height."""
        room = CACHE_ENTRIES // (math.prod(self.points) * self.size[2] * self.c_out) + 1
        high = min(room, self.counts[1])
        steps = max(1, room // high), high
        starts = [range(0, count, step) for count, step in zip(self.counts, steps)]
        for corner in itertools.product(*starts):
            tiles = [range(k, min(k + step, n)) for k, step, n in zip(corner, steps, self.counts)]
            yield tiles, tuple(slice(r[0] * m, (r[-1] + 1) * m) for r, m in zip(tiles, self.outputs))

    def seen(self, tiles):
        """The entries that a range of tiles sees, in time and in height, as slices."""
        return tuple(slice(r[0] * a.step, r[-1] * a.step + len(a.E)) for r, a in zip(tiles, (self.time, self.height)))

    def convolve(self, x, kernels, bias):
        """x (N, c, T', H', W'), padded to `in_size` at least, to (N, c_out, T, H, W)."""
        y, (n_t, n_h), w = x.new_empty(len(x), *self.size, self.c_out), (len(self.E_t), len(self.E_h)), self.size[2]
        for video, out in zip(x.permute(0, 2, 3, 4, 1).flatten(3), y):
            for tiles, outputs in self.blocks():
                (i, j), here = map(len, tiles), out[outputs]
                x_t = video[self.seen(tiles)].unfold(0, n_t, self.time.step).movedim(-1, 1)
                x_t = torch.bmm(self.E_t.expand(i, -1, -1), x_t.flatten(2)).view(i * n_t, -1, video.shape[2])
                at = x.new_empty(j, i * n_t, n_h, video.shape[2])
                for k in range(j):
                    torch.bmm(self.E_h.expand(i * n_t, -1, -1), x_t.narrow(1, k * self.height.step, n_h), out=at[k])
                windows = at.view(j, i, n_t, n_h, -1).unfold(-1, self.window, self.stride)[..., :w, :]
                found = x.new_empty(*self.points, i * j * w, self.c_out)
                for (point, points, rows_t, rows_h), kernel in zip(self.products, kernels, strict=True):
                    columns = windows[:, :, rows_t, rows_h].unflatten(3, (len(kernel), -1)).permute(3, 1, 0, 5, 2, 4, 6)
                    torch.bmm(columns.reshape(len(kernel), i * j * w, -1), kernel, out=found[point, points])
                found = (self.A @ found.view(len(self.A.T), -1)).view(*self.outputs, i, j, w, -1)
                found = found.permute(2, 0, 3, 1, 4, 5).reshape(i * self.outputs[0], j * self.outputs[1], w, -1)
                torch.add(found[: len(here), : here.shape[1]], bias, out=here)
        return y.permute(0, 4, 1, 2, 3)

    def adjoint(self, g, kernels):
        """The transpose of `convolve` without its bias: g (N, c_out, T, H, W) to (N, c, T', H', W') of `in_size`."""
        x, (n_t, n_h), w = g.new_zeros(len(g), *self.in_size, self.c), (len(self.E_t), len(self.E_h)), self.size[2]
        for video, out in zip(g.permute(0, 2, 3, 4, 1), x.flatten(3)):
            for tiles, outputs in self.blocks():
                (i, j), here = map(len, tiles), video[outputs]
                (m_t, m_h), width = self.outputs, out.shape[2]
                if here.shape[:2] != (i * m_t, j * m_h):
                    here = F.pad(here, (0, 0, 0, 0, 0, j * m_h - here.shape[1], 0, i * m_t - len(here)))
                here = here.reshape(i, m_t, j, m_h, -1).permute(1, 3, 0, 2, 4).reshape(m_t * m_h, -1)
                found = (self.A.T @ here).view(*self.points, i * j * w, self.c_out)
                at = g.new_zeros(j, i, n_t, n_h, width)
                for (point, points, rows_t, rows_h), kernel in zip(self.products, kernels, strict=True):
                    target = at[:, :, rows_t, rows_h].unflatten(3, (len(kernel), -1))  # (j, i, phases, points, phases)
                    columns = torch.bmm(found[point, points], kernel.transpose(1, 2))
                    columns = columns.view(len(kernel), i, j, w, target.shape[2], target.shape[4], -1)
                    columns = columns.permute(2, 1, 4, 0, 5, 3, 6)
                    for k in range(0, self.window, self.stride):
                        part = columns[..., k : k + self.stride]
                        into = target[..., k : k + w * self.stride].unflatten(-1, (w, self.stride))
                        into[..., : part.shape[-1]] += part
                x_t = g.new_zeros(i * n_t, (j - 1) * self.height.step + n_h, width)
                for k in range(j):
                    part = torch.bmm(self.E_h.T.expand(i * n_t, -1, -1), at[k].view(i * n_t, n_h, width))
                    x_t.narrow(1, k * self.height.step, n_h).add_(part)
                into = out[self.seen(tiles)].flatten(1)
                for k, part in enumerate(x_t.view(i, n_t, -1)):
                    into.narrow(0, k * self.time.step, n_t).addmm_(self.E_t.T, part)
        return x.permute(0, 4, 1, 2, 3)
