"""Strided convolution of few channels with fewer multiplications: Toom-Cook (Winograd) minimal filtering.

Along one axis with kernel k and stride s, output u is a sum over the phases p < s of a filter with ceil((k - p) / s)
taps over x[u * s + p]. Toom-Cook computes m outputs of a filter with r taps from products at m + r - 1 points (Winograd,
Arithmetic Complexity of Computations, 1980; Lavin and Gray, CVPR 2016, for the nets' layers): outputs A ((E x) * (K w)).
A point's products of all phases are summed before A; phases that have a tap fewer leave one point out. So m outputs take
(m - 1) * s + k products instead of m * k. Here this is done along time and height; along width windows are copied out,
and width, channels and phases are the inner dimension of one matrix product a point. By the transposition principle
the adjoint runs the transposed steps backwards, with as many multiplications.
"""

import functools
import itertools
import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

OUTPUTS = 3  # m: more would take fewer products, but more points and larger rounding errors
POINTS = (0, 1, -1, 2, -0.5)  # and infinity
CACHE_ENTRIES = 2**20  # entries of the products of one block of tiles: what the cache holds


class Axis(NamedTuple):
    """Minimal filtering along one axis; rows of E and K are ordered by point, then by phase."""

    A: np.ndarray  # (m, points)
    E: np.ndarray  # (rows, rows): what a tile's window of (m - 1) * s + k entries is multiplied with
    K: np.ndarray  # (rows, k): what the kernel is multiplied with
    phases: tuple  # for each point, its number of rows
    step: int  # from tile to tile, m * s


def toom_cook(m, points):
    """A (m, n), E (n, n), K (n, r) of m outputs at n points, the last of which is infinity; r = n - m + 1."""
    def powers(count):
        return np.array([[p**k for k in range(count)] for p in points] + [[0] * (count - 1) + [1]], dtype=float)

    n = len(points) + 1
    return powers(m).T, np.linalg.inv(powers(n)).T, powers(n - m + 1)


@functools.cache
def axis(kernel, stride):
    taps = math.ceil(kernel / stride)
    m = OUTPUTS if taps > 1 else 1
    points = POINTS[: m + taps - 2]
    A, E, K = toom_cook(m, points)
    longer = kernel - (taps - 1) * stride  # phases with all taps
    rows, order = [], [*range(len(points) - 1), len(points), len(points) - 1] if points else [0]
    if longer < stride and taps > 1:
        _, short_E, short_K = toom_cook(m, points[:-1])
    window = (m - 1) * stride + kernel
    for place, point in enumerate(order):
        for phase in range(min(stride, kernel)):
            if phase < longer:
                e, k = E[point], K[point]
            elif place < len(short_E):
                e, k = short_E[place], short_K[place]
            else:
                continue
            row = np.zeros(window), np.zeros(kernel)
            row[0][phase::stride], row[1][phase::stride] = e, k
            rows.append((place, *row))
    places, E, K = zip(*rows)
    return Axis(A[:, order], np.stack(E), np.stack(K), tuple(places.count(p) for p in range(len(order))), m * stride)


def products(time, height):
    """The matrix products, for each: point in time, points in height (those of equally many phases go together), and
    the rows that they take in time and in height."""
    found, rows = [], 0
    for point, phases in enumerate(time.phases):
        above = first = 0
        for in_height, same in itertools.groupby(height.phases):
            count = len(list(same))
            found.append((point, slice(first, first + count), slice(rows, rows + phases),
                          slice(above, above + count * in_height)))
            above, first = above + count * in_height, first + count
        rows += phases
    return found


def kernels(weight, stride):
    """weight (c_out, c, kd, kh, kw) at the points: for each of `products` (points, phases * kw * c, c_out)."""
    time, height = map(axis, weight.shape[2:4], stride[:2])
    at = torch.tensordot(torch.from_numpy(time.K).to(weight), weight, dims=([1], [2]))  # (rows, c_out, c, kh, kw)
    at = torch.tensordot(torch.from_numpy(height.K).to(weight), at, dims=([1], [3]))  # (rows, rows, c_out, c, kw)
    each = []
    for _, points, in_time, in_height in products(time, height):
        kernel = at[in_height, in_time].unflatten(0, (points.stop - points.start, -1)).permute(0, 2, 1, 5, 4, 3)
        each.append(kernel.reshape(len(kernel), -1, len(weight)))
    return each


