"""The reference q of the model p(I; w) = exp(f(I; w)) q(I) / Z(w), and the map from its noise to a video.

A chain is the noise y, and the video that f sees is x(y). Langevin dynamics (Xie, Zhu, Wu 2017, equation 8) moves y:

    y <- y + (delta^2 / 2) ((dx/dy)^T df/dx - y / sigma^2) + delta Z,     Z ~ N(0, 1)

`WhiteNoise` is the paper's q: x = y. `GaussianField` is no part of the paper: a q that already has the clip's colours,
its range at each pixel and its correlations in time and space, so that f adds only what these do not say.

Both have: mean, what to add to x for grey levels; sigma, the std of y under q; noise, video, pull, state. y and x are
float32 (N, 3, T, H, W).
"""

import math

import torch
import torch.nn.functional as F

from langevin import gaussian_

KNOTS = (-2.5, -1.5, -0.75, 0.0, 0.75, 1.5, 2.5)  # of a pixel's colour curve, in standard deviations of its noise
MAPS = ("bends", "base", "off", "low", "high")  # what a field knows of a pixel: see `colour_curves`
POWER = 1.07  # of the clip's covariance: curves make colours rougher than the noise behind them, which is smoother
WITHIN = (0.3, 0.7)  # quantiles of what leaves the curve: samples go no further
LEVEL = 2  # grey level of what stands still, as f sees it, in standard deviations of what moves
SAMPLES = 2000  # colours at most from which a pixel's curve is fitted
AXES = (-3, -2, -1)  # time, height, width
MARGIN = 8  # frames of the box beyond a video: its opposite ends are neighbours
LEAST = 0.5  # sigma never falls below
SHARE, BAND = 0.5, 0.2  # of the variance: what learning leaves to noise, and how far above it it slows down
STRIP = 2**24  # entries of the colours that are sorted at once


class WhiteNoise:
    """q(I) = N(mean, sigma^2 Id), mean one grey level: the paper's. x(y) = y."""

    def __init__(self, size, *, mean, sigma):
        """size: (T, H, W) of the videos; mean: tensor of one grey level; sigma: std in grey levels."""
        self.size, self.mean, self.sigma = size, mean, sigma

    def resized(self, size, loop=False):
        """The same reference for videos of another size (T, H, W)."""
        return WhiteNoise(size, mean=self.mean, sigma=self.sigma)

    def noise(self, generators):
        """Where chains start: unit noise (as released), a video each generator, channels last."""
        y = torch.empty(len(generators), *self.size, 3, device=generators[0].device)
        return gaussian_(y, generators).permute(0, 4, 1, 2, 3)

    def video(self, y):
        """x(y)."""
        return y

    def pull(self, y, gradient):
        """df(x(y))/dy, given the function gradient(x) = df/dx."""
        return gradient(y)

    def step_size(self, delta, fall):
        """delta once the learning rate has fallen to the share `fall`: its square falls with the rate, as the weights
        that the chains follow move less and less."""
        return delta * fall**0.5

    def balance(self, J):
        """A factor of the learning rate, given the chains' videos."""
        return 1.0

    def state(self):
        """What a checkpoint keeps, as plain types and tensors."""
        return {"size": self.size, "mean": self.mean, "sigma": self.sigma}


