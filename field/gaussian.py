"""The reference q that is fitted to clips: their colours, driven by a Gaussian field with their correlations.

No part of the paper; reference.py says what a reference is, and what it has.
"""

import torch

from data import InputError
from field.colours import KNOTS, colour_curves, principal_colours
from field.spectrum import AXES, amplitudes, autocovariance, box_of, gaussianized
from langevin import gaussian_
from utils import triton_works

MAPS = ("bends", "base", "off", "low", "high")  # what a field knows of a pixel: see `colour_curves`
LEVEL = 2  # grey level of what stands still, as f sees it, in standard deviations of what moves
LEAST = 0.5  # sigma never falls below
FRAMES = 2  # of a video at once on a CPU
SHARE, BAND = 0.65, 0.2  # of the variance: what learning leaves to noise, and how far above it it slows down


class GaussianField:
    """q(I): the clip's colours at each pixel, driven by a Gaussian field with the clip's correlations.

        u = sigma F^-1 a y,     y ~ N(0, Id)
        x = curve(u_1) + s_2 e_2 [u_2] + s_3 e_3 [u_3]

    u: three independent fields, stationary in time and space. F: the Fourier transform over a box somewhat larger than
    the video; y: its coefficients, real and imaginary parts; a: the root of the clip's power spectrum. What moves
    upwards in the clip thus does in samples. curve: at each pixel the polyline through the colours that the clip has
    there, in order along their first principal axis, so that unit noise gives them as often as the clip does. e_2, e_3,
    s_2, s_3: the other axes, and the std of what leaves the curve along them; [ ] cuts it off where most of the clip's
    is. With sigma = 1 and f = 0 samples have, nearly, the clip's colours, variance and covariance at every pixel. As f
    adds structure, sigma falls (`balance`).
    """

    sigma = 1.0  # of y

    def __init__(self, size, *, scale, mean, motion, maps, covariance, several=False, loop=False):
        """size: (T, H, W) of the videos; scale: sigma of the field; mean, motion, maps and covariance as `fit` makes
        them (maps of one pixel serve any H x W); several: fitted to more than one clip; loop: time is a circle."""
        self.several = several
        self.size, self.mean, self.motion, self.maps, self.covariance = size, mean, motion, maps, covariance
        self.scale = torch.tensor(scale, dtype=torch.float32, device=mean.device)
        self.box = box_of(size, loop)
        self.amplitude = amplitudes(covariance, self.box)[..., None].repeat(1, 1, 1, 2)  # for real, imaginary part

    @classmethod
    def fit(cls, videos, scale=1.0, stationary=False):
        """The field of clips (N, 3, T, H, W) in grey levels; stationary: the same at every pixel, for nets that slide
        in space. InputError if the clips do not move."""
        several = len(videos) > 1
        if motion(videos) == 0:
            raise InputError("the clips do not move, and -reference field needs motion: use white")
        image = videos.mean((0, 2), dtype=torch.float64).float()  # (3, H, W)
        if stationary:
            image = image.mean((1, 2), keepdim=True).expand_as(image).contiguous()
        around = videos - image[:, None]
        std = around.std(correction=0).item()
        if stationary:
            image = image[:, :1, :1]
        axes = principal_colours(around, stationary)
        maps = colour_curves(around, axes, stationary)
        first = torch.einsum("chw,ncthw->nthw", axes[:, 0], around)
        covariance = autocovariance(gaussianized(first, stationary))
        maps["base"] = maps["base"] + LEVEL * std
        mean = (image - LEVEL * std)[:, None]  # (3, 1, H, W)
        return cls(tuple(videos.shape[2:]), scale=scale, mean=mean, motion=motion(videos, several), several=several,
                   maps=maps, covariance=covariance)

    def resized(self, size, loop=False):
        """The same field for videos of another size (T, H, W): another H x W only if it is stationary."""
        return GaussianField(**(self.state() | {"size": size}), loop=loop)

    def noise(self, generators):
        """Unit noise y (N, 3, T', H', W' / 2 + 1, 2), a video each generator: where chains start."""
        y = torch.empty(len(generators), 3, *self.amplitude.shape, device=self.mean.device)
        return gaussian_(y, generators)

    def video(self, y):
        """x(y), channels last, less `mean`."""
        return self.colour(self.field(y))

    def pull(self, y, gradient):
        """df(x(y))/dy = (dx/dy)^T df/dx, given the function gradient(x) = df/dx."""
        u = self.field(y)
        g = gradient(self.colour(u))
        return self.field_transposed(self.colour_transposed(u, g))

    def field(self, y):
        """u = sigma F^-1 a y, (N, 3, T, H, W)."""
        t, h, w = self.size
        u = []
        for z in y.flatten(0, 1):  # one at a time, for a CPU's caches
            z = torch.view_as_complex(z * self.amplitude)
            u.append(torch.fft.irfftn(z, s=self.box, dim=AXES, norm="forward")[:t, :h, :w])
        return torch.stack(u).mul_(self.scale).unflatten(0, y.shape[:2])

    def field_transposed(self, v):
        """The transpose of `field`: what v (N, 3, T, H, W) is to y."""
        y = v.new_empty(*v.shape[:2], *self.amplitude.shape)
        for z, x in zip(y.flatten(0, 1), v.flatten(0, 1), strict=True):
            torch.mul(torch.view_as_real(torch.fft.rfftn(x, s=self.box, dim=AXES)), self.amplitude, out=z)
        y.mul_(self.scale)
        y[..., 1 : (self.box[2] + 1) // 2, :] *= 2  # each of these stands for its conjugate, too
        return y

    def colour(self, u):
        """The videos x of fields u, channels last."""
        if triton_works(u.device):
            from field import kernels

            return kernels.colour(u, KNOTS, *(self.maps[name] for name in MAPS))
        x = torch.cat([torch.stack(self.channels(part), dim=-1) for part in u.split(self.frames(u), dim=2)], dim=1)
        return x.permute(0, 4, 1, 2, 3)  # (N, 3, T, H, W)

    def channels(self, u):
        """The three channels (N, T, H, W) of fields u."""
        bends, base, off, low, high = (self.maps[name] for name in MAPS)
        first, *others = u.unbind(1)
        channels = base
        for knot, bend in zip(KNOTS, bends):
            hinge = first.clamp(min=knot)
            channels = [torch.addcmul(x, b, hinge) for x, b in zip(channels, bend)]
        for v, lo, hi, axis in zip(others, low, high, off):
            v = v.maximum(lo).minimum(hi)
            channels = [torch.addcmul(x, a, v) for x, a in zip(channels, axis)]
        return channels

    def colour_transposed(self, u, g):
        """(dx/du)^T g, given the gradient g with respect to x = colour(u); all (N, 3, T, H, W)."""
        if triton_works(u.device):
            from field import kernels

            return kernels.colour_transposed(u, g, KNOTS, *(self.maps[name] for name in MAPS))
        parts = zip(u.split(self.frames(u), dim=2), g.split(self.frames(u), dim=2), strict=True)
        return torch.cat([self.channels_transposed(*part) for part in parts], dim=2)

    def channels_transposed(self, u, g):
        """`colour_transposed` of a few frames."""
        bends, _, off, low, high = (self.maps[name] for name in MAPS)
        first, *others = u.unbind(1)
        g = [channel.contiguous() for channel in g.unbind(1)]
        pulled = [sum(torch.ops.aten.threshold_backward(weighted(bend, g), first, knot)
                      for knot, bend in zip(KNOTS, bends))]
        for v, lo, hi, axis in zip(others, low, high, off):
            pulled.append(weighted(axis, g).mul_(v == v.maximum(lo).minimum(hi)))
        return torch.stack(pulled, dim=1)

    def frames(self, u):
        """How many frames of u get their colours at once: on a CPU as many as its caches hold."""
        return FRAMES if u.device.type == "cpu" else u.shape[2]

    def step_size(self, delta, fall):
        """delta: where noise moves chains by natural amounts, they need no smaller steps at the end."""
        return delta

    def balance(self, moved):
        """Bring the field's sigma to where the chains move as much as the clips: what f adds takes the place of noise.
        moved: `motion` of the chains, which may be 0. Returns a factor of the learning rate, which falls to 0 as noise
        falls to its SHARE of the variance: with little of it left, chains copy the clip."""
        self.scale.mul_(self.motion / max(moved, 1e-30)).clamp_(LEAST, 1)
        return min(1.0, max(0.0, (self.scale.item() ** 2 - SHARE) / BAND))

    @property
    def share(self):
        """Of the clip's std, what noise has."""
        return self.scale.item()

    def state(self):
        """What a checkpoint keeps, as plain types and tensors."""
        return {"size": self.size, "scale": self.scale.item(), "mean": self.mean, "motion": self.motion,
                "several": self.several, "maps": self.maps, "covariance": self.covariance}


def weighted(weights, channels):
    """The sum of three channels by three maps of weights."""
    total = weights[0] * channels[0]
    return total.addcmul_(weights[1], channels[1]).addcmul_(weights[2], channels[2])


def motion(videos, several=False):
    """How much videos (N, 3, T, H, W) move: their standard deviation over time, mean over all else; several: over time
    and videos, since of several clips q has the mean image of all."""
    return videos.std((0, 2) if several else 2, correction=0).mean().item()
