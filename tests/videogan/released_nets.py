"""The nets of the authors' main.lua and main_conditional.lua as trees of Torch7's layers, and files of such trees."""

import itertools
import math
import struct

import numpy as np


class Layer:
    """An object of a class of Torch7; `parts` of a container are numbered from 1."""

    def __init__(self, kind, *parts, **fields):
        self.kind, self.fields = kind, {"train": True, "_type": "torch.FloatTensor", **fields}
        if parts:
            self.fields["modules"] = {float(k): part for k, part in enumerate(parts, start=1)}

    def parts(self):
        return self.fields["modules"].values()


def sequence(*parts):
    return Layer("nn.Sequential", *itertools.chain(*(part if isinstance(part, list) else [part] for part in parts)))


def table(*parts):
    return Layer("nn.ConcatTable", *parts)


def view(*size):
    return Layer("nn.View", size=size)


class Net:
    """The layers of a net with random weights, which share one storage, as Torch7's getParameters leaves them."""

    def __init__(self, width, package="nn", old=False, gain=3):
        """width: of the narrowest maps, released 64; package: nn or cudnn; old: statistics as they once were; gain: the
        variance of the weights, by which maps grow or fade."""
        self.width, self.package, self.old, self.gain = width, package, old, gain
        self.rng, self.at = np.random.default_rng(0), 0
        self.storage = np.zeros(2**19, np.float32)

    def tensor(self, *size, mean=0.0, std=0.1):
        start, self.at = self.at, self.at + math.prod(size)
        values = self.storage[start : self.at]
        values[:] = self.rng.normal(mean, std, len(values))
        return values.reshape(size)

    def layer(self, dims, kind, **fields):
        return Layer(f"{self.package}.{'Spatial' if dims == 2 else 'Volumetric'}{kind}", **fields)

    def convolution(self, dims, before, after, kernel=4, stride=2, padding=1, full=False):
        kernel = (kernel,) * dims if isinstance(kernel, int) else kernel
        size = (before, after) if full else (after, before)
        inputs = before * math.prod(kernel) / (stride**dims if full else 1)
        return self.layer(dims, "FullConvolution" if full else "Convolution", dW=float(stride), padW=float(padding),
                          weight=self.tensor(*size, *kernel, std=(self.gain / inputs) ** 0.5), bias=self.tensor(after))

    def norm(self, dims, channels, eps=1e-5):
        fields = {"weight": self.tensor(channels, mean=1.0), "bias": self.tensor(channels), "eps": eps,
                  "running_mean": self.tensor(channels)}
        var = np.exp(self.tensor(channels))
        fields |= {"running_std": np.float32((var + eps) ** -0.5)[:]} if self.old else {"running_var": var[:]}
        return self.layer(dims, "BatchNormalization", **fields)

    def up(self, dims, before, after, kernel=4, stride=2, padding=1):
        return [self.convolution(dims, before, after, kernel, stride, padding, full=True), self.norm(dims, after),
                Layer("nn.ReLU", inplace=True)]

    def ladder(self, dims, widths):
        return sum((self.up(dims, *pair) for pair in itertools.pairwise(widths)), [])

    def head(self, dims, before, after, squash):
        return [self.convolution(dims, before, after, full=True), Layer(f"nn.{squash}")]

    def down(self, dims, before, after, activation, norm=True):
        return [self.convolution(dims, before, after), *([self.norm(dims, after, 1e-3)] if norm else []), activation]

    def generator(self, conditional):
        """As main.lua and main_conditional.lua build it."""
        c = self.width
        widths = [16 * c, 8 * c, 4 * c, 2 * c] if conditional else [8 * c, 4 * c, 2 * c, c]
        relu, last, encoder = Layer("nn.ReLU"), widths[-1], []
        if conditional:
            rungs = [self.down(2, *pair, relu) for pair in itertools.pairwise(widths[::-1])]
            encoder = [sequence(self.down(2, 3, last, relu, norm=False), *rungs)]
            static, video = [], [view(-1, 16 * c, 1, 4, 4), *self.up(3, 16 * c, 16 * c, (2, 1, 1), 1, 0)]
        else:
            static = [view(-1, 100, 1, 1), *self.up(2, 100, 8 * c, 4, 1, 0)]
            video = [view(-1, 100, 1, 1, 1), *self.up(3, 100, 8 * c, (2, 4, 4), 1, 0)]
        static = sequence(static, self.ladder(2, widths), self.head(2, last, 3, "Tanh"))
        mask = sequence(self.head(3, last, 1, "Sigmoid"), *([] if conditional else [Layer("nn.L1Penalty")]))
        video = sequence(video, self.ladder(3, widths), table(sequence(self.head(3, last, 3, "Tanh")), mask))

        def pick(k):
            return Layer("nn.SelectTable", index=float(k))

        def repeat(count, dim):
            return Layer("nn.Replicate", nfeatures=float(count), dim=float(dim))

        squeeze, product = Layer("nn.Squeeze"), Layer("nn.CMulTable")
        motion = sequence(table(pick(1), sequence(pick(2), squeeze, repeat(3, 2))), product)
        others = [Layer("nn.MulConstant", constant_scalar=-1.0), Layer("nn.AddConstant", constant_scalar=1.0)]
        still = sequence(table(sequence(pick(3), repeat(32, 3)),
                               sequence(pick(2), squeeze, others, repeat(3, 2))), product)
        return sequence(encoder, table(video, static), Layer("nn.FlattenTable"), table(motion, still),
                        Layer("nn.CAddTable"))

    def discriminator(self, conditional):
        c, leaky = 2 * self.width if conditional else self.width, Layer("nn.LeakyReLU", negval=0.2)
        rungs = [self.down(3, k * c, 2 * k * c, leaky) for k in (1, 2, 4)]
        last = self.convolution(3, 8 * c, 2, (2, 4, 4), 1, 0)
        return sequence(self.down(3, 3, c, leaky, norm=False), *rungs, last, view(-1, 2))