class GaussianField:
    """q(I): the clip's colours at each pixel, driven by a Gaussian field with the clip's correlations.

        u = sigma F^-1 a y,     y ~ N(0, Id)
        x = curve(u_1) + s_2 e_2 [u_2] + s_3 e_3 [u_3]

    u: three independent fields, stationary in time and space. F: the Fourier transform over a box somewhat larger than
    the video; y: its coefficients, real and imaginary parts; a: the root of the clip's power spectrum. What moves
    upwards in the clip thus does in samples. curve: at each pixel the polyline through the colours that the clip has
    there, in order along their first principal axis, so that unit noise gives them as often as the clip does. e_2, e_3,
    s_2, s_3: the other axes, and the std of what leaves the curve along them; [ ] cuts it off where most of the clip's
    is. With sigma = 1 and f = 0 samples have the clip's colours and covariance at every pixel. As f adds structure,
    sigma falls (`balance`).
    """

    sigma = 1.0  # of y

    def __init__(self, size, *, scale, mean, motion, maps, covariance, loop=False):
        """size: (T, H, W) of the videos; scale: sigma of the field; mean, motion, maps and covariance as `fit` makes
        them (maps of one pixel serve any H x W); loop: time is a circle."""
        self.size, self.mean, self.motion, self.maps, self.covariance = size, mean, motion, maps, covariance
        self.scale = torch.tensor(scale, dtype=torch.float32, device=mean.device)
        margins = 0 if loop else MARGIN, size[1] // 4, size[2] // 4  # on a circle opposite ends are neighbours
        self.box = [fast_length(n + m) if m else n for n, m in zip(size, margins, strict=True)]
        self.amplitude = amplitudes(covariance, self.box)

    @classmethod
    def fit(cls, videos, scale=1.0, stationary=False):
        """The field of clips (N, 3, T, H, W) in grey levels; stationary: the same at every pixel, for nets that slide
        in space. ValueError if the clips do not move."""
        if motion(videos) == 0:
            raise ValueError("the clips do not move: all frames are equal")
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
        return cls(tuple(videos.shape[2:]), scale=scale, mean=mean, motion=motion(videos), maps=maps,
                   covariance=covariance)

    def resized(self, size, loop=False):
        """The same field for videos of another size (T, H, W): another H x W only if it is stationary."""
        return GaussianField(**(self.state() | {"size": size}), loop=loop)

    def noise(self, generators):
        """Unit noise y (N, 3, T', H', W' / 2 + 1, 2), a video each generator: where chains start."""
        y = torch.empty(len(generators), 3, *self.amplitude.shape, 2, device=generators[0].device)
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
        z = torch.view_as_complex(y) * (self.scale * self.amplitude)
        return torch.fft.irfftn(z, s=self.box, dim=AXES, norm="forward")[:, :, :t, :h, :w]

    def field_transposed(self, v):
        """The transpose of `field`: what v (N, 3, T, H, W) is to y."""
        z = torch.fft.rfftn(v, s=self.box, dim=AXES) * (self.scale * self.amplitude)
        z[..., 1 : (self.box[2] + 1) // 2] *= 2  # each of these stands for its conjugate, too
        return torch.view_as_real(z)

    def colour(self, u):
        """The videos x of fields u, channels last."""
        bends, base, off, low, high = (self.maps[name] for name in MAPS)
        first, *others = u.unbind(1)
        channels = base
        for knot, bend in zip(KNOTS, bends):
            hinge = first.clamp(min=knot)
            channels = [torch.addcmul(x, b, hinge) for x, b in zip(channels, bend)]
        for v, lo, hi, axis in zip(others, low, high, off):
            v = v.maximum(lo).minimum(hi)
            channels = [torch.addcmul(x, a, v) for x, a in zip(channels, axis)]
        return torch.stack(channels, dim=-1).permute(0, 4, 1, 2, 3)  # (N, 3, T, H, W)

    def colour_transposed(self, u, g):
        """(dx/du)^T g, given the gradient g with respect to x = colour(u); all (N, 3, T, H, W)."""
        bends, _, off, low, high = (self.maps[name] for name in MAPS)
        first, *others = u.unbind(1)
        g = [channel.contiguous() for channel in g.unbind(1)]
        pulled = [sum(torch.ops.aten.threshold_backward(weighted(bend, g), first, knot)
                      for knot, bend in zip(KNOTS, bends))]
        for v, lo, hi, axis in zip(others, low, high, off):
            pulled.append(weighted(axis, g).mul_(v == v.maximum(lo).minimum(hi)))
        return torch.stack(pulled, dim=1)

    def step_size(self, delta, fall):
        """delta: where noise moves chains by natural amounts, they need no smaller steps at the end."""
        return delta

    def balance(self, J):
        """Bring the field's sigma to where the chains' videos J vary as much as the clips: what f adds takes the
        place of noise. Returns a factor of the learning rate, which falls to 0 as noise falls to its SHARE of the
        variance: with little of it left, chains copy the clip."""
        self.scale.mul_(self.motion / motion(J)).clamp_(LEAST, 1)
        return min(1.0, max(0.0, (self.scale.item() ** 2 - SHARE) / BAND))

    def state(self):
        """What a checkpoint keeps, as plain types and tensors."""
        return {"size": self.size, "scale": self.scale.item(), "mean": self.mean, "motion": self.motion,
                "maps": self.maps, "covariance": self.covariance}


def weighted(weights, channels):
    """The sum of three channels by three maps of weights."""
    total = weights[0] * channels[0]
    return total.addcmul_(weights[1], channels[1]).addcmul_(weights[2], channels[2])


def load_reference(state):
    """The reference that a checkpoint's state keeps (an earlier version's was always white noise)."""
    if "reference" not in state:
        learned = state["settings"]
        size = (learned["num_frames"], *learned["im_size"])
        return WhiteNoise(size, mean=state["mean"], sigma=learned["refsig"])
    kept = state["reference"]
    return GaussianField(**kept) if "maps" in kept else WhiteNoise(**kept)


# ------------------------------------------------------------------------------------------------- fitting the field


def motion(videos):
    """How much videos (N, 3, T, H, W) move: their standard deviation over time, mean over all else."""
    return videos.std(2, correction=0).mean().item()


def principal_colours(around, stationary):
    """The principal colours of videos less their mean image (N, 3, T, H, W): (3 of RGB, 3 axes, H, W), the axis of most
    variance first, all on the same side as the clip's. Covariances of neighbours are blended by a Gaussian of 1.5
    pixels."""
    covariance = torch.einsum("ncthw,ndthw->cdhw", around, around) / (len(around) * around.shape[2])
    if stationary:
        covariance = covariance.mean((2, 3), keepdim=True)
    else:
        reach = torch.arange(-6, 7, device=around.device)
        window = torch.exp(-(reach**2) / (2 * 1.5**2))
        window /= window.sum()
        blurred = covariance.reshape(9, 1, *covariance.shape[2:])
        blurred = F.conv2d(F.pad(blurred, (6, 6, 0, 0), mode="replicate"), window.view(1, 1, 1, -1))
        blurred = F.conv2d(F.pad(blurred, (0, 0, 6, 6), mode="replicate"), window.view(1, 1, -1, 1))
        covariance = blurred.reshape(covariance.shape)
    overall = torch.linalg.eigh(covariance.mean((2, 3)).double())[1].flip(-1)
    vectors = torch.linalg.eigh(covariance.permute(2, 3, 0, 1).double())[1].flip(-1)  # (H, W, 3, axis)
    same = (vectors * overall).sum(2, keepdim=True) >= 0
    return torch.where(same, vectors, -vectors).permute(2, 3, 0, 1).float().contiguous()


def colour_curves(around, axes, stationary):
    """How noise becomes colour at each pixel, fitted to the colours that it and its eight neighbours have in videos
    less their mean image (N, 3, T, H, W):

    bends (knots, 3, H, W), by how much the curve's slope changes at each knot, and base (3, H, W): the curve at u is
    base + sum of bends * max(u, knot); off (2, 3, H, W): s_2 e_2 and s_3 e_3; low and high (2, H, W): from where to
    where u_2 and u_3 count.
    """
    n, c, t, h, w = around.shape
    frames = around.transpose(1, 2).reshape(n * t, c, h, w)
    if stationary:
        colours = frames.movedim(1, -1).reshape(1, 1, -1, 3)
        chosen = torch.linspace(0, colours.shape[2] - 1, min(colours.shape[2], 2**20)).round().long()
        return fit_curves(colours[:, :, chosen.to(around.device)], axes)
    frames = frames[torch.linspace(0, n * t - 1, min(n * t, SAMPLES // 9)).round().long().to(around.device)]
    padded = F.pad(frames, (1, 1, 1, 1), mode="replicate")  # (S, 3, H + 2, W + 2)
    rows, strips = max(1, STRIP // (27 * len(frames) * w)), []
    for top in range(0, h, rows):
        strip = padded[:, :, top : top + rows + 2]
        near = [strip[:, :, i : strip.shape[2] - 2 + i, j : j + w] for i in range(3) for j in range(3)]
        colours = torch.cat(near).permute(2, 3, 0, 1)  # (rows, W, 9 S, 3)
        strips.append(fit_curves(colours, axes[:, :, top : top + rows]))
    return {name: torch.cat([strip[name] for strip in strips], dim=-2) for name in strips[0]}


def fit_curves(colours, axes):
    """`colour_curves` of the colours (H, W, S, 3) of pixels with these axes (3, 3, H, W).

    The colour of rank k among S belongs to the noise that has k / S of a Gaussian below it; least squares then give the
    polyline's corners.
    """
    axes, count = axes.permute(2, 3, 0, 1), colours.shape[2]  # (H, W, 3, axis)
    along = (colours @ axes[..., :1])[..., 0]  # (H, W, S)
    colours = colours.gather(2, along.argsort(2)[..., None].expand_as(colours))
    knots = torch.tensor(KNOTS, dtype=torch.float64, device=colours.device)
    noise = gaussian_ranks(count, colours.device).clamp(knots[0], knots[-1])
    ramps = (noise[:, None] - knots[:-1]).clamp(min=0).minimum(knots.diff())  # (S, knots - 1), each from knot to knot
    basis = torch.cat([torch.ones_like(ramps[:, :1]), ramps], dim=1)
    solve = torch.linalg.solve(basis.T @ basis + 1e-6 * torch.eye(len(KNOTS), device=basis.device), basis.T).float()
    curve = solve @ colours  # (H, W, knots, 3): the first colour, then slopes
    away = (colours - basis.float() @ curve) @ axes[..., 1:]  # (H, W, S, 2)
    std = away.square().mean(2).sqrt()  # (H, W, 2)
    low, high = (away.kthvalue(1 + round(share * (count - 1)), dim=2).values for share in WITHIN)
    low, high = low.clamp(max=0) / std.clamp(min=1e-6), high.clamp(min=0) / std.clamp(min=1e-6)
    off = (axes[..., 1:] * std[..., None, :]).permute(3, 2, 0, 1)
    curve = curve.permute(2, 3, 0, 1)  # (knots, 3, H, W)
    bends = F.pad(curve[1:], (0,) * 6 + (1, 1)).diff(dim=0)
    base = curve[0] - (bends * knots.float().view(-1, 1, 1, 1)).sum(0)
    maps = {"bends": bends, "base": base, "off": off, "low": low.permute(2, 0, 1), "high": high.permute(2, 0, 1)}
    return {name: each.contiguous() for name, each in maps.items()}


def gaussian_ranks(count, device):
    """Where the k-th of `count` Gaussian numbers lies in the middle, float64 (count,)."""
    return torch.special.ndtri((torch.arange(count, device=device, dtype=torch.float64) + 0.5) / count)


def gaussianized(first, stationary):
    """Values (N, T, H, W) by their rank at their pixel, Gaussian, times the pixel's std: the noise behind the curve."""
    n, t, h, w = first.shape
    flat = first.reshape(1, -1) if stationary else first.reshape(n * t, h * w).T  # (pixels, moments)
    noise = torch.empty_like(flat)
    ranks = gaussian_ranks(flat.shape[1], flat.device).float().expand_as(flat)
    noise.scatter_(1, flat.argsort(1), ranks)
    noise *= flat.std(1, correction=0, keepdim=True)
    return noise.view(n, t, h, w) if stationary else noise.T.reshape(n, t, h, w)


def autocovariance(x):
    """The autocovariance of x (N, T, H, W), mean over the videos: lags 0, 1, ... in time, and in space up to half the
    side either way, lag 0 in the middle; unbiased, then tapered by a cosine to 0."""
    n, reach = x.shape[1:], (x.shape[1], *((side + 1) // 2 for side in x.shape[2:]))  # lags below these
    box = [fast_length(side + lags) for side, lags in zip(n, reach, strict=True)]
    power = sum(torch.fft.rfftn(video, s=box, dim=AXES).abs().square() for video in x) / len(x)
    covariance = torch.fft.irfftn(power, s=box, dim=AXES)
    for axis, (side, lags) in enumerate(zip(n, reach, strict=True)):
        lag = torch.arange(0 if axis == 0 else 1 - lags, lags, device=x.device)
        weight = (0.5 + 0.5 * torch.cos(math.pi * lag / lags)) / (side - lag.abs())
        shape = [-1 if k == axis else 1 for k in range(3)]
        covariance = covariance.index_select(axis, lag % box[axis]) * weight.view(shape)
    return covariance


def amplitudes(covariance, box):
    """a (T', H', W' / 2 + 1) for `GaussianField.field` in a box (T', H', W'): fields then have unit variance and the
    spectrum, to the POWER, of the autocovariance, which is 0 beyond the lags it has."""
    later = covariance[1:].flip(0, 1, 2)  # the lags of negative time are those of positive time in opposite directions
    whole = torch.cat([later, covariance])
    on_box = whole.new_zeros(box)
    places = [(torch.arange(n, device=whole.device) - n // 2) % side for n, side in zip(whole.shape, box, strict=True)]
    on_box.index_put_(torch.meshgrid(*places, indexing="ij"), whole, accumulate=True)
    power = torch.fft.rfftn(on_box).real.clamp(min=0) ** POWER
    both = power.new_full((power.shape[2],), 2.0)  # a coefficient and its conjugate; the first, and of an even number
    both[0] = 1  # the last, stand alone
    if box[2] % 2 == 0:
        both[-1] = 1
    return (power / both / (power * both).sum()).sqrt()


def fast_length(n):
    """The next length from n on whose Fourier transform is fast: no prime factor above 5."""
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 1
