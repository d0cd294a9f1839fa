"""The nets of the dynamic generator: how a hidden state moves, and how a frame is drawn from it.

Xie, Gao, Zheng, Zhu, Wu, "Learning Dynamic Generator Model by Alternating Back-Propagation Through Time", AAAI 2019:

    s_t = F(s_{t-1}, xi_t, m),   x_t = G(s_t, a) + e_t,   xi_t ~ N(0, 1),   e_t ~ N(0, sigma^2)

Glossary (the paper's symbols; I, J, sigma and delta are what they are in model.py)
    x_t   frame t of a video              s_t   hidden state of frame t; s_0 comes before the first frame
    xi_t  innovation, the noise that drives the state ('z' in the flags)
    a     content: the appearance of one clip, constant in time
    m     motion type of one clip, constant in time
    F     transition net                  G     frame generator
    E     encoder of the image-to-video variant: (a, s_0) from one frame

Videos are float32 (N, 3, T, H, W) in [-1, 1]; xi is (N, T, dim xi), states (N, T, dim s), s_0, a and m are (N, dim).
"""

import torch
import torch.nn.functional as F
from torch import nn

from run import ranks

IMAGE_SIZES = (8, 16, 32, 64, 128, 150, 256, 512)  # frame sides: powers of two, and a stack of its own for 150
ENCODED_SIZE = 64  # the frame side that the encoder takes


def begin(layer, std):
    """Weights from N(0, std^2), biases 0. An outline on 'meta' has none, and to draw them PyTorch would import its
    compiler."""
    if not layer.weight.is_meta:
        nn.init.normal_(layer.weight, std=std)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


class Transition(nn.Module):
    """F: s_t = tanh(s_{t-1} + r_t), with r_t a net of [m, xi_t, s_{t-1}].

    mode 'nonlinear': two hidden layers of 20 ReLU units (paper, Experiment 1); 'linear': one matrix and a bias.
    'stationary', neither in the paper nor in the released code: s_t = L^-1 [W xi_t + M s_{t-1}], where L is the lower
    triangular root of W W' + M M'. That is A s_{t-1} + B xi_t with A A' + B B' = 1, whatever W and M: states keep the
    N(0, 1) of s_0, and videos neither fade nor explode.
    """

    def __init__(self, state_size, xi_size, motion_size=0, mode="nonlinear"):
        super().__init__()
        self.inputs, self.mode = (motion_size, xi_size, state_size), mode
        widths = [sum(self.inputs), *([20, 20] if mode == "nonlinear" else []), state_size]
        pairs, bias = zip(widths, widths[1:], strict=False), mode != "stationary"
        self.layers = nn.ModuleList(nn.Linear(*pair, bias) for pair in pairs)
        for k, layer in enumerate(self.layers, start=1):
            # Differs from upstream, whose 0.001 everywhere lets hidden units die and xi lose its hold on the state
            begin(layer, std=0.001 if k == len(self.layers) else (2 / layer.in_features) ** 0.5)

    def forward(self, xi, s, m):
        """The states (N, T, dim s) that xi (N, T, dim xi) drives from s = s_0 (N, dim s), under m (N, dim m)."""
        first, *others = self.layers
        by_motion, by_xi, by_state = first.weight.split(self.inputs, dim=1)
        if self.mode == "stationary":
            L = torch.linalg.cholesky(by_xi @ by_xi.T + by_state @ by_state.T)
            by_xi, by_state = (torch.linalg.solve_triangular(L, W, upper=False) for W in (by_xi, by_state))
        drive = F.linear(xi, by_xi, first.bias) + F.linear(m, by_motion)[:, None]  # (N, T, 20): all that time allows
        states = []
        for driven in drive.unbind(1):
            r = torch.addmm(driven, s, by_state.T)
            for layer in others:
                r = layer(r.relu())
            s = r if self.mode == "stationary" else torch.tanh(s + r)
            states.append(s)
        return torch.stack(states, dim=1)