class Writer:
    """Torch7's binary format (File.lua, Storage.c, Tensor.c). An array that is a part of another is a tensor, one that
    is not is a storage."""

    def __init__(self, package="nn"):
        self.out, self.numbers, self.written = bytearray(), {}, set()
        self.floats = "Cuda" if package == "cudnn" else "Float"

    def pack(self, kind, *values):
        self.out += struct.pack(f"<{len(values)}{kind}", *values)

    def string(self, text):
        self.pack("i", len(text))
        self.out += text.encode()

    def write(self, x):
        """One object."""
        if x is None:
            self.pack("i", 0)
        elif isinstance(x, bool):
            self.pack("i", 5, x)
        elif isinstance(x, float):
            self.pack("i", 1)
            self.pack("d", x)
        elif isinstance(x, str):
            self.pack("i", 2)
            self.string(x)
        else:
            self.pack("i", 3 if isinstance(x, dict) else 4, self.numbers.setdefault(id(x), len(self.numbers) + 1))
            if id(x) not in self.written:
                self.written.add(id(x))
                self.write_new(x)

    def write_new(self, x):
        if isinstance(x, dict):
            self.pack("i", len(x))
            for key, value in x.items():
                self.write(key)
                self.write(value)
            return
        self.string("V 1")
        if isinstance(x, Layer):
            self.string(x.kind)
            self.write(x.fields)
        elif isinstance(x, tuple):
            self.string("torch.LongStorage")
            self.pack("q", len(x), *x)
        elif x.base is None:
            self.string(f"torch.{self.floats}Storage")
            self.pack("q", len(x))
            self.out += x.tobytes()
        else:
            self.string(f"torch.{self.floats}Tensor")
            self.pack("i", x.ndim)
            start = (x.ctypes.data - x.base.ctypes.data) // 4
            self.pack("q", *x.shape, *(stride // 4 for stride in x.strides), start + 1)
            self.write(x.base)


def file_of(x, package="nn"):
    """The bytes that torch.save writes of x."""
    writer = Writer(package)
    writer.write(x)
    return bytes(writer.out)
