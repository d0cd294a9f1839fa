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

import math

import torch
import torch.nn.functional as F
from torch import nn

# Each net: its layers as (c_out, kernel, stride, time_pad); a kernel side of 0 covers all that the layer below left.
# time_pad None is TensorFlow's SAME padding, a number that many zero frames at both ends (released code).
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
        layer = (FullPlane if full else Layer)(c_in, c_out, kernel, stride, time_pad)
        if not layer.weight.is_meta:  # an outline has no weights, and to draw them PyTorch would import its compiler
            noise = torch.randn(c_out, *kernel, c_in, generator=generator)  # in memory order, which is fast
            with torch.no_grad():
                layer.weight.copy_(noise.mul_(0.001).permute(0, 4, 1, 2, 3))
        layers.append(layer)
        c_in, size = c_out, layer.out_size(size)
    return Descriptor(layers, (num_frames, height, width))


def fixed_axes(net_type):
    """Of time, height and width, those that a kernel of the net covers whole: along these it cannot slide."""
    return [0 in sides for sides in zip(*(kernel for _, kernel, _, _ in NETS[net_type]), strict=True)]


class Descriptor(nn.Module):
    """A stack of layers with a ReLU after each; f is the SUM of the top map (paper, section 3; released code)."""

    def __init__(self, layers, size):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.size = size  # (T, H, W) of the videos it learns from

    def features(self, x):
        """The top map (N, C', T', H', W') of videos x (N, 3, T, H, W)."""
        for layer in self.layers:
            x = F.relu(layer(x), inplace=True)
        return x

    def forward(self, x):
        """f(x; w), one value a video: (N,)."""
        return self.features(x).flatten(1).sum(1)

    def gradient(self, x):
        """df(x; w)/dx, (N, 3, T, H, W), without gradients of w. fast.gradient has the same, faster."""
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(self(x).sum(), x)[0]

    def wrap_time(self, wrap=True):
        """Make time a circle (for seamless loops) or a line again."""
        for layer in self.layers:
            layer.wrap = wrap
        return self


# ---------------------------------------------------------------------------------------------------------- layers


def same_padding(size, kernel, stride):
    """TensorFlow's SAME rule for one axis: (zeros before, zeros after), so that the output has ceil(size / stride)."""
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class Layer(nn.Module):
    """A convolution of padded maps: weight (c_out, c_in, kd, kh, kw), bias (c_out,).

    time_pad None means TensorFlow's SAME padding on all three axes, a number that many zero frames on each side and
    nothing in space. With `wrap` time is a circle: frames of the other end take the place of zeros.
    """

    def __init__(self, c_in, c_out, kernel, stride, time_pad=None):
        super().__init__()
        self.kernel, self.stride, self.time_pad, self.wrap = kernel, stride, time_pad, False
        weight = torch.zeros(c_out, c_in, *kernel).contiguous(memory_format=torch.channels_last_3d)
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(torch.zeros(c_out))

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

    def pad(self, x, size=None):
        """x (N, C, T, H, W) padded, in the weights' type and channels last; with `size`, zeros at the ends bring each
        axis up or down to that size."""
        (t0, t1), (h0, h1), (w0, w1) = self.padding(x.shape[2:])
        n, c, t, h, w = x.shape
        size = size or (t0 + t + t1, h0 + h + h1, w0 + w + w1)
        padded = x.new_zeros(n, *size, c, dtype=self.weight.dtype).permute(0, 4, 1, 2, 3)
        padded[:, :, t0 : t0 + t, h0 : h0 + h, w0 : w0 + w] = x
        if self.wrap:
            wrap_time(padded[:, :, : t0 + t + t1], t0, t1, dim=2)
        return padded

    def forward(self, x):
        return F.conv3d(self.pad(x), self.weight, self.bias, self.stride)


def wrap_time(padded, before, after, dim):
    """Fill the padding of the time axis with the frames of the other end, in place."""
    frames = padded.shape[dim] - before - after
    padded.narrow(dim, 0, before).copy_(padded.narrow(dim, frames, before))
    padded.narrow(dim, before + frames, after).copy_(padded.narrow(dim, before, after))


class PlaneProduct(torch.autograd.Function):
    """rows (R, K) @ weight (O, K).T for K in the millions: in float32 the sum over K is cut into `parts` that are added
    up last, which keeps its rounding small and feeds all cores. Returns (R, O)."""

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
        of_rows, of_weight, _ = ctx.needs_input_grad
        return g @ weight if of_rows else None, g.T @ rows if of_weight else None, None


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
