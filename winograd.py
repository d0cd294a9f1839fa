"""Strided convolution of few channels with fewer multiplications: Toom-Cook (Winograd) minimal filtering.

Along one axis with kernel k and stride s, output u is a sum over the phases p < s of filters with ceil((k - p) / s)
taps over x[u * s + p]. Toom-Cook takes m outputs of r taps from products at m + r - 1 points, A ((E x) * (K w))
(S. Winograd, Arithmetic Complexity of Computations, 1980; Lavin and Gray, CVPR 2016, for nets). The products of all
phases at a point are added up before A. The point at infinity meets the last tap alone, so phases with a tap fewer
leave it out, and m outputs take (m - 1) * s + k products instead of m * k.

This is done along time and height; along width, too, where a point then has more phases and channels than there are
output channels, else windows are copied out. Phases and channels are the inner dimension of one matrix product a point.
The adjoint is the transposed steps in reverse order (transposition principle), with as many products. Maps
(N, C, T, H, W) are stored channels last.
"""

import functools
import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F

OUTPUTS = 3  # m: fewer save fewer products, more need points whose powers round worse
MOST_POINTS = 7  # in time, where m is what they allow
MOST_TAPS = 4
# Finite points by their number, those whose error |A| |E| |K| is least or nearly (searched for among small fractions).
POINTS = {0: (), 3: (0, 1, -1), 4: (0, 1, -2, -5 / 8), 5: (0, 3 / 2, -3 / 2, 2 / 3, -2 / 3),
          6: (0, 1, 1 / 2, -5 / 8, 3, -5 / 4)}
CACHE_ENTRIES = 2**22


def toom_cook(m, points):
    """A (m, n), E (n, n) and K (n, r) for m outputs of r taps at n = m + r - 1 points: these and infinity."""
    def powers(count):
        return np.array([[p**k for k in range(count)] for p in points] + [[0] * (count - 1) + [1]], dtype=float)

    n = len(points) + 1
    return powers(m).T, np.linalg.inv(powers(n)).T, powers(n - m + 1)


class Axis:
    """Minimal filtering along one axis, by tiles of m outputs.

    A map is (N, blocks along this axis, blocks along axes to come, phases of time, height, width, c), a block being as
    long as the stride. Of N maps and their tiles there are N * tiles maps for the next axis, at each of the points.
    """

    def __init__(self, kernel, stride, outputs, phase, like):
        taps = math.ceil(kernel / stride)
        self.stride, self.phase, self.longer = stride, phase, kernel - (taps - 1) * stride
        self.m = outputs if taps > 1 else 1
        matrices = toom_cook(self.m, POINTS[self.m + taps - 2])
        self.tiled = functools.cache(self.make_tiled)
        self.A, self.E, self.K = (torch.from_numpy(matrix).to(like) for matrix in matrices)

    def seen(self, tiles):
        """Blocks that so many tiles see."""
        return (tiles - 1) * self.m + len(self.E)

    def make_tiled(self, tiles):
        """E for so many tiles at once: (tiles * points, blocks)."""
        E = self.E.new_zeros(tiles, len(self.E), self.seen(tiles))
        for k, part in enumerate(E):
            part[:, k * self.m :][:, : len(self.E)] = self.E
        return E.flatten(0, 1)

    def long(self, x):
        """The phases of x that have all taps."""
        return x.narrow(self.phase, 0, self.longer)

    def at_points(self, x, matrix):
        """Map x at the finite points, and its long phases at infinity: (maps, points, ...)."""
        y = torch.bmm(matrix.expand(len(x), -1, -1), x.flatten(2)).view(-1, len(self.E), *x.shape[2:])
        return y[:, :-1], self.long(y[:, -1:]).contiguous()