class ShiftNorm(nn.Module):
    """Batch normalisation with the batch's own statistics, always, and a shift but no scale (as released). together:
    the batch is spread over the processes."""

    def __init__(self, channels):
        super().__init__()
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x, together=False):
        if together and ranks.world() > 1:
            y, _, variance, _ = ranks.centred(x)
            scale = (variance + 1e-3).rsqrt()
            return (y * scale[:, None, None] + self.beta[:, None, None]).to(x.dtype)
        return F.batch_norm(x, None, None, torch.ones_like(self.beta), self.beta, training=True, eps=1e-3)


def generator_layers(image_size):
    """(channels, kernel, stride, padding) of G's transposed convolutions, from one pixel to the frame (as released)."""
    if image_size == 150:
        stride_2 = [(channels, 4, 2, 1) for channels in (512, 512, 256, 128)]
        return [*stride_2, (64, 4, 3, 0), (64, 4, 3, 0), (3, 7, 1, 0)]
    depth = image_size.bit_length() - 1
    channels = [min(512, 64 * 2 ** (depth - 2 - k)) for k in range(depth - 1)]
    return [(c, 4, 2, 1) for c in (*channels, 3)]


def by_columns(x, layer):
    """`layer`(x) for a transposed convolution of stride 1 onto few channels: first down the kernel's columns, each a
    channel of its own, then their sum side by side. On a CPU 2.7 times as fast as the library's own."""
    c_in, c_out, height, width = layer.weight.shape
    columns = layer.weight.permute(0, 3, 1, 2).reshape(c_in, width * c_out, height, 1)
    place = torch.eye(width * c_out, dtype=x.dtype, device=x.device).view(-1, width, c_out).transpose(1, 2)[:, :, None]
    return F.conv_transpose2d(F.conv_transpose2d(x, columns), place, layer.bias)


class Generator(nn.Module):
    """G: a frame from [a, s_t], by transposed convolutions, each but the last followed by ShiftNorm and ReLU.

    linear_size: dim s where a linear map of s_t is added to what they draw, which neither the paper nor the released
    code has; 0 for none.
    """

    def __init__(self, input_size, image_size, linear_size=0):
        super().__init__()
        specs = generator_layers(image_size)
        widths = [input_size, *(spec[0] for spec in specs)]
        self.layers = nn.ModuleList(nn.ConvTranspose2d(c, *spec) for c, spec in zip(widths, specs, strict=False))
        self.norms = nn.ModuleList(ShiftNorm(c) for c in widths[1:-1])
        for layer in self.layers:
            begin(layer, std=0.005)
        self.linear = nn.Linear(linear_size, 3 * image_size**2) if linear_size else None
        self.to(memory_format=torch.channels_last)  # on a CPU this halves the time of a Langevin step

    def forward(self, code, together=False):
        """Frames (B, 3, H, W) in [-1, 1] of codes [a, s] (B, dim a + dim s); ShiftNorm's batch is all B frames or, with
        `together`, those of all processes."""
        x = code[:, :, None, None]  # (B, dim, 1, 1)
        for k, layer in enumerate(self.layers):
            if layer.stride == (3, 3):  # TensorFlow's SAME padding drops the last row and column, and only those
                x = F.conv_transpose2d(x, layer.weight, stride=3)[:, :, :-1, :-1] + layer.bias[:, None, None]
            else:
                x = by_columns(x, layer) if layer.stride == (1, 1) else layer(x)
            if k < len(self.norms):
                x = self.norms[k](x, together).relu()
        x = x.tanh()
        if self.linear:
            x = x + self.linear(code[:, -self.linear.in_features :]).view(x.shape)
        return x


