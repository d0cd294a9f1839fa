"""The convolution of model.Layer forward and back to its input, by the route that is fastest where it runs.

A convolution of few channels, the first layer's, is what libraries do worst. Each route is a class; all compute the
same sums, and none builds a graph for autograd. What a route makes of the weights once, its `kernels`, is handed to it
again at every call, so that whoever keeps them (`FastConv`) can bring them up to date in their place in memory.

    Direct     the library's own
    Columns    back, few channels: no product is spent on zeros
    Winograd   few channels: fewer multiplications (winograd.py)
    Blocks     few channels: stride 1 over blocks of stride^3 pixels as many channels, which matrix units like
"""

import itertools
import math

import torch
import torch.nn.functional as F

from fast import winograd
from utils import triton_works

CHANNELS_LAST = torch.channels_last_3d
CACHE_ENTRIES = 2**21  # on a CPU, entries of one block of columns in `Columns`: what its cache holds
FAST_ENTRIES = 20480  # PyTorch gives a single float32 video to a slow routine where C * T * H is no larger than this


def choose(layer, size):
    """The (forward, gradient) routes of a layer for maps of size (T, H, W): the fastest on three CPUs and an H200
    (docs/speed.md), with one exception.

    Over kernels of a thousand entries a forward pass by Winograd would take a tenth to a third less time, but it
    rounds twice as much as the library there, which moves more units across the kink of their ReLU, and gradients
    then miss the golden numbers. Over many thousands (ST) it rounds half as much again. bfloat16 is too coarse for
    its sums; with matrix units for it, blocks are 1.3 to 2.1 times as fast on a CPU, 2 to 16 times on a GPU.
    """
    weight, many, large = layer.weight, layer.weight.shape[1] > 4, layer.weight[0].numel() > 5000
    if weight.dtype == torch.bfloat16:
        if weight.is_cuda:
            return (Direct, Direct) if many and not large else (Blocks, Blocks)
        if torch.cpu.get_capabilities().get("amx_bf16"):
            return Direct if many else Blocks, Blocks
        return Direct, Direct if many else Columns
    if weight.is_cuda:
        return Direct, Direct
    if many:
        return Direct, Direct
    if not winograd.saves(layer.kernel, layer.stride, layer.out_size(size)):
        return Direct, Columns
    return Winograd if large else Direct, Winograd


class FastConv:
    """A layer's convolution and its input gradient, with the kernels of the routes that have been taken."""

    def __init__(self, layer, choose=choose):
        self.layer, self.choose = layer, choose
        self.routes, self.kernels, self.made_of = {}, {}, None

    @torch.no_grad()
    def forward(self, x):
        """What layer(x) gives, for x (N, C, T, H, W)."""
        route = self.choose(self.layer, x.shape[2:])[0]
        return self.route(route).forward(x, self.up_to_date(route))

    @torch.no_grad()
    def input_gradient(self, g, size):
        """Gradient with respect to the input of size (T, H, W), given g, the gradient with respect to the output."""
        route = self.choose(self.layer, size)[1]
        return self.route(route).backward(g, size, self.up_to_date(route))

    def route(self, route):
        """The one object of a route's class for this layer."""
        if route not in self.routes:
            self.routes[route] = route(self.layer)
        return self.routes[route]

    @torch.no_grad()
    def renew(self):
        """Bring the kernels of all routes in use up to date with the weights, in their place in memory, where a CUDA
        graph reads them."""
        weight, bias = self.layer.weight, self.layer.bias
        kind, version = (weight.dtype, weight.device), (weight._version, bias._version)
        if self.made_of == (kind, version):
            return
        if self.made_of and self.made_of[0] != kind:
            self.kernels.clear()
        for route, kernels in self.kernels.items():
            for kernel, fresh in zip(kernels, self.route(route).make(), strict=True):
                kernel.copy_(fresh)
        self.made_of = kind, version

    @torch.no_grad()
    def up_to_date(self, route):
        """The kernels of a route."""
        self.renew()
        if route not in self.kernels:
            self.kernels[route] = self.route(route).make()
        return self.kernels[route]


