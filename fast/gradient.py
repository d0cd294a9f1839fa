"""df(x; w)/dx of a descriptor, the same function as its own `gradient`, faster; and what precision it may use."""

import copy
import time

import torch

from data import to_tensor
from fast.device import multiplies_bfloat16
from fast.routes import FastConv, FastPlane
from model import FullPlane

TIMED = 24  # frames of a video, by which a CPU's precisions are timed


class FastGradient:
    """f.gradient without autograd: each layer and its transpose by the fastest route, in precision fp32 or bf16.

    In bf16 the products are of a copy of the weights, the sums stay float32. Weights that have changed in their
    place since the last call are noticed.
    """

    def __init__(self, f, precision="fp32"):
        self.f, self.copied = f, None
        self.layers = f.layers if precision == "fp32" else copy.deepcopy(f.layers).bfloat16()
        self.fast = [(FastPlane if isinstance(layer, FullPlane) else FastConv)(layer) for layer in self.layers]

    @torch.no_grad()
    def __call__(self, x):
        """The paper's top-down pass, written out layer by layer: float32 (N, 3, T, H, W), like x."""
        self.renew()
        maps = [x]
        for layer in self.fast:
            maps.append(layer.forward(maps[-1]).relu_())
        top = maps.pop()
        g = (top > 0).to(top.dtype)
        for layer in reversed(self.fast):
            below = maps.pop()
            g = layer.input_gradient(g, below.shape[2:])
            if maps:
                g = torch.ops.aten.threshold_backward(g, below, 0)  # ReLU: no gradient where it cut
        return g.float()

    @torch.no_grad()
    def renew(self):
        """Bring what was made of the weights up to date with them, in its place in memory: a CUDA graph of this
        function needs that before it is replayed."""
        if self.layers is not self.f.layers:
            versions = [p._version for p in self.f.parameters()]
            if versions != self.copied:
                for ours, theirs in zip(self.layers.parameters(), self.f.parameters(), strict=True):
                    ours.copy_(theirs)
                self.copied = versions
            for ours, theirs in zip(self.layers, self.f.layers, strict=True):
                ours.wrap = theirs.wrap
        for layer in self.fast:
            layer.renew()


def some_frames(videos, device, whole):
    """Of clips uint8 (N, T, H, W, 3), a video (1, 3, T, H, W) to time a gradient with: the first clip, and its first
    frames unless the net needs it whole."""
    x = to_tensor(videos[:1, : None if whole else TIMED]).to(device)
    return x - x.mean()


def pick_precision(f, x, limit=0.01):
    """'bf16' if on this device a new net's gradient at x is then within `limit` (relative) of float32's, and faster.

    A GPU is asked, not tried: with units for bfloat16 it is many times faster, and a trial would take seconds. A device
    without instructions for it is not tried, either: one gradient may take minutes. Biases that keep the units away
    from their kinks make it a test of the arithmetic alone: at its tiny first weights a net has units that any rounding
    turns on or off.
    """
    if x.is_cuda:
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if not multiplies_bfloat16(x.device):
        return "fp32"
    nets = [FastGradient(f, precision) for precision in ("fp32", "bf16")]
    biases, seconds = [layer.bias.detach() for layer in f.layers], [[], []]
    kept = [bias.clone() for bias in biases]
    for bias in biases:
        bias.fill_(100)
    try:
        exact, rough = (gradient(x) for gradient in nets)  # the first call also prepares what others find
        error = ((rough - exact).norm() / exact.norm()).item()
        while sum(map(sum, seconds)) < 0.6:  # in turn, for the machine may be busy with other things
            for gradient, taken in zip(nets, seconds, strict=True):
                begun = time.perf_counter()
                gradient(x).norm().item()  # waits for the device
                taken.append(time.perf_counter() - begun)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # the library has no algorithm for it
        return "fp32"
    finally:
        for bias, own in zip(biases, kept, strict=True):
            bias.copy_(own)
    slow, fast = map(min, seconds)
    return "bf16" if error <= limit and fast < slow else "fp32"
