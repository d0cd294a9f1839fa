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
MAPS = ("axes", "base", "slopes", "spread", "low", "high")  # what a field knows of a pixel: see `colour_curves`
POWER = 1.15  # of the clip's covariance: curves make colours rougher than the noise behind them, which is smoother
WITHIN = (0.15, 0.85)  # quantiles of the clip's distances from the curve: samples go no further
LEVEL = 2  # grey level of what stands still, as f sees it, in standard deviations of what moves
SAMPLES = 2000  # colours at most from which a pixel's curve is fitted
LEAST, BAND = 0.7, 0.2  # sigma never falls below; how far above it, in variance, learning slows down
STRIP = 2**24  # entries of the colours that are sorted at once


class WhiteNoise:
    """q(I) = N(mean, sigma^2 Id), mean one grey level: the paper's. x(y) = y."""

    def __init__(self, mean, sigma):
        """mean: tensor of one grey level; sigma: std in grey levels."""
        self.mean, self.sigma = mean, sigma

    def noise(self, size, generators):
        """Where chains start: unit noise (as released) of size (T, H, W), a video each generator, channels last."""
        y = torch.empty(len(generators), *size, 3, device=generators[0].device)
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
        return {"mean": self.mean, "sigma": self.sigma}


class GaussianField:
    """q(I): the clip's colours at each pixel, driven by a Gaussian field with the clip's correlations.

        u = sigma (K_t x K_h x K_w) y,     y ~ N(0, Id)
        x = curve(e_1 u) + e_2 [s_2 e_2 u] + e_3 [s_3 e_3 u]

    u: three independent fields (the colours). K_t, K_h, K_w: one matrix an axis, the root of the clip's autocorrelation
    along it. e_k: a pixel's principal colours. curve: the polyline through the colours that the clip has at the pixel,
    from its lowest to its highest along e_1, so that unit noise gives them as often as the clip does. s_k: the std of
    what leaves the curve; [ ] cuts it off at what the clip has. With sigma = 1 and f = 0 samples have the
    clip's colours and covariance at every pixel. As f adds structure, sigma falls (`balance`).
    """

    sigma = 1.0  # of y

    def __init__(self, size, *, scale, mean, motion, maps, lags, loop=False):
        """size: (T, H, W) of the videos; scale: sigma of the field; mean, motion, maps and lags as `fit` makes them
        (maps of one pixel serve any H x W); loop: time is a circle."""
        self.size, self.mean, self.motion, self.maps, self.lags = size, mean, motion, maps, lags
        self.scale = torch.tensor(scale, dtype=torch.float32, device=mean.device)
        self.K = [root(c, n, circle=loop and axis == 0) for axis, (c, n) in enumerate(zip(lags, size, strict=True))]

    @classmethod
    def fit(cls, videos, scale=1.0, stationary=False):
        """The field of clips (N, 3, T, H, W) in grey levels; stationary: the same at every pixel, for nets that slide
        in space. ValueError if the clips do not move."""
        image = videos.mean((0, 2), dtype=torch.float64).float()  # (3, H, W)
        if stationary:
            image = image.mean((1, 2), keepdim=True).expand_as(image).contiguous()
        around = videos - image[:, None]
        std = around.std(correction=0).item()
        if std == 0:
            raise ValueError("the clip does not move: all its frames are equal")
        if stationary:
            image = image[:, :1, :1]
        axes = principal_colours(around, stationary)
        maps = {"axes": axes, **colour_curves(around, axes, stationary)}
        first = torch.einsum("chw,ncthw->nthw", axes[:, 0], around)
        lags = [autocorrelation(gaussianized(first, stationary), axis) for axis in (1, 2, 3)]
        maps["base"] = maps["base"] + LEVEL * std
        mean = (image - LEVEL * std)[:, None]  # (3, 1, H, W)
        return cls(tuple(videos.shape[2:]), scale=scale, mean=mean, motion=motion(videos), maps=maps, lags=lags)

    def resized(self, size, loop=False):
        """The same field for videos of another size (T, H, W): another H x W only if it is stationary."""
        return GaussianField(**(self.state() | {"size": size}), loop=loop)

    def noise(self, size, generators):
        """Unit noise for videos of size (T, H, W), one each generator: where chains start."""
        y = torch.empty(len(generators), 3, *size, device=generators[0].device)
        return gaussian_(y, generators)

    def video(self, y):
        """x(y), channels last, less `mean`."""
        K_t, K_h, K_w = self.K
        axes, base, slopes, spread, low, high = (self.maps[name] for name in MAPS)
        n, _, t, h, w = y.shape
        u = (K_t @ y.reshape(n * 3, t, h * w)).view(-1, h, w)
        u = (K_h @ u @ (self.scale * K_w.T)).view(n, 3, t, h, w).unbind(1)
        along, *off = (sum(axes[c, k] * u[c] for c in range(3)) for k in range(3))
        x = [base[c] for c in range(3)]
        for k, (start, stop) in enumerate(zip(KNOTS[:-1], KNOTS[1:])):
            ramp = (along - start).clamp(0, stop - start)
            x = [torch.addcmul(x[c], slopes[k, c], ramp) for c in range(3)]
        for k, v in enumerate(off):
            v = (spread[k] * v).maximum(low[k]).minimum(high[k])
            x = [torch.addcmul(x[c], axes[c, k + 1], v) for c in range(3)]
        return torch.stack(x, dim=-1).permute(0, 4, 1, 2, 3)  # (N, 3, T, H, W)

    def pull(self, y, gradient):
        """df(x(y))/dy = (dx/dy)^T df/dx, given the function gradient(x) = df/dx."""
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            x = self.video(y)
        return torch.autograd.grad(x, y, gradient(x.detach()))[0]

    def step_size(self, delta, fall):
        """delta: where noise moves chains by natural amounts, they need no smaller steps at the end."""
        return delta

    def balance(self, J):
        """Bring the field's sigma to where the chains' videos J vary as much as the clips: what f adds takes the
        place of noise. Returns a factor of the learning rate, which falls to 0 as sigma nears LEAST: with little noise
        left chains copy the clip."""
        self.scale.mul_(self.motion / motion(J)).clamp_(LEAST, 1)
        return min(1.0, max(0.0, (self.scale.item() ** 2 - LEAST**2) / BAND))

    def state(self):
        """What a checkpoint keeps, as plain types and tensors."""
        return {"size": self.size, "scale": self.scale.item(), "mean": self.mean, "motion": self.motion,
                "maps": self.maps, "lags": self.lags}



