"""Strided convolution of few channels with fewer multiplications: Toom-Cook (Winograd) minimal filtering.

Along one axis with kernel k and stride s, output u is a sum over the phases p < s of filters with ceil((k - p) / s)
taps over x[u * s + p]. Toom-Cook takes m outputs of r taps from products at m + r - 1 points, A ((E x) * (K w))
(S. Winograd, Arithmetic Complexity of Computations, 1980; Lavin and Gray, CVPR 2016, for nets). The products of all
phases at a point are added up before A. The point at infinity meets the last tap alone, so phases with a tap fewer
leave it out, and m outputs take (m - 1) * s + k products instead of m * k.

This is done along time and height, and along width where the stride is large; elsewhere windows are copied out along
width. What is left at a point is one matrix product, over phases and channels. Blocks of tiles are worked on side by
side, a core each; where the weights at all points are more than a cache holds, the points of time are, so that each
core reads weights of its own, once. The adjoint is the transposed steps in reverse order (transposition principle),
with as many products. Maps (N, C, T, H, W) are stored channels last.
"""

import itertools
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F

OUTPUTS = 3  # m along height and width: fewer save fewer products, more need points whose powers round worse
MOST_POINTS = 7  # along time, where m is what they allow: a second such axis rounds too much
MOST_TAPS = 4  # of kernels that are filtered along time and height
# Finite points by their number, those whose error |A| |E| |K| is least or nearly (searched for among small fractions).
POINTS = {0: (), 3: (0, 1, -1), 4: (0, 1, -2, -5 / 8), 5: (0, 3 / 2, -3 / 2, 2 / 3, -2 / 3),
          6: (0, 1, 1 / 2, -5 / 8, 3, -5 / 4)}
CACHE_ENTRIES = 2**22  # entries of the weights, or of a block's products, at all points: what the cache holds
ROW = 16  # products of windows are a fifth faster where their rows begin at multiples of this
THREADS = ThreadPoolExecutor(torch.get_num_threads(), initializer=lambda: torch.set_num_threads(1))  # one core each


def outputs_of(taps):
    """m along time, height and width for kernels of that many taps on each axis."""
    return [m if r > 1 else 1 for r, m in zip(taps, (MOST_POINTS + 1 - taps[0], OUTPUTS, OUTPUTS))]


def saves(kernel, stride, size):
    """Whether whole tiles of outputs of size (T, H, W) take fewer products along time and height than the sums do."""
    taps = [math.ceil(k / s) for k, s in zip(kernel, stride)]
    if max(taps[:2]) > MOST_TAPS:
        return False
    axes = list(zip(taps, outputs_of(taps), size))[:2]
    return math.prod(math.ceil(n / m) * (m + r - 1) for r, m, n in axes) < math.prod(n * r for r, _, n in axes)


def toom_cook(m, points):
    """A (m, n), E (n, n) and K (n, r) for m outputs of r taps at n = m + r - 1 points: these and infinity."""
    def powers(count):
        return np.array([[p**k for k in range(count)] for p in points] + [[0] * (count - 1) + [1]], dtype=float)

    n = len(points) + 1
    return powers(m).T, np.linalg.inv(powers(n)).T, powers(n - m + 1)


def product_into(x, a, b):
    """x (N, R, ...) = a (N, R, K) @ b (N, K, the rest of x)."""
    flat = x.flatten(2)
    torch.bmm(a, b, out=flat)
    if flat.data_ptr() != x.data_ptr():  # where phases are left out, x is in pieces
        x.copy_(flat.view(x.shape))