class Encoder(nn.Module):
    """E: (a, s_0) from one frame (paper's image-to-video variant; sizes from the paper, ReLU and no batch norm our
    reading)."""

    def __init__(self, content_size, state_size):
        super().__init__()
        self.sizes = (content_size, state_size)
        self.convolutions = nn.ModuleList(
            [nn.Conv2d(3, 64, 5, 2), nn.Conv2d(64, 128, 3, 2), nn.Conv2d(128, 256, 3, 2)]
        )
        self.full = nn.Linear(256 * (ENCODED_SIZE // 8) ** 2, content_size + state_size)

    def forward(self, x):
        """a (N, dim a) and s_0 (N, dim s) of frames x (N, 3, 64, 64)."""
        for convolution in self.convolutions:  # SAME padding: each layer halves the side
            before, after = (1, 2) if convolution.kernel_size == (5, 5) else (0, 1)
            x = convolution(F.pad(x, (before, after, before, after))).relu()
        return self.full(x.flatten(1)).split(self.sizes, dim=1)


class DynamicGenerator(nn.Module):
    """F and G, and E with `encoder`: the same nets in inference, learning and generation."""

    def __init__(self, image_size, state_size, xi_size, content_size=0, motion_size=0, mode="nonlinear", encoder=False):
        super().__init__()
        self.content_size = content_size
        self.transition = Transition(state_size, xi_size, motion_size, mode)
        self.generator = Generator(content_size + state_size, image_size, state_size if mode == "stationary" else 0)
        self.encoder = Encoder(content_size, state_size) if encoder else None

    def forward(self, xi, s, a, m, low=False, together=False):
        """Frames (N, 3, T, H, W) and states (N, T, dim s) from xi (N, T, dim xi), s = s_0, a and m (N, dim). With `low`
        G multiplies in bfloat16; its sums, and all of F, are float32. together: the clips are one batch with those of
        the other processes."""
        states = self.transition(xi, s, m)
        content = a[:, None].expand(-1, states.shape[1], -1)
        code = torch.cat([content, states], dim=2).flatten(0, 1)
        with torch.autocast(code.device.type, torch.bfloat16, enabled=low):
            frames = self.generator(code, together).to(code.dtype)  # (N * T, 3, H, W)
        return frames.unflatten(0, states.shape[:2]).transpose(1, 2), states

    @torch.no_grad()
    def generate(self, xi, s, a, m, chunk):
        """The video (N, 3, T, H, W) of any length: sections of `chunk` frames, chained through the state, each with the
        batch statistics of its own frames, as in learning."""
        sections = []
        for part in xi.split(chunk, dim=1):
            frames, states = self(part, s, a, m)
            sections.append(frames)
            s = states[:, -1]
        return torch.cat(sections, dim=2)


def memory_per_frame(net):
    """Bytes that one frame takes in learning: each layer's map, its normalised copy, and their gradients."""
    side, entries = 1, 0
    for layer in net.generator.layers:
        side = output_side(layer, side)
        entries += 4 * layer.out_channels * side**2
    return 4 * entries


def output_side(layer, side):
    """Side of the map that a layer of G makes of one with this side."""
    stride = layer.stride[0]
    return (side - 1) * stride + layer.kernel_size[0] - 2 * layer.padding[0] - (stride == 3)


def layer_table(net):
    """The nets, one line a layer: (name, kernel or width, output size, number of parameters)."""
    rows, side = [], 1
    for k, layer in enumerate(net.transition.layers, start=1):
        rows.append(("F", k, f"linear {layer.in_features} -> {layer.out_features}", "", layer))
    for k, layer in enumerate(net.generator.layers, start=1):
        kernel, side = layer.kernel_size[0], output_side(layer, side)
        what = f"transposed {kernel}x{kernel} / {layer.stride[0]}, {layer.in_channels} -> {layer.out_channels}"
        rows.append(("G", k, what, f"{side}x{side}", layer))
    if net.generator.linear:
        what = f"linear {net.generator.linear.in_features} -> 3, added"
        rows.append(("G", "+", what, f"{side}x{side}", net.generator.linear))
    for k, layer in enumerate([*net.encoder.convolutions, net.encoder.full] if net.encoder else [], start=1):
        rows.append(("E", k, f"{layer._get_name()} {layer.weight.shape[1]} -> {layer.weight.shape[0]}", "", layer))
    lines = [
        f"  {name}{k}  {what:<34} {size:>8}  {sum(p.numel() for p in layer.parameters()):>10,} parameters"
        for name, k, what, size, layer in rows
    ]
    return [*lines, f"  in all {sum(p.numel() for p in net.parameters()):,} parameters, batch-norm shifts included"]