def reach(layer, size):
    """Where the zeros after a map of size (T, H, W) begin, on each axis of the padded map."""
    pads = layer.padding(size)
    ends = [before + n for n, (before, _) in zip(size, pads, strict=True)]
    ends[0] += pads[0][1] * layer.wrap  # a circle has frames there
    return ends


def unwrap_time(padded, before, after, dim):
    """The transpose of `wrap_time`: add what the padding received to the frames that it stood for, in place."""
    frames = padded.shape[dim] - before - after
    padded.narrow(dim, frames, before).add_(padded.narrow(dim, 0, before))
    padded.narrow(dim, before, after).add_(padded.narrow(dim, before + frames, after))


def unpadded(layer, padded, size):
    """The gradient with respect to maps of size (T, H, W), given that with respect to these maps padded."""
    missing = [max(end - have, 0) for end, have in zip(reach(layer, size), padded.shape[2:], strict=True)]
    if any(missing):  # positions that no stride reached have no gradient
        padded = F.pad(padded, [edge for m in reversed(missing) for edge in (0, m)])
    pads = layer.padding(size)
    if layer.wrap:
        unwrap_time(padded[:, :, : size[0] + sum(pads[0])], *pads[0], dim=2)
    for axis, (n, (before, _)) in enumerate(zip(size, pads, strict=True), start=2):
        padded = padded.narrow(axis, before, n)
    return padded


class Direct:
    def __init__(self, layer):
        self.layer = layer

    def make(self):
        return []

    def forward(self, x, kernels):
        return F.conv3d(self.layer.pad(x), self.layer.weight, self.layer.bias, self.layer.stride)

    def backward(self, g, size, kernels):
        return unpadded(self.layer, F.conv_transpose3d(g, self.layer.weight, stride=self.layer.stride), size)