class Axis:
    """Minimal filtering along one axis: `size` outputs in tiles of m, the last of which may stick out. They see `reach`
    entries that may differ from zero; blocks that begin after these are left out.

    A map is (maps, blocks along this axis, blocks along the axes to come, phases of time, of height, of width, c); a
    block is as long as the stride. At the points it is (maps * tiles, points, blocks along the axes to come, ...).
    """

    def __init__(self, kernel, stride, size, reach, m, phase, like):
        taps = math.ceil(kernel / stride)
        self.m, self.stride, self.phase, self.longer = m, stride, phase, kernel - (taps - 1) * stride
        self.A, E, self.K = (torch.from_numpy(v).to(like) for v in toom_cook(m, POINTS[m + taps - 2]))
        self.points, self.tiles = len(E), math.ceil(size / self.m)
        self.E = E.new_zeros(self.tiles, self.points, (self.tiles - 1) * self.m + self.points)  # of all tiles
        for k, tile in enumerate(self.E):
            tile[:, k * self.m :][:, : self.points] = E
        self.blocks = math.ceil(reach / stride)

    def seen(self, first, stop):
        """The blocks that some tiles see: where they begin, and how many they are."""
        return first * self.m, min((stop - first - 1) * self.m + self.points, self.blocks - first * self.m)

    def transform(self, first=0, stop=None):
        """E of some tiles, or of all: (tiles * points, blocks)."""
        stop = stop or self.tiles
        return self.E[: stop - first, :, : self.seen(first, stop)[1]].flatten(0, 1)

    def at_points(self, x, matrix):
        """Map x at the points; matrix is a `transform`, or K for weights."""
        y = torch.bmm(matrix.expand(len(x), -1, -1), x.flatten(2))
        return y.view(-1, self.points, *x.shape[2:])

    def room(self, x, transform):
        """Room for map x at the points, zeros where phases are left out at infinity."""
        y = x.new_empty(len(x) * len(transform) // self.points, self.points, *x.shape[2:])
        y[:, -1] = 0
        return y

    def parts(self, y):
        """A map at the points: at the finite ones, and its phases that have all taps at infinity."""
        return y[:, :-1], y[:, -1:].narrow(self.phase, 0, self.longer)

    def each(self, y):
        """The map at each point."""
        return [x for part in self.parts(y) for x in part.unbind(1)]


class Tiles:
    """The convolution with weight (c_out, c, kd, kh, kw) at a stride (time, height, width) onto maps of size (T, H, W).

    Of the padded input, `reach` entries of each axis may differ from zero, or matter; in_size (T', H', W') is these and
    what fills up their last blocks.
    """

    def __init__(self, weight, stride, size, reach):
        (self.c_out, self.c), kernel = weight.shape[:2], weight.shape[2:]
        self.stride, self.size = stride, size
        taps = [math.ceil(k / s) for k, s in zip(kernel, stride)]
        # along width it saves more than it costs where a point's phases and channels are many for its output channels
        self.wide = taps[2] <= MOST_TAPS and math.prod(stride) * self.c > 4 * self.c_out
        self.axes = [Axis(kernel[k], stride[k], size[k], reach[k], m, k - 4, weight)
                     for k, m in enumerate(outputs_of(taps)[: 2 + self.wide])]
        self.points = [axis.points for axis in self.axes]
        self.along = 1 if self.wide else size[2]  # windows along width
        self.in_size = [axis.blocks * axis.stride for axis in self.axes]
        self.out_size = [axis.tiles * axis.m for axis in self.axes]
        self.window = (stride[2] if self.wide else kernel[2]) * self.c  # entries of a row of `columns` per phase
        weights = math.prod([*self.points, *stride[:2], self.window, self.c_out])
        by_block, cores, tiles_h = weights <= CACHE_ENTRIES, torch.get_num_threads(), self.axes[1].tiles
        side_by_side = THREADS.map if cores > 1 else map
        self.map_blocks, self.map_points = (side_by_side, map) if by_block else (map, side_by_side)
        self.highest = math.ceil(tiles_h / 2 / cores) if by_block else tiles_h  # tiles of a block: two blocks a core
        if not self.wide:
            self.in_size.append((size[2] - 1 + taps[2]) * stride[2])
            self.out_size.append(size[2])

    def to_blocks(self, x):
        """x (N, T, H, W, c) as the first axis' map."""
        (n, t, h, w, c), (sd, sh, sw) = x.shape, self.stride
        across = sw if self.wide else w
        x = x.view(n, t // sd, sd, h // sh, sh, w // across, across, c).permute(0, 1, 3, 5, 2, 4, 6, 7)
        return x.contiguous() if self.wide else x.squeeze(3).contiguous()

    def from_blocks(self, x):
        """The inverse of `to_blocks`."""
        x = x if self.wide else x.unsqueeze(3)
        return x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(len(x), *self.in_size, self.c)

    def kernels(self, weight):
        """The weight at the points: for each point of all axes but the last, (points, K, c_out) at the finite points of
        the last and (1, K', c_out) at infinity. Rows of windows are followed by zeros up to a multiple of ROW."""
        edges = [0] * 8
        for axis in self.axes:
            edges[-2 * axis.phase - 1] = -weight.shape[axis.phase + 1] % axis.stride
        *others, last = self.axes
        maps = [self.to_blocks(F.pad(weight.permute(2, 3, 4, 1, 0).flatten(3), edges)[None])]
        for axis in others:
            maps = [each for x in maps for each in axis.each(axis.at_points(x, axis.K))]
        parts = [part[0] for x in maps for part in last.parts(last.at_points(x, last.K))]
        parts = [x.reshape(len(x), math.prod(x.shape[1:]) // self.c_out, self.c_out) for x in parts]
        return parts if self.wide else [F.pad(x, (0, 0, 0, -x.shape[1] % ROW)) for x in parts]

    def groups(self, count):
        """Blocks of tiles of `count` videos, as many as the cache holds: (first, stop) in time and in height. In groups
        of every other one in time and in height, which see no input in common."""
        across = self.axes[2].tiles if self.wide else self.along
        room = CACHE_ENTRIES // math.prod([count, across, self.c_out, *self.points]) + 1
        tiles_t, tiles_h = (axis.tiles for axis in self.axes[:2])
        high = min(max(math.isqrt(room), room // tiles_t), self.highest)
        times, heights = ([(k, min(k + step, n)) for k in range(0, n, step)]
                          for step, n in ((min(room // high, tiles_t), tiles_t), (high, tiles_h)))
        return [list(itertools.product(times[t::2], heights[h::2])) for t in (0, 1) for h in (0, 1)]

    def seen(self, x, block):
        """What a block of tiles sees of the first axis' map."""
        for dim, (axis, tiles) in enumerate(zip(self.axes, block), start=1):
            x = x.narrow(dim, *axis.seen(*tiles))
        return x

    def by_tile(self, y, block):
        """A block of y (N, T, H, W, c_out) of `out_size`: a view (outputs of time, height and width, N, tiles of time,
        height and width, windows, c_out)."""
        (t, h, *w), (tiles_t, tiles_h, *tiles_w) = zip(*((axis.m, axis.tiles) for axis in self.axes))
        y = y.view(len(y), tiles_t, t, tiles_h, h, *(tiles_w or [1]), *(w or [1]), self.along, self.c_out)
        for dim, (first, stop) in zip((1, 3), block):
            y = y.narrow(dim, first, stop - first)
        return y.permute(2, 4, 6, 0, 1, 3, 5, 7, 8)

    def transforms(self, block):
        """The axes, each with the `transform` of a block of tiles."""
        return [(axis, axis.transform(*tiles)) for axis, tiles in zip(self.axes, (*block, ()))]

    def at_each_point(self, work, y, kernels, found, axes):
        """work(map, kernels, found, *axes to come) at each point of time; y is the map at the points."""
        maps = self.axes[0].each(y)
        size = len(kernels) // len(maps)
        shares = [kernels[k : k + size] for k in range(0, len(kernels), size)]
        list(self.map_points(lambda *its: work(*its, *axes), maps, map(iter, shares), found))

    def convolve(self, x, kernels, bias):
        """x (N, c, T', H', W'), padded to `in_size`, to (N, c_out, T, H, W)."""
        y = x.new_empty(len(x), *self.out_size, self.c_out)
        x, bias = self.to_blocks(x.permute(0, 2, 3, 4, 1)), bias.detach()

        def fill(block):
            out, ((time, transform), *others) = self.by_tile(y, block), self.transforms(block)
            found = y.new_empty(*self.points, out[0, 0, 0].numel() // self.c_out, self.c_out)
            self.at_each_point(self.products, time.at_points(self.seen(x, block), transform), kernels, found, others)
            for k, axis in reversed(list(enumerate(self.axes))):
                found = found.view(math.prod(self.points[:k]), axis.points, -1)
                found = torch.bmm(axis.A.expand(len(found), -1, -1), found)
            torch.add(found.view(out.shape), bias, out=out)

        list(self.map_blocks(fill, sum(self.groups(len(y)), [])))
        return y[:, : self.size[0], : self.size[1], : self.size[2]].permute(0, 4, 1, 2, 3)

    def products(self, x, kernels, found, here, *others):
        """Fill found (points of the axes to come, rows, c_out) with a map's products."""
        axis, transform = here
        y = axis.at_points(x, transform)
        if others:
            for each, into in zip(axis.each(y), found):
                self.products(each, kernels, into, *others)
        else:
            for part, into, kernel in zip(axis.parts(y), (found[:-1], found[-1:]), kernels):
                rows = self.columns(part)
                torch.bmm(rows, kernel[:, : rows.shape[2]], out=into)

    def columns(self, x):
        """The rows (points, positions, K) of the last axis' points that meet a kernel."""
        x = x.transpose(0, 1).flatten(-2).flatten(2, 3)  # (points, maps, phases, w' * c)
        windows = x.unfold(-1, min(self.window, x.shape[-1]), self.stride[2] * self.c)[:, :, :, : self.along]
        return windows.transpose(2, 3).flatten(3).flatten(1, 2)

    def adjoint(self, g, kernels):
        """The transpose of `convolve` without its bias: g (N, c_out, T, H, W) to (N, c, T', H', W') of `in_size`."""
        short = [full - size for full, size in zip(self.out_size, self.size)]
        if any(short):
            g = F.pad(g, [edge for missing in reversed(short) for edge in (0, missing)])
        (sd, sh, sw), (t, h, w) = self.stride, self.in_size
        across = (w // sw, sd, sh, sw) if self.wide else (sd, sh, w)
        g, groups = g.permute(0, 2, 3, 4, 1).contiguous(), self.groups(len(g))
        overlap = sum(map(len, groups)) > 1
        x = (g.new_zeros if overlap else g.new_empty)(len(g), t // sd, h // sh, *across, self.c)

        def add(block):
            found, into = self.by_tile(g, block).reshape(-1, self.c_out), self.seen(x, block)
            for k, axis in enumerate(self.axes):
                found = found.view(math.prod(self.points[:k]), axis.m, -1)
                found = torch.bmm(axis.A.T.expand(len(found), -1, -1), found)
            (time, transform), *others = self.transforms(block)
            y = time.room(into, transform)
            self.at_each_point(self.transposed, y, kernels, found.view(*self.points, -1, self.c_out), others)
            y, transform = y.view(len(into), len(transform), -1), transform.T.expand(len(into), -1, -1)
            into.flatten(2).baddbmm_(transform, y, beta=int(overlap))

        for group in groups:
            list(self.map_blocks(add, group))
        return self.from_blocks(x).permute(0, 4, 1, 2, 3)

    def transposed(self, x, kernels, found, here, *others):
        """The transpose of `products`, into map x."""
        axis, transform = here
        y = axis.room(x, transform)
        if others:
            for into, each in zip(axis.each(y), found):
                self.transposed(into, kernels, each, *others)
        else:
            for into, each, kernel in zip(axis.parts(y), (found[:-1], found[-1:]), kernels):
                self.from_columns(each, kernel.transpose(1, 2), into.transpose(0, 1))
        product_into(x, transform.T.expand(len(x), -1, -1), y.view(len(x), len(transform), -1))

    def from_columns(self, g, kernel, x):
        """The transpose of `columns`, of the products of g and a kernel, into x (points, maps, phases, c)."""
        if self.wide:
            product_into(x, g, kernel)
            return
        x, step, phases = x.zero_().flatten(-2), self.stride[2] * self.c, x.shape[2:4]
        columns = torch.bmm(g, kernel)[..., : math.prod(phases) * self.window]
        columns = columns.view(*x.shape[:2], self.along, *phases, self.window).movedim(2, -2)
        for k in range(0, self.window, step):
            part = columns[..., k : k + step]
            into = x[..., k : k + self.along * step].unflatten(-1, (self.along, step))
            into[..., : part.shape[-1]] += part