def load_reference(state):
    """The reference that a checkpoint's state keeps (an earlier version's was always white noise)."""
    kept = state.get("reference") or {"mean": state["mean"], "sigma": state["settings"]["refsig"]}
    return GaussianField(**kept) if "maps" in kept else WhiteNoise(**kept)


def motion(videos):
    """How much videos (N, 3, T, H, W) move: their standard deviation over time, mean over all else."""
    return videos.std(2, correction=0).mean().item()


# ------------------------------------------------------------------------------------------------- fitting the field


def principal_colours(around, stationary):
    """The principal colours of videos less their mean image (N, 3, T, H, W): (3 of RGB, 3 axes, H, W), the axis of most
    variance first. The covariances of neighbouring pixels are blended by a Gaussian of 1.5 pixels."""
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
    vectors = torch.linalg.eigh(covariance.permute(2, 3, 0, 1).double())[1].flip(-1)
    return vectors.permute(2, 3, 0, 1).float().contiguous()


def colour_curves(around, axes, stationary):
    """How noise becomes colour at each pixel, fitted to the colours that it and its eight neighbours have in videos
    less their mean image (N, 3, T, H, W):

    base (3, H, W), the curve's first colour; slopes (knots - 1, 3, H, W), its colour per unit of noise between knots;
    spread (2, H, W), the std of what leaves the curve along the second and third axis; low and high (2, H, W), its
    least and largest value.
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
    ramps = (noise[:, None] - knots[:-1]).clamp(min=0).minimum(knots.diff())  # (S, knots - 1), as in `video`
    basis = torch.cat([torch.ones_like(ramps[:, :1]), ramps], dim=1)
    solve = torch.linalg.solve(basis.T @ basis + 1e-6 * torch.eye(len(KNOTS), device=basis.device), basis.T).float()
    curve = solve @ colours  # (H, W, knots, 3): base and slopes
    off = (colours - basis.float() @ curve) @ axes[..., 1:]  # (H, W, S, 2)
    low, high = (off.kthvalue(1 + round(share * (count - 1)), dim=2).values for share in WITHIN)
    maps = {"spread": off.square().mean(2).sqrt(), "low": low, "high": high}
    maps = {name: each.permute(2, 0, 1).contiguous() for name, each in maps.items()}
    curve = curve.permute(2, 3, 0, 1).contiguous()  # (knots, 3, H, W)
    return maps | {"base": curve[0], "slopes": curve[1:]}


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


def autocorrelation(x, axis):
    """The autocorrelation of x along an axis at lags 0, 1, ..., float64, unbiased, then tapered by a cosine to 0 at the
    axis' length; the mean over all else."""
    x = x.movedim(axis, -1).double()
    n = x.shape[-1]
    power = torch.fft.rfft(x, n=2 * n).abs().square().flatten(0, -2).sum(0)
    lags = torch.arange(n, device=x.device)
    covariance = torch.fft.irfft(power, n=2 * n)[:n] / (n - lags)
    return covariance / covariance[0] * (0.5 + 0.5 * torch.cos(math.pi * lags / n))


def root(correlation, n, circle=False):
    """K (n, n): K K^T is, to the POWER, the correlation matrix of n moments, 0 beyond the lags known; on a circle a lag
    is the shorter way. Negative eigenvalues are left out, and rows are scaled to unit variance."""
    known = torch.zeros(max(n, len(correlation)), dtype=torch.float64, device=correlation.device)
    known[: len(correlation)] = correlation
    lag = torch.arange(n, device=known.device)
    lag = (lag[:, None] - lag).abs()
    values, vectors = torch.linalg.eigh(known[torch.minimum(lag, n - lag) if circle else lag])
    K = (vectors * values.clamp(min=1e-6 * values[-1]) ** (POWER / 2)) @ vectors.T
    return (K / K.norm(dim=1, keepdim=True)).float()