class Tiles:
    """The convolution with weight (c_out, c, kd, kh, kw) at a stride (time, height, width) onto maps of size (T, H, W).

    in_size (T', H', W') is what the tiles see of the padded input; the last ones may stick out of the output.
    """

    def __init__(self, weight, stride, size):
        (self.c_out, c), kernel = weight.shape[:2], weight.shape[2:]
        self.stride, self.size, self.window, self.step = stride, size, kernel[2] * c, stride[2] * c
        self.wide = math.prod(stride) * c > 4 * self.c_out and math.ceil(kernel[2] / stride[2]) <= MOST_TAPS
        outputs = MOST_POINTS + 1 - math.ceil(kernel[0] / stride[0]), OUTPUTS, OUTPUTS
        self.axes = [Axis(kernel[k], stride[k], outputs[k], k - 4, weight) for k in range(2 + self.wide)]
        self.tiles = [math.ceil(n / axis.m) for n, axis in zip(size, self.axes)]
        self.along = 1 if self.wide else size[2]  # windows along width
        self.out_size, self.in_size = list(size), [0, 0, (size[2] - 1 + math.ceil(kernel[2] / stride[2])) * stride[2]]
        for k, (axis, count) in enumerate(zip(self.axes, self.tiles)):
            self.out_size[k] = axis.m * count
            self.in_size[k] = axis.seen(count) * axis.stride

    def to_blocks(self, x):
        """x (N, T, H, W, c) as the first axis' map."""
        (n, t, h, w, c), (sd, sh, sw) = x.shape, self.stride
        x = x.view(n, t // sd, sd, h // sh, sh, -1, sw if self.wide else w, c).permute(0, 1, 3, 5, 2, 4, 6, 7)
        return x.contiguous() if self.wide else x.squeeze(3).contiguous()

    def kernels(self, weight):
        """The weight at the points: for each point of all axes but the last, (points, K, c_out) at the finite points of
        the last and (1, K', c_out) at infinity."""
        edges = [0] * 8
        for axis in self.axes:
            edges[-2 * axis.phase - 1] = -weight.shape[axis.phase + 1] % axis.stride
        maps = [self.to_blocks(F.pad(weight.permute(2, 3, 4, 1, 0).flatten(3), edges)[None])]
        for axis in self.axes:
            maps = [part for x in maps for part in axis.at_points(x, axis.K)]
            if axis is not self.axes[-1]:
                maps = [x for part in maps for x in part.unbind(1)]
        return [x[0].reshape(x.shape[1], math.prod(x.shape[2:]) // self.c_out, self.c_out) for x in maps]

    def ranges(self, count):
        """Blocks of tiles of `count` videos, as many as the cache holds: (first, stop) in time and in height."""
        products = math.prod([count, self.along, self.c_out, *self.tiles[2:], *(len(axis.E) for axis in self.axes)])
        room = max(1, CACHE_ENTRIES // products)
        high = min(max(math.isqrt(room), room // self.tiles[0]), self.tiles[1])
        steps = min(room // high, self.tiles[0]), high
        parts = [[(k, min(k + step, n)) for k in range(0, n, step)] for step, n in zip(steps, self.tiles)]
        return itertools.product(*parts)

    def seen(self, x, *ranges):
        """What blocks of tiles see of the first axis' map."""
        for k, (axis, (first, stop)) in enumerate(zip(self.axes, ranges), start=1):
            x = x.narrow(k, first * axis.m, axis.seen(stop - first))
        return x

    def by_tile(self, y):
        """y (N, T, H, W, c_out), filled up to whole tiles, as a view (outputs of time, height and width, N, tiles of
        time, height and width, windows, c_out)."""
        (t, h, *w), (tiles_t, tiles_h, *tiles_w) = [axis.m for axis in self.axes], self.tiles
        y = y.view(len(y), tiles_t, t, tiles_h, h, *(tiles_w or [1]), *(w or [1]), self.along, self.c_out)
        return y.permute(2, 4, 6, 0, 1, 3, 5, 7, 8)

    def convolve(self, x, kernels, bias):
        """x (N, c, T', H', W'), padded to `in_size`, to (N, c_out, T, H, W)."""
        y, x = x.new_empty(len(x), *self.out_size, self.c_out), self.to_blocks(x.permute(0, 2, 3, 4, 1))
        for long, high in self.ranges(len(y)):
            out = self.by_tile(y)[:, :, :, :, slice(*long), slice(*high)]
            found = self.products(self.seen(x, long, high), iter(kernels), *self.axes)
            torch.add(found.view(out.shape), bias, out=out)
        return y[:, : self.size[0], : self.size[1], : self.size[2]].permute(0, 4, 1, 2, 3)

    def products(self, x, kernels, axis, *others):
        """The outputs (m, ...) along an axis, those along axes to come inside."""
        tiles = (x.shape[1] - len(axis.E)) // axis.m + 1
        parts = axis.at_points(x, axis.tiled(tiles))
        if others:
            found = torch.stack([self.products(each, kernels, *others) for part in parts for each in part.unbind(1)])
        else:
            found = torch.cat([torch.bmm(self.columns(part, k), k) for part, k in zip(parts, kernels)])
        return axis.A @ found.flatten(1)

    def columns(self, x, kernel):
        """The rows (points, positions, K) of the last axis' points that meet a kernel."""
        x = x.transpose(0, 1).flatten(-2).flatten(2, 3)  # (points, maps, phases, w' * c)
        windows = x.unfold(-1, kernel.shape[1] // x.shape[2], self.step)[:, :, :, : self.along].transpose(2, 3)
        return windows.flatten(3).flatten(1, 2)

    def adjoint(self, g, kernels):
        """The transpose of `convolve` without its bias: g (N, c_out, T, H, W) to (N, c, T', H', W') of `in_size`."""
        (sd, sh, sw), (t, h, w), n = self.stride, self.in_size, len(g)
        short = [out - size for out, size in zip(self.out_size, self.size)]
        if any(short):
            g = F.pad(g, [edge for missing in reversed(short) for edge in (0, missing)])
        g = self.by_tile(g.permute(0, 2, 3, 4, 1).contiguous())
        across = (w // sw, sw) if self.wide else (1, w)
        x = g.new_zeros(n, t // sd, h // sh, across[0], sd, sh, across[1], self.step // sw)
        into = x if self.wide else x.squeeze(3)
        for long, high in self.ranges(n):
            part, target = g[:, :, :, :, slice(*long), slice(*high)], self.seen(into, long, high)
            target += self.transposed(part.reshape(len(g), -1), iter(kernels), target.shape, *self.axes)
        return x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(n, t, h, w, -1).permute(0, 4, 1, 2, 3)

    def transposed(self, g, kernels, shape, axis, *others):
        """The transpose of `products`, onto a map of a shape."""
        g, matrix = axis.A.T @ g, axis.tiled((shape[1] - len(axis.E)) // axis.m + 1)
        y = g.new_empty(shape[0] * len(matrix) // len(axis.E), len(axis.E), *shape[2:])
        y[:, -1] = 0
        parts = y[:, :-1], axis.long(y[:, -1:])
        if others:
            for row, target in zip(g, [each for part in parts for each in part.unbind(1)]):
                target.copy_(self.transposed(row.view(others[0].m, -1), kernels, target.shape, *others))
        else:
            rows = g.view(len(g), -1, self.c_out)
            for row, target, kernel in zip((rows[:-1], rows[-1:]), parts, kernels):
                self.from_columns(row, kernel.transpose(1, 2), target.transpose(0, 1))
        return torch.bmm(matrix.T.expand(shape[0], -1, -1), y.view(shape[0], len(matrix), -1)).view(shape)

    def from_columns(self, g, kernel, x):
        """The transpose of `columns` of the products of g and a kernel, into x (points, maps, phases, c)."""
        if self.wide:
            return x.copy_(torch.bmm(g, kernel).view(x.shape))
        x = x.zero_().flatten(-2)
        columns = torch.bmm(g, kernel).view(*x.shape[:2], self.along, *x.shape[2:4], self.window)
        columns = columns.movedim(2, -2)
        for k in range(0, self.window, self.step):
            part = columns[..., k : k + self.step]
            into = x[..., k : k + self.along * self.step].unflatten(-1, (self.along, self.step))
            into[..., : part.shape[-1]] += part
