"""The nets of VideoGAN: a generator that lays a moving foreground over a still background, and a discriminator.

Vondrick, Pirsiavash, Torralba, "Generating Videos with Scene Dynamics", NIPS 2016. The generator's two streams meet in

    G(z) = m(z) f(z) + (1 - m(z)) b(z)                                                       (paper, equation 2)

Glossary (the paper's symbols)
    z   noise, N(0, 1), 100 numbers; the conditional generator takes the first frame x_0 in its place
    f   foreground video            b   background, one frame, the same at all times
    m   mask in [0, 1]: where the foreground is seen
    D   discriminator: two logits, fake and real

Videos are float32 (N, 3, 32, 64, 64) in [-1, 1], masks (N, 1, 32, 64, 64), backgrounds and frames (N, 3, 64, 64).
"""

import itertools
import types
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from run import ranks

FRAMES, SIZE = 32, 64  # of every video: the nets are built for them
LATENT = 100
WIDTH = 64  # channels of G's last maps and D's first, twice that where conditional; all others are multiples
FAKE, REAL = 0, 1  # the classes that D tells apart

CONVOLUTION = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class Scene(NamedTuple):
    """What a generator makes; of one stream, the foreground is the video, and there is neither mask nor background."""

    video: torch.Tensor
    foreground: torch.Tensor
    mask: torch.Tensor | None
    background: torch.Tensor | None


def up(dims, before, after, kernel=4, stride=2, padding=1):
    """Transposed convolution, batch norm, ReLU: from `before` to `after` channels, by default at twice the size."""
    layer = TRANSPOSED[dims](before, after, kernel, stride, padding)
    return nn.Sequential(layer, BATCH_NORM[dims](after), nn.ReLU(inplace=True))


def head(dims, before, after, squash):
    """The last layer of a stream: transposed convolution to twice the size, squashed to the range of its output."""
    return nn.Sequential(TRANSPOSED[dims](before, after, 4, 2, 1), squash)


def down(dims, before, after, activation, norm=True):
    """Convolution to half the size, batch norm (with the released epsilon) unless norm is False, activation."""
    layer = CONVOLUTION[dims](before, after, 4, 2, 1)
    return nn.Sequential(layer, *([BATCH_NORM[dims](after, eps=1e-3)] if norm else []), activation)


class Generator(nn.Module):
    """G, of two streams (released) or one (the paper's baseline, foreground alone).

    conditional: the input is a first frame, which an encoder takes to a map of 1024x4x4, and the streams start there
    (released; the paper's text is read by some as a code of 100 numbers).
    """

    def __init__(self, streams=2, conditional=False):
        super().__init__()
        self.conditional = conditional
        if conditional:
            relu, widths = nn.ReLU(inplace=True), [16 * WIDTH, 8 * WIDTH, 4 * WIDTH, 2 * WIDTH]
            rungs = [down(2, *pair, relu) for pair in itertools.pairwise(widths[::-1])]
            self.encoder = nn.Sequential(down(2, 3, widths[-1], relu, norm=False), *rungs)  # 64 -> 32 -> 16 -> 8 -> 4
            start_2d, start_3d = [], [up(3, widths[0], widths[0], (2, 1, 1), 1, 0)]
        else:
            widths = [8 * WIDTH, 4 * WIDTH, 2 * WIDTH, WIDTH]
            start_2d, start_3d = [up(2, LATENT, widths[0], 4, 1, 0)], [up(3, LATENT, widths[0], (2, 4, 4), 1, 0)]
        ladder = list(itertools.pairwise(widths))
        self.trunk = nn.Sequential(*start_3d, *(up(3, *pair) for pair in ladder))  # (N, C, 16, 32, 32)
        self.foreground = head(3, widths[-1], 3, nn.Tanh())
        self.mask = self.background = None
        if streams == 2:
            self.mask = head(3, widths[-1], 1, nn.Sigmoid())
            self.background = nn.Sequential(*start_2d, *(up(2, *pair) for pair in ladder),
                                            head(2, widths[-1], 3, nn.Tanh()))
        initialise(self)

    def forward(self, source):
        """The Scene of noise z (N, 100) or, where conditional, of first frames (N, 3, 64, 64) in [-1, 1]."""
        code = self.encoder(source) if self.conditional else source[:, :, None, None]  # (N, C, 4, 4) or (N, C, 1, 1)
        hidden = self.trunk(code[:, :, None])
        f = self.foreground(hidden).float()
        if self.mask is None:
            return Scene(f, f, None, None)
        m, b = self.mask(hidden).float(), self.background(code).float()
        return Scene(compose(f, m, b), f, m, b)