class Columns:
    """Transposed convolution onto few channels, without the waste that the libraries' own makes of it.

    An input pixel in row u * stride + phase gathers from the output rows u, u - 1, ...; likewise in time. So all
    pixels of a phase in time and height are one convolution at the output's coarse resolution, whose channels are
    the kernel's columns; phases with the same number of taps go together, and no product is spent on zeros. The
    columns, of a few frames at a time, are then added up where they overlap.
    """

    def __init__(self, layer):
        self.layer = layer
        groups = map(phase_groups, layer.kernel[:2], layer.stride[:2])
        self.phases = list(itertools.product(*groups))  # in time and in height, as slices

    def make(self):
        """Kernels (phases * kw * c, c_out, taps, taps, 1), one for each of `phases`."""
        (sd, sh, _), weight, kernels = self.layer.stride, self.layer.weight, []
        for in_time, in_height in self.phases:
            pairs = itertools.product(range(sd)[in_time], range(sh)[in_height])
            each = [weight[:, :, p::sd, q::sh].flip(2, 3) for p, q in pairs]
            kernel = torch.stack(each).permute(0, 5, 2, 1, 3, 4)  # (phases, kw, c, c_out, taps, taps)
            kernels.append(kernel.reshape(-1, *kernel.shape[3:], 1).contiguous(memory_format=CHANNELS_LAST))
        return kernels

    def backward(self, g, size, kernels):
        """As Direct has it, in float32."""
        (kernel_t, kernel_h, kw), (sd, sh, sw), (n, c_out, t, h, w) = self.layer.kernel, self.layer.stride, g.shape
        c = self.layer.weight.shape[1]
        depth, height, width = (math.ceil(k / s) - 1 + m
                                for k, s, m in zip((kernel_t, kernel_h, kw), (sd, sh, sw), (t, h, w), strict=True))
        canvas = g.new_zeros(n, depth, sd, height, sh, width, sw * c, dtype=torch.float32)
        for (in_time, in_height), kernel in zip(self.phases, kernels, strict=True):
            taps_t, taps_h = kernel.shape[2:4]
            steps, rows = t + taps_t - 1, h + taps_h - 1
            block = max(CACHE_ENTRIES // (rows * w * kernel.shape[0]), FAST_ENTRIES // (c_out * h)) + 1
            for i, start in itertools.product(range(n), range(0, steps, block)):
                stop = min(start + block, steps)
                seen = frames_of(g[i : i + 1], start - taps_t + 1, stop)
                y = F.conv3d(seen, kernel, padding=(0, taps_h - 1, 0))[0].permute(1, 2, 3, 0).float()
                target = canvas[i, start:stop, in_time, :rows, in_height]  # (time, phases, row, phases, w', sw * c)
                y = y.reshape(stop - start, rows, w, target.shape[1], target.shape[3], kw * c).permute(0, 3, 1, 4, 2, 5)
                for q, k in enumerate(range(0, kw * c, sw * c)):
                    taken = min(sw * c, kw * c - k)
                    target[..., q : q + w, :taken] += y[..., k : k + taken]
        canvas = canvas.view(n, depth * sd, height * sh, width * sw, c).permute(0, 4, 1, 2, 3)
        return unpadded(self.layer, canvas, size)


def frames_of(g, first, stop):
    """Frames `first` to `stop` of g (N, C, T, H, W), with zeros where these lie before its start or beyond its end."""
    t = g.shape[2]
    seen = g[:, :, max(first, 0) : min(stop, t)]
    return F.pad(seen, (0, 0, 0, 0, max(-first, 0), max(stop - t, 0))) if first < 0 or stop > t else seen


def phase_groups(kernel, stride):
    """The phases of an axis as slices, those with equally many taps together (the first kernel % stride have more)."""
    longer = kernel % stride
    return [phases for phases in (slice(0, longer), slice(longer, min(stride, kernel))) if phases.stop > phases.start]


class Winograd:
    def __init__(self, layer):
        self.layer = layer

    def tiles(self, size):
        """Minimal filtering of a map of size (T, H, W)."""
        layer = self.layer
        return winograd.Tiles(layer.weight, layer.stride, layer.out_size(size), reach(layer, size))

    def make(self):
        return self.tiles(self.layer.kernel).kernels(self.layer.weight)

    def forward(self, x, kernels):
        tiles = self.tiles(x.shape[2:])
        return tiles.convolve(self.layer.pad(x, tiles.in_size), kernels, self.layer.bias)

    def backward(self, g, size, kernels):
        return unpadded(self.layer, self.tiles(size).adjoint(g, kernels), size)


class Blocks:
    """The convolution with stride 1 over the video re-laid so that each block of stride^3 pixels is one position."""

    def __init__(self, layer):
        self.layer = layer

    def ones(self):
        """How many channels of ones fill up blocks forward. Matrix units of a GPU take half the time for multiples of
        32, and the first channel's weights bring the bias, which the library would add in a pass of its own."""
        weight = self.layer.weight
        gpu = weight.is_cuda and weight.dtype == torch.bfloat16
        return 32 - math.prod(self.layer.stride) * weight.shape[1] % 32 if gpu else 0

    def make(self):
        """The kernel over blocks of pixels, (c_out, stride^3 * c, taps, taps, taps), forward and back, with weights for
        the `ones`. In bfloat16 on a CPU the latter's channels are filled up to a multiple of 16, which saves matrix
        units a tenth to a half of the time."""
        kernel = self.to_blocks(self.layer.weight)
        channels, filled = kernel.shape[1], self.ones()
        missing = filled or (-channels % 16 if kernel.dtype == torch.bfloat16 else 0)
        wide = F.pad(kernel.permute(0, 2, 3, 4, 1), (0, missing)).permute(0, 4, 1, 2, 3)
        wide = wide.contiguous(memory_format=CHANNELS_LAST)
        if not filled:
            return [kernel, wide]
        wide[:, channels, 0, 0, 0] = self.layer.bias
        return [wide, wide]

    def forward(self, x, kernels):
        layer, filled = self.layer, self.ones()
        t, h, w = layer.out_size(x.shape[2:])
        pads = layer.padding(x.shape[2:])
        count = [math.ceil((n + sum(pad)) / s) for n, pad, s in zip(x.shape[2:], pads, layer.stride, strict=True)]
        if not layer.wrap and triton_works(x.device):
            from fast.kernels import to_blocks

            blocks = to_blocks(x, layer, count, kernels[0].shape[1])
        else:
            padded = layer.pad(x, [n * s for n, s in zip(count, layer.stride, strict=True)])
            blocks = self.to_blocks(padded, filled)
        y = F.conv3d(blocks, kernels[0], None if filled else layer.bias)
        return y[:, :, :t, :h, :w]  # filling up the ends may have made room for one position more

    def backward(self, g, size, kernels):
        blocks = F.conv_transpose3d(g, kernels[1])
        if not self.layer.wrap and triton_works(g.device):
            from fast.kernels import from_blocks

            return from_blocks(blocks, self.layer, size)
        return unpadded(self.layer, self.from_blocks(blocks), size)

    def to_blocks(self, x, ones=0):
        """Maps (N, c, T, H, W) with each block of stride^3 entries as one of many channels, and so many more of ones;
        zeros fill up the ends."""
        short = [-size % s for size, s in zip(x.shape[2:], self.layer.stride, strict=True)]
        if any(short):
            x = F.pad(x, [edge for missing in reversed(short) for edge in (0, missing)])
        for axis, s in zip((2, 4, 6), self.layer.stride, strict=True):
            x = x.unflatten(axis, (-1, s))
        x = x.permute(0, 2, 4, 6, 3, 5, 7, 1)  # (N, T / s, H / s, W / s, s, s, s, c)
        channels = math.prod(x.shape[4:])
        blocks = x.new_empty(*x.shape[:4], channels + ones)
        blocks[..., :channels].unflatten(-1, x.shape[4:]).copy_(x)
        blocks[..., channels:] = 1
        return blocks.permute(0, 4, 1, 2, 3)

    def from_blocks(self, x):
        """The inverse of `to_blocks`, but for the zeros that fill up the ends."""
        stride, channels = self.layer.stride, math.prod(self.layer.stride) * self.layer.weight.shape[1]
        n, (t, h, w) = len(x), (size * s for size, s in zip(x.shape[2:], stride, strict=True))
        x = x.permute(0, 2, 3, 4, 1)[..., :channels].unflatten(-1, (*stride, -1)).permute(0, 1, 4, 2, 5, 3, 6, 7)
        return x.reshape(n, t, h, w, -1).permute(0, 4, 1, 2, 3)


class FastPlane:
    """A spatially full layer, which model.FullPlane computes fast forward, and its input gradient."""

    def __init__(self, layer):
        self.layer = layer

    def renew(self):
        """There is nothing that a route made of the weights."""

    def forward(self, x):
        return self.layer(x)

    def input_gradient(self, g, size):
        """Gradient with respect to the input of size (T, H, W), given g, the gradient with respect to the output."""
        layer, (t, h, w), (before, after) = self.layer, size, self.layer.padding(size)[0]
        group = layer.together(t, before)
        before, after, rows = before // group, after // group, t // group
        products = g.new_zeros(g.shape[0], before + rows + after, g.shape[1], layer.kernel[0] // group)
        for window in layer.windows(products, group):
            window.copy_(g[..., 0, 0].transpose(1, 2))
        if layer.wrap:
            unwrap_time(products, before, after, dim=1)
        frames = products[:, before : before + rows].reshape(g.shape[0] * rows, -1) @ layer.matrix(group)
        return frames.view(-1, t, h, w, layer.weight.shape[1]).permute(0, 4, 1, 2, 3)