class Tiles:
    """Convolution of kernel and stride, each (time, height, width), onto maps of size (T, H, W), in tiles.

    in_size is what the tiles see of the padded input, (T', H', W').
    """

    def __init__(self, kernel, stride, size):
        self.kernel, self.stride, self.size = kernel[2], stride[2], size
        self.time, self.height = map(axis, kernel[:2], stride[:2])
        self.products = products(self.time, self.height)
        axes = list(zip(size, (self.time, self.height)))
        self.counts = [math.ceil(n / len(a.A)) for n, a in axes]
        self.in_size = (*((n - 1) * a.step + len(a.E) for n, (_, a) in zip(self.counts, axes)),
                        (size[2] - 1 + math.ceil(kernel[2] / stride[2])) * stride[2])

    def blocks(self, c_out):
        """Blocks of tiles whose products fit the cache, as ranges (tiles in time, tiles in height)."""
        times, heights = self.counts
        room = CACHE_ENTRIES // (len(self.time.phases) * len(self.height.phases) * self.size[2] * c_out) + 1
        high = min(room, heights)
        long = max(1, min(room // heights, times))
        for i in range(0, times, long):
            for j in range(0, heights, high):
                yield range(i, min(i + long, times)), range(j, min(j + high, heights))

    def convolve(self, x, kernels, bias):
        """Maps x (N, c, T', H', W'), padded to `in_size` at least, to (N, c_out, T, H, W)."""
        (t, h, w), c_out, c = self.size, len(bias), x.shape[1]
        y = x.new_empty(len(x), *self.size, c_out)
        E_t, A_t, E_h, A_h = (torch.from_numpy(m).to(x) for a in (self.time, self.height) for m in (a.E, a.A))
        (m_t, p_t), (m_h, p_h), n_t, n_h = A_t.shape, A_h.shape, len(E_t), len(E_h)
        kernel, stride = self.kernel * c, self.stride * c
        for video, out in zip(x.permute(0, 2, 3, 4, 1).flatten(3), y):
            for i, j in self.blocks(c_out):
                I, J = len(i), len(j)
                rows = video[:, j[0] * self.height.step : j[-1] * self.height.step + n_h]
                lines = rows[i[0] * self.time.step : i[-1] * self.time.step + n_t].unfold(0, n_t, self.time.step)
                lines = torch.bmm(E_t.expand(I, -1, -1), lines.movedim(-1, 1).flatten(2))
                lines = lines.view(I * n_t, -1, video.shape[2])
                at = x.new_empty(J, I * n_t, n_h, video.shape[2])
                for k in range(J):
                    tile = lines[:, k * self.height.step : k * self.height.step + n_h]
                    torch.bmm(E_h.expand(I * n_t, -1, -1), tile, out=at[k])
                at = at.view(J, I, n_t, n_h, -1).unfold(-1, kernel, stride)[..., :w, :]
                M = x.new_empty(p_t, p_h, I * J * w, c_out)
                for (a, b, in_time, in_height), U in zip(self.products, kernels, strict=True):
                    columns = at[:, :, in_time, in_height].unflatten(3, (len(U), -1)).permute(3, 1, 0, 5, 2, 4, 6)
                    torch.bmm(columns.reshape(len(U), I * J * w, -1), U, out=M[a, b])
                Z = torch.bmm(A_h.expand(p_t, -1, -1), M.view(p_t, p_h, -1))
                Z = (A_t @ Z.view(p_t, -1)).view(m_t, m_h, I, J, w, c_out).permute(2, 0, 3, 1, 4, 5)
                here = out[i[0] * m_t : (i[-1] + 1) * m_t, j[0] * m_h : (j[-1] + 1) * m_h]
                Z = Z.reshape(I * m_t, J * m_h, w, c_out)
                torch.add(Z[: here.shape[0], : here.shape[1]], bias, out=here)
        return y.permute(0, 4, 1, 2, 3)

    def adjoint(self, g, kernels):
        """The transpose of `convolve`: g (N, c_out, T, H, W) to (N, c, T', H', W') of `in_size`."""
        (t, h, w), c_out = self.size, g.shape[1]
        _, points, in_time, in_height = self.products[0]
        c = kernels[0].shape[1] * len(kernels[0]) // ((in_time.stop) * (in_height.stop) * self.kernel)
        E_t, A_t, E_h, A_h = (torch.from_numpy(m.T).to(g) for a in (self.time, self.height) for m in (a.E, a.A))
        (p_t, m_t), (p_h, m_h), n_t, n_h = A_t.shape, A_h.shape, len(E_t), len(E_h)
        kernel, stride = self.kernel * c, self.stride * c
        x = g.new_zeros(len(g), *self.in_size, c)
        for video, out in zip(g.permute(0, 2, 3, 4, 1), x.flatten(3)):
            for i, j in self.blocks(c_out):
                I, J = len(i), len(j)
                here = video[i[0] * m_t : (i[-1] + 1) * m_t, j[0] * m_h : (j[-1] + 1) * m_h]
                short = I * m_t - here.shape[0], J * m_h - here.shape[1]
                if any(short):
                    here = F.pad(here, (0, 0, 0, 0, 0, short[1], 0, short[0]))
                Z = here.reshape(I, m_t, J, m_h, w * c_out).permute(1, 3, 0, 2, 4).reshape(m_t, -1)
                Z = torch.bmm(A_h.expand(p_t, -1, -1), (A_t @ Z).view(p_t, m_h, -1))
                M = Z.view(p_t, p_h, I * J * w, c_out)
                at = g.new_zeros(J, I, n_t, n_h, out.shape[2])
                for (a, b, in_time, in_height), U in zip(self.products, kernels, strict=True):
                    target = at[:, :, in_time, in_height].unflatten(3, (len(U), -1))
                    columns = torch.bmm(M[a, b], U.transpose(1, 2))
                    columns = columns.view(len(U), I, J, w, *target.shape[2:5:2], kernel).permute(2, 1, 4, 0, 5, 3, 6)
                    for k in range(0, kernel, stride):
                        part = columns[..., k : k + stride]
                        target[..., k : k + w * stride].unflatten(-1, (w, stride))[..., : part.shape[-1]] += part
                at = at.view(J, I * n_t, n_h, -1)
                lines = g.new_zeros(I * n_t, (J - 1) * self.height.step + n_h, at.shape[3])
                for k in range(J):
                    tile = lines[:, k * self.height.step : k * self.height.step + n_h]
                    tile += torch.bmm(E_h.expand(I * n_t, -1, -1), at[k])
                lines = lines.view(I, n_t, -1)
                rows = out[:, j[0] * self.height.step : j[-1] * self.height.step + n_h]
                for k in range(I):
                    start = (i[0] + k) * self.time.step
                    rows[start : start + n_t].flatten(1).addmm_(E_t, lines[k])
        return x.permute(0, 4, 1, 2, 3)
