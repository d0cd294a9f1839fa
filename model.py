"""The descriptor nets of STGConvNet: f(I; w), a spatial-temporal ConvNet that scores a video.

Xie, Zhu, Wu, "Synthesizing Dynamic Patterns by Spatial-Temporal Generative ConvNet", CVPR 2017. The model is
p(I; w) = exp(f(I; w)) q(I) / Z(w), with white noise q = N(0, sigma^2) as reference.

Glossary (the paper's symbols, used throughout the project)
    I       observed video                  J       synthesised video (a Langevin chain)
    f       the descriptor's value          w       its parameters
    sigma   std of the reference (-refsig)  delta   Langevin step size (-step_size)
    gap     f(J) - f(I)                     score   gradient of the log density: f.gradient(x) - x / sigma^2

Videos are float32 (N, C, T, H, W) in mean-subtracted grey levels. Every map is stored channels last, so that a
convolution reads whole pixels and the spatially full layer is a matrix product on views.
"""

import copy
import itertools
import math

import torch
import torch.nn.functional as F
from torch import nn

import winograd

CHANNELS_LAST = torch.channels_last_3d
CACHE_ENTRIES = 2**21  # on a CPU, entries of one block of columns in `Conv3d.spread`: what its cache holds
FAST_ENTRIES = 20480  # PyTorch gives a single float32 video to a slow routine where C * T * H is no larger than this