def compose(f, m, b):
    """m f + (1 - m) b (equation 2): f (N, 3, T, H, W), m (N, 1, T, H, W), b (N, 3, H, W), the same at all times."""
    return m * f + (1 - m) * b[:, :, None]


class Discriminator(nn.Module):
    """D: two logits (N, 2), fake and real, of videos (N, 3, 32, 64, 64). The conditional one is twice as wide; it sees
    the video only, not the frame that it was made from (released). spectral: each convolution's weights are divided by
    their largest singular value (Miyato, Kataoka, Koyama, Yoshida, ICLR 2018), which the released net does not do."""

    def __init__(self, conditional=False, spectral=False):
        super().__init__()
        c, leaky = (2 * WIDTH if conditional else WIDTH), nn.LeakyReLU(0.2, inplace=True)
        self.features = nn.Sequential(
            down(3, 3, c, leaky, norm=False), down(3, c, 2 * c, leaky), down(3, 2 * c, 4 * c, leaky),
            down(3, 4 * c, 8 * c, leaky),
        )
        self.classify = nn.Conv3d(8 * c, 2, (2, 4, 4))  # its input is (N, 8c, 2, 4, 4)
        initialise(self)
        if spectral:
            for layer in [block[0] for block in self.features] + [self.classify]:
                spectral_norm(layer)

    def forward(self, video):
        return self.classify(self.features(video)).flatten(1).float()


def synchronise(net):
    """Let a net's batch norms take, in learning, the statistics of all processes' rows."""
    for layer in net.modules():
        if isinstance(layer, tuple(BATCH_NORM.values())):
            layer.forward = types.MethodType(synchronised, layer)


def synchronised(layer, x):
    """The batch norm `layer` of x (N, C, ...), this process's rows of a mini-batch."""
    if not layer.training:
        return type(layer).forward(layer, x)
    y, mean, variance, count = ranks.centred(x)
    with torch.no_grad():
        layer.num_batches_tracked += 1
        layer.running_mean.lerp_(mean, layer.momentum)
        layer.running_var.lerp_(variance * count / (count - 1), layer.momentum)
    scale, shape = layer.weight * (variance + layer.eps).rsqrt(), (-1, *[1] * (x.ndim - 2))
    return (y * scale.view(shape) + layer.bias.view(shape)).to(x.dtype)


@torch.no_grad()
def initialise(net):
    """Convolutions N(0, 0.01^2), batch-norm weights N(1, 0.02^2), biases 0 (released)."""
    for layer in net.modules():
        if isinstance(layer, tuple(BATCH_NORM.values())):
            layer.weight.normal_(1, 0.02)
            layer.bias.zero_()
        elif isinstance(layer, (*CONVOLUTION.values(), *TRANSPOSED.values())):
            layer.weight.normal_(0, 0.01)
            layer.bias.zero_()


def map_entries(net, x):
    """How many entries the maps have that a net makes of x: those of convolutions and batch norms, which learning
    keeps."""
    entries = []
    hooks = [layer.register_forward_hook(lambda layer, x, y: entries.append(y.numel())) for layer in net.modules()
             if isinstance(layer, (*CONVOLUTION.values(), *TRANSPOSED.values(), *BATCH_NORM.values()))]
    net(x)
    for hook in hooks:
        hook.remove()
    return sum(entries)


def layer_table(net, name):
    """A net, one line for each of its parts: what it is called and how many parameters it has."""
    lines = [f"  {name}.{part:<12} {sum(p.numel() for p in layers.parameters()):>12,} parameters"
             for part, layers in net.named_children()]
    return [*lines, f"  {name} {'in all':<12} {sum(p.numel() for p in net.parameters()):>12,} parameters"]