def same_padding(size, kernel, stride):
    """TensorFlow's SAME rule for one axis: (zeros before, zeros after), so that the output has ceil(size / stride)."""
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class Layer(nn.Module):
    """What both kinds of layer share: weight (c_out, c_in, kd, kh, kw), bias (c_out,), and the padding of time.

    time_pad None means TensorFlow's SAME padding on all three axes, a number that many zero frames on each side and
    nothing in space. With `wrap` the frames of the other end stand in for zeros: time is a circle.
    """

    def __init__(self, c_in, c_out, kernel, stride, time_pad=None):
        super().__init__()
        self.kernel, self.stride, self.time_pad, self.wrap = kernel, stride, time_pad, False
        self.weight = nn.Parameter(torch.zeros(c_out, c_in, *kernel).contiguous(memory_format=CHANNELS_LAST))
        self.bias = nn.Parameter(torch.zeros(c_out))

    def padding(self, size):
        """Padding (before, after) on each axis of a map of size (T, H, W)."""
        pads = [same_padding(*axis) for axis in zip(size, self.kernel, self.stride, strict=True)]
        if self.time_pad is None:
            return pads
        if self.wrap:  # as many positions as SAME has, so that none is counted twice on the circle
            total = sum(pads[0])
            before = min(self.time_pad, total)
            return [(before, total - before), (0, 0), (0, 0)]
        return [(self.time_pad, self.time_pad), (0, 0), (0, 0)]

    def out_size(self, size):
        """Size (T, H, W) of the output for an input of this size."""
        axes = zip(size, self.padding(size), self.kernel, self.stride, strict=True)
        return tuple((n + sum(pad) - k) // s + 1 for n, pad, k, s in axes)


def wrap_time(padded, before, after, dim):
    """Fill the padding of the time axis with the frames of the other end, in place."""
    frames = padded.shape[dim] - before - after
    padded.narrow(dim, 0, before).copy_(padded.narrow(dim, frames, before))
    padded.narrow(dim, before + frames, after).copy_(padded.narrow(dim, before, after))


def unwrap_time(padded, before, after, dim):
    """The transpose of `wrap_time`: add what the padding received to the frames that it stood for, in place."""
    frames = padded.shape[dim] - before - after
    padded.narrow(dim, frames, before).add_(padded.narrow(dim, 0, before))
    padded.narrow(dim, before, after).add_(padded.narrow(dim, before + frames, after))


class Conv3d(Layer):
    """A convolution. Maps (N, C, T, H, W), channels last.

    A convolution of few channels, the first layer's, is what libraries do worst. It has four routes, all the same
    sums: `direct` (the library's own), `columns` (`spread`, input gradient only), `winograd` (fewer multiplications)
    and `blocks`, a convolution of stride 1 over the video re-laid so that each block of stride^3 pixels is one position
    with many channels, which matrix units like. One of many channels may take `frames` forward, a sum of convolutions
    of frames. `routes` are those that were fastest where they were measured; learning goes the `direct` way.
    """

    def __init__(self, c_in, *args, **kwargs):
        super().__init__(c_in, *args, **kwargs)
        self._made, self._made_of = {}, None

    def routes(self, size):
        """The (forward, gradient) route for maps of size (T, H, W): the fastest on three CPUs and an H200 (RESULTS.md),
        with one exception.

        Over kernels of a thousand entries a forward pass by `winograd` would take a tenth to a third less time, but it
        rounds twice as much as the library there, which moves more units across the kink of their ReLU, and gradients
        then miss the golden numbers. Over many thousands (ST) it rounds half as much again. bfloat16 is too coarse for
        its sums; with matrix units for it, blocks are 1.3 to 2.1 times as fast on a CPU, 2 to 16 times on a GPU.
        """
        weight, many, large = self.weight, self.weight.shape[1] > 4, self.weight[0].numel() > 5000
        if weight.dtype == torch.bfloat16:
            if weight.is_cuda:
                return 2 * ("direct" if many and not large else "blocks",)
            if torch.cpu.get_capabilities().get("amx_bf16"):
                return "direct" if many else "blocks", "blocks"
            return "direct", "direct" if many else "columns"
        if weight.is_cuda:
            return "direct", "direct"
        if many:
            return "frames" if large else "direct", "direct"
        if not winograd.saves(self.kernel, self.stride, self.out_size(size)):
            return "direct", "columns"
        return "winograd" if large else "direct", "winograd"

    def reach(self, size):
        """Where the zeros after a map of size (T, H, W) begin, on each axis of the padded map."""
        pads = self.padding(size)
        ends = [before + n for n, (before, _) in zip(size, pads, strict=True)]
        ends[0] += pads[0][1] * self.wrap  # a circle has frames there
        return ends

    def tiles(self, size):
        """Minimal filtering of a map of size (T, H, W)."""
        return winograd.Tiles(self.weight, self.stride, self.out_size(size), self.reach(size))

    def pad(self, x, size=None):
        """x padded, in the weights' type, with zeros at the ends up to or down to a given size: one pass over x."""
        (t0, t1), (h0, h1), (w0, w1) = self.padding(x.shape[2:])
        n, c, t, h, w = x.shape
        size = size or (t0 + t + t1, h0 + h + h1, w0 + w + w1)
        padded = x.new_zeros(n, *size, c, dtype=self.weight.dtype).permute(0, 4, 1, 2, 3)
        padded[:, :, t0 : t0 + t, h0 : h0 + h, w0 : w0 + w] = x
        if self.wrap:
            wrap_time(padded[:, :, : t0 + t + t1], t0, t1, dim=2)
        return padded

    def forward(self, x):
        route = self.routes(x.shape[2:])[0]
        if route == "direct" or torch.is_grad_enabled():
            return F.conv3d(self.pad(x), self.weight, self.bias, self.stride)
        t, h, w = self.out_size(x.shape[2:])
        if route == "winograd":
            tiles = self.tiles(x.shape[2:])
            return tiles.convolve(self.pad(x, tiles.in_size), self.made(route), self.bias)
        if route == "frames":
            return self.sum_of_frames(self.pad(x), t)
        axes = zip(x.shape[2:], self.padding(x.shape[2:]), self.stride, strict=True)
        whole = [math.ceil((n + sum(pad)) / s) * s for n, pad, s in axes]
        kernel, filled = self.made("blocks")[0], self.ones()
        y = F.conv3d(self.to_blocks(self.pad(x, whole), filled), kernel, None if filled else self.bias)
        return y[:, :, :t, :h, :w]  # filling up the ends may have made room for one position more

    def input_gradient(self, g, size):
        """Gradient with respect to the input of size (T, H, W), given g, the gradient with respect to the output."""
        route = self.routes(size)[1]
        if route == "columns":
            padded = self.spread(g)
        elif route == "winograd":
            padded = self.tiles(size).adjoint(g, self.made(route))
        elif route == "blocks":
            padded = self.from_blocks(F.conv_transpose3d(g, self.made("blocks")[1]))
        else:
            padded = F.conv_transpose3d(g, self.weight, stride=self.stride)
        missing = [max(end - have, 0) for end, have in zip(self.reach(size), padded.shape[2:], strict=True)]
        if any(missing):  # positions that no stride reached have no gradient
            padded = F.pad(padded, [edge for m in reversed(missing) for edge in (0, m)])
        pads = self.padding(size)
        if self.wrap:
            unwrap_time(padded[:, :, : size[0] + sum(pads[0])], *pads[0], dim=2)
        for axis, (n, (before, _)) in enumerate(zip(size, pads, strict=True), start=2):
            padded = padded.narrow(axis, before, n)
        return padded

    def sum_of_frames(self, x, count):
        """The convolution of padded maps x to `count` frames, each the sum over the taps in time of convolutions in the
        plane, which libraries do a third faster."""
        stride, *strides = self.stride
        frames = x.permute(2, 0, 3, 4, 1)
        phases = [frames[p::stride].contiguous() for p in range(stride)]  # a tap meets the frames of one
        y = self.bias[:, None, None]
        for k, kernel in enumerate(self.made("frames")):
            seen = phases[k % stride][k // stride :][:count].flatten(0, 1).permute(0, 3, 1, 2)
            y = y + F.conv2d(seen, kernel, stride=strides)
        return y.unflatten(0, (count, len(x))).permute(1, 2, 0, 3, 4)

    def frames(self):
        """The kernels of `sum_of_frames`, (c_out, c, kh, kw), one for each tap in time."""
        return [kernel.contiguous(memory_format=torch.channels_last) for kernel in self.weight.unbind(2)]

    def spread(self, g):
        """Transposed convolution onto few channels, without the waste that the libraries' own makes of it.

        An input pixel in row u * stride + phase gathers from the output rows u, u - 1, ...; likewise in time. So all
        pixels of a phase in time and height are one convolution at the output's coarse resolution, whose channels are
        the kernel's columns; phases with the same number of taps go together, and no product is spent on zeros. The
        columns, of a few frames at a time, are then added up where they overlap.
        Returns float32 (N, C, T', H', W'), the padded input's gradient.
        """
        (_, _, kw), (sd, sh, sw), (n, c_out, t, h, w) = self.kernel, self.stride, g.shape
        c = self.weight.shape[1]
        depth, height, width = (math.ceil(k / s) - 1 + m for k, s, m in zip(self.kernel, self.stride, (t, h, w)))
        canvas = g.new_zeros(n, depth, sd, height, sh, width, sw * c, dtype=torch.float32)
        for (in_time, in_height), kernel in zip(self.phases(), self.made("columns"), strict=True):
            taps_t, taps_h = kernel.shape[2:4]
            steps, rows = t + taps_t - 1, h + taps_h - 1
            block = max(CACHE_ENTRIES // (rows * w * kernel.shape[0]), FAST_ENTRIES // (c_out * h)) + 1
            for i in range(n):
                for start in range(0, steps, block):
                    stop = min(start + block, steps)
                    first = start - taps_t + 1
                    seen = g[i : i + 1, :, max(first, 0) : min(stop, t)]
                    if first < 0 or stop > t:
                        seen = F.pad(seen, (0, 0, 0, 0, max(-first, 0), max(stop - t, 0)))
                    y = F.conv3d(seen, kernel, padding=(0, taps_h - 1, 0))[0].permute(1, 2, 3, 0).float()
                    target = canvas[i, start:stop, in_time, :rows, in_height]  # (time, phases, row, phases, w', sw * c)
                    y = y.reshape(stop - start, rows, w, target.shape[1], target.shape[3], kw * c)
                    y = y.permute(0, 3, 1, 4, 2, 5)
                    for q, k in enumerate(range(0, kw * c, sw * c)):
                        taken = min(sw * c, kw * c - k)
                        target[..., q : q + w, :taken] += y[..., k : k + taken]
        return canvas.view(n, depth * sd, height * sh, width * sw, c).permute(0, 4, 1, 2, 3)

    def phases(self):
        """The phases of `spread` in time and in height, those with the same number of taps together, as slices."""
        return list(itertools.product(*map(phase_groups, self.kernel[:2], self.stride[:2])))

    def columns(self):
        """The kernels of `spread`, (phases * kw * c, c_out, taps, taps, 1), one for each of `phases`."""
        (sd, sh, _), kernels = self.stride, []
        for in_time, in_height in self.phases():
            pairs = itertools.product(range(sd)[in_time], range(sh)[in_height])
            each = [self.weight[:, :, p::sd, q::sh].flip(2, 3) for p, q in pairs]
            kernel = torch.stack(each).permute(0, 5, 2, 1, 3, 4)  # (phases, kw, c, c_out, taps, taps)
            kernels.append(kernel.reshape(-1, *kernel.shape[3:], 1).contiguous(memory_format=CHANNELS_LAST))
        return kernels

    def ones(self):
        """How many channels of ones fill up blocks forward. Matrix units of a GPU take half the time for multiples of
        32, and the first channel's weights bring the bias, which the library would add in a pass of its own."""
        gpu = self.weight.is_cuda and self.weight.dtype == torch.bfloat16
        return 32 - math.prod(self.stride) * self.weight.shape[1] % 32 if gpu else 0

    def blocks(self):
        """The kernel over blocks of pixels, (c_out, stride^3 * c, taps, taps, taps), forward and back, with weights for
        the `ones`. In bfloat16 on a CPU the latter's channels are filled up to a multiple of 16, which saves matrix
        units a tenth to a half of the time."""
        kernel = self.to_blocks(self.weight)
        channels, filled = kernel.shape[1], self.ones()
        missing = filled or (-channels % 16 if kernel.dtype == torch.bfloat16 else 0)
        wide = F.pad(kernel.permute(0, 2, 3, 4, 1), (0, missing)).permute(0, 4, 1, 2, 3)
        wide = wide.contiguous(memory_format=CHANNELS_LAST)
        if not filled:
            return [kernel, wide]
        wide[:, channels, 0, 0, 0] = self.bias
        return [wide, wide]

    def winograd(self):
        """The kernels of `winograd.Tiles`."""
        return self.tiles(self.kernel).kernels(self.weight)

    def to_blocks(self, x, ones=0):
        """Maps (N, c, T, H, W) with each block of stride^3 entries as one of many channels, and so many more of ones;
        zeros fill up the ends."""
        short = [-size % s for size, s in zip(x.shape[2:], self.stride, strict=True)]
        if any(short):
            x = F.pad(x, [edge for missing in reversed(short) for edge in (0, missing)])
        for axis, s in zip((2, 4, 6), self.stride, strict=True):
            x = x.unflatten(axis, (-1, s))
        x = x.permute(0, 2, 4, 6, 3, 5, 7, 1)  # (N, T / s, H / s, W / s, s, s, s, c)
        channels = math.prod(x.shape[4:])
        blocks = x.new_empty(*x.shape[:4], channels + ones)
        blocks[..., :channels].unflatten(-1, x.shape[4:]).copy_(x)
        blocks[..., channels:] = 1
        return blocks.permute(0, 4, 1, 2, 3)

    def from_blocks(self, x):
        """The inverse of `to_blocks`, but for the zeros that fill up the ends."""
        n, (t, h, w), channels = len(x), x.shape[2:], math.prod(self.stride) * self.weight.shape[1]
        x = x.permute(0, 2, 3, 4, 1)[..., :channels].unflatten(-1, (*self.stride, -1)).permute(0, 1, 4, 2, 5, 3, 6, 7)
        t, h, w = (size * s for size, s in zip((t, h, w), self.stride, strict=True))
        return x.reshape(n, t, h, w, -1).permute(0, 4, 1, 2, 3)

    @torch.no_grad()
    def remake(self):
        """Bring the kernels of all routes in use up to date with the weight, in their place, where a CUDA graph reads
        them."""
        kind, version = (self.weight.dtype, self.weight.device), (self.weight._version, self.bias._version)
        if self._made_of == (kind, version):
            return
        if self._made_of and self._made_of[0] != kind:
            self._made.clear()
        for route, kernels in self._made.items():
            for kernel, fresh in zip(kernels, getattr(self, route)(), strict=True):
                kernel.copy_(fresh)
        self._made_of = kind, version

    @torch.no_grad()
    def made(self, route):
        """The kernels of a route."""
        self.remake()
        if route not in self._made:
            self._made[route] = getattr(self, route)()
        return self._made[route]


def phase_groups(kernel, stride):
    """The phases of an axis as slices, those with equally many taps together (the first kernel % stride have more)."""
    longer = kernel % stride
    return [phases for phases in (slice(0, longer), slice(longer, min(stride, kernel))) if phases.stop > phases.start]


class PlaneProduct(torch.autograd.Function):
    """rows (R, K) @ weight (O, K).T for K in the millions: in float32 the sum over K is cut into `parts` that are added
    up last, which keeps its rounding small and feeds both cores. Returns (R, O)."""

    @staticmethod
    def forward(ctx, rows, weight, parts):
        ctx.save_for_backward(rows, weight)
        if rows.dtype != torch.float32:
            return rows @ weight.T
        cut = rows.view(len(rows), parts, -1).transpose(0, 1), weight.view(len(weight), parts, -1).permute(1, 2, 0)
        return torch.bmm(*cut).sum(0)

    @staticmethod
    def backward(ctx, g):
        rows, weight = ctx.saved_tensors
        return g @ weight, g.T @ rows, None


class FullPlane(Layer):
    """A convolution whose kernel covers the whole plane: it slides in time only.

    Every frame meets every temporal tap in ONE matrix product, and the products along a window's diagonal are its sum:
    the weights are read once and no map is copied. Where the stride divides everything, the frames that one stride
    passes always meet the same taps together and are one row, which leaves no product unused.
    """

    def together(self, frames, before):
        """How many frames make a row."""
        s = self.stride[0]
        return 1 if any(n % s for n in (frames, before, self.kernel[0])) else s

    def matrix(self, group):
        """The weight as (c_out * kd / group, group * kh * kw * c_in): a view."""
        rows = self.weight.permute(0, 2, 3, 4, 1)  # (c_out, kd, kh, kw, c_in), as it lies in memory
        return rows.reshape(rows.shape[0] * rows.shape[1] // group, -1)

    def windows(self, products, group):
        """The diagonals: for each temporal tap its products (N, rows, c_out, taps), one for each window."""
        taps, stride = products.shape[3], self.stride[0] // group
        count = (products.shape[1] - taps) // stride
        return [products[:, k : k + count * stride + 1 : stride, :, k] for k in range(taps)]

    def forward(self, x):
        n, c, t, h, w = x.shape
        before, after = self.padding((t, h, w))[0]
        group = self.together(t, before)
        frames = x.permute(0, 2, 3, 4, 1).reshape(n * t // group, group * h * w * c)
        products = PlaneProduct.apply(frames, self.matrix(group), group * h)
        products = products.view(n, t // group, -1, self.kernel[0] // group)
        products = F.pad(products, (0, 0, 0, 0, before // group, after // group))
        if self.wrap:
            wrap_time(products, before // group, after // group, dim=1)
        return (sum(self.windows(products, group)) + self.bias).transpose(1, 2)[..., None, None]  # (N, c_out, T', 1, 1)

    def input_gradient(self, g, size):
        """Gradient with respect to the input of size (T, H, W), given g, the gradient with respect to the output."""
        (t, h, w), (before, after) = size, self.padding(size)[0]
        group = self.together(t, before)
        before, after, rows = before // group, after // group, t // group
        products = g.new_zeros(g.shape[0], before + rows + after, g.shape[1], self.kernel[0] // group)
        for window in self.windows(products, group):
            window.copy_(g[..., 0, 0].transpose(1, 2))
        if self.wrap:
            unwrap_time(products, before, after, dim=1)
        frames = products[:, before : before + rows].reshape(g.shape[0] * rows, -1) @ self.matrix(group)
        return frames.view(-1, t, h, w, self.weight.shape[1]).permute(0, 4, 1, 2, 3)


class Descriptor(nn.Module):
    """A stack of layers with a ReLU after each; f is the SUM of the top map (paper, section 3; released code)."""

    def __init__(self, layers, size):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.size = size  # (T, H, W) of the videos it learns from
        self._low, self._low_of = (), None

    def features(self, x):
        """The top map (N, C', T', H', W') of videos x (N, 3, T, H, W)."""
        for layer in self.layers:
            x = F.relu(layer(x), inplace=True)
        return x

    def forward(self, x):
        """f(x; w), one value a video: (N,)."""
        return self.features(x).flatten(1).sum(1)

    @torch.no_grad()
    def gradient(self, x):
        """df(x; w)/dx, float32 (N, 3, T, H, W): the paper's top-down pass, written out layer by layer.

        No parameter gradient is computed and no graph is built. `plain_gradient` is the same by autograd.
        """
        layers = self.renew()
        maps = [x]
        for layer in layers:
            maps.append(layer(maps[-1]).relu_())
        top = maps.pop()
        g = (top > 0).to(top.dtype)
        for layer in reversed(layers):
            below = maps.pop()
            g = layer.input_gradient(g, below.shape[2:])
            if maps:
                g = torch.ops.aten.threshold_backward(g, below, 0)  # ReLU: no gradient where it cut
        return g.float()

    def sample_in(self, dtype):
        """Let `gradient` multiply in `dtype` (float32 or bfloat16); sums, chains and learning stay float32."""
        self._low = () if dtype == torch.float32 else (copy.deepcopy(self.layers).to(dtype),)
        self._low_of = None
        return self

    @torch.no_grad()
    def renew(self):
        """The layers that `gradient` runs, up to date: the learned ones, or their copy in low precision, which changes
        in its place when they have changed."""
        layers = self._low[0] if self._low else self.layers
        if self._low:
            versions = [p._version for p in self.parameters()]
            if versions != self._low_of:
                for ours, theirs in zip(layers.parameters(), self.parameters(), strict=True):
                    ours.copy_(theirs)
                self._low_of = versions
            for ours, theirs in zip(layers, self.layers, strict=True):
                ours.wrap = theirs.wrap
        for layer in layers:
            if isinstance(layer, Conv3d):
                layer.remake()
        return layers

    def wrap_time(self, wrap=True):
        """Make time a circle (for seamless loops) or a line again."""
        for layer in self.layers:
            layer.wrap = wrap
        return self

    def plain_features(self, x):
        """`features` with the library's convolution everywhere: what the tests hold `features` against."""
        for layer in self.layers:
            pads = [edge for pad in reversed(layer.padding(x.shape[2:])) for edge in pad]
            x = F.relu(F.conv3d(F.pad(x, pads), layer.weight, layer.bias, layer.stride))
        return x

    def plain_gradient(self, x):
        """`gradient` by autograd through `plain_features`."""
        x = x.detach().requires_grad_()
        return torch.autograd.grad(self.plain_features(x).sum(), x)[0]


# Each net: its layers as (c_out, kernel, stride, time_pad); a kernel side of 0 covers all that the layer below left.
NETS = {
    "ST": [
        (120, (15, 15, 15), (7, 7, 7), None),
        (40, (7, 7, 7), (3, 3, 3), None),
        (20, (2, 3, 3), (1, 2, 2), None),
    ],
    "FC_S": [
        (120, (7, 7, 7), (2, 2, 2), None),
        (30, (5, 0, 0), (2, 2, 2), 2),
        (5, (2, 1, 1), (1, 2, 2), 1),
    ],
    "FC_S_large": [
        (120, (7, 7, 7), (3, 3, 3), None),
        (30, (4, 0, 0), (2, 1, 1), 2),
        (5, (2, 1, 1), (1, 1, 1), 1),
    ],
    "FC_S_multi": [
        (120, (9, 11, 11), (4, 5, 5), None),
        (30, (5, 0, 0), (2, 1, 1), 2),
        (5, (2, 1, 1), (1, 1, 1), 1),
    ],
    "FC": [
        (200, (7, 7, 7), (3, 3, 3), None),
        (1, (0, 0, 0), (1, 1, 1), 0),
    ],
}


def descriptor(net_type, num_frames, im_size, generator=None):
    """The net `net_type` (a key of NETS) for videos of num_frames frames of im_size (one int, or (H, W)) pixels.

    Weights are drawn from N(0, 0.001^2), biases are 0 (released code). ValueError for an unknown net or a size that
    leaves no position.
    """
    if net_type not in NETS:
        raise ValueError(f"net_type '{net_type}' is not one of {', '.join(NETS)}")
    height, width = (im_size, im_size) if isinstance(im_size, int) else im_size
    if min(num_frames, height, width) < 1:
        raise ValueError(f"{net_type} needs at least 1 frame of 1x1 pixels, not {num_frames} of {height}x{width}")
    layers, c_in, size = [], 3, (num_frames, height, width)
    for c_out, kernel, stride, time_pad in NETS[net_type]:
        full = kernel[1] == 0
        kernel = tuple(k or n for k, n in zip(kernel, size, strict=True))
        layer = (FullPlane if full else Conv3d)(c_in, c_out, kernel, stride, time_pad)
        with torch.no_grad():  # drawn in memory order, which is fast
            noise = torch.randn(c_out, *kernel, c_in, generator=generator)
            layer.weight.copy_(noise.mul_(0.001).permute(0, 4, 1, 2, 3))
        layers.append(layer)
        c_in, size = c_out, layer.out_size(size)
    return Descriptor(layers, (num_frames, height, width))


def layer_table(f):
    """Lines that show the net: each layer's kernel, stride, padding, output and parameters."""
    lines, size = [f"{'layer':<7}{'kernel':>12}{'stride':>10}{'output (C x T x H x W)':>26}{'parameters':>14}"], f.size
    for number, layer in enumerate(f.layers, start=1):
        size = layer.out_size(size)
        kernel, stride, out = ("x".join(map(str, v)) for v in (layer.kernel, layer.stride, (len(layer.bias), *size)))
        count = layer.weight.numel() + layer.bias.numel()
        lines.append(f"{number:<7}{kernel:>12}{stride:>10}{out:>26}{count:>14,}")
    total = sum(p.numel() for p in f.parameters())
    return lines + [f"{'total':<55}{total:>14,}"]
