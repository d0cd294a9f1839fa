"""Hidden pixels of clips as a Gaussian field given the visible ones: their expectation, and samples of them.

Videos and masks are arrays (N, T, H, W, 3) in grey levels and bool (N, T, H, W), True where a pixel is hidden. Fields
are tensors (3, T', H', W') over a box somewhat larger than the videos, since opposite ends of a Fourier transform are
neighbours; what lies beyond the videos is hidden, too.
"""

import numpy as np
import torch
from torch.nn.functional import avg_pool2d, pad
from tqdm import tqdm

from field.motion import move_between
from field.spectrum import AXES

MARGIN = 16  # frames, rows and columns of the box beyond the videos, at least
NEAR = 5  # side of the square over which a pixel's std is taken
SMOOTHING = 1.5  # std of the window that smooths a power spectrum, in frequency bins
STILL = 1e-4  # variance of a pixel at the least, as a share of the clip's
FLOOR = 0.01  # white noise in a field, as a share of its variance
ROUNDING = 1 / 12  # variance that rounding to whole grey levels adds
STEPS, ACCURACY, ROUGH = 60, 0.015, 0.05  # conjugate gradients: steps at most, and to what share errors are to fall
ADDED = 0.2  # precision that the preconditioner adds: this times that of a pixel alone times the square of `held`


class ConditionalField:
    """q(hidden | visible): clips as their mean images plus a stationary Gaussian field, fitted to visible pixels.

        x = mean + C D v,    v ~ N(0, K),    K = F^-1 P F

    C turns channels that are uncorrelated into colours; F: the Fourier transform over the box; P: the power spectrum of
    each channel; D^2: the clip's std at a pixel over that of the whole clip. Given the visible pixels v is Gaussian,
    too: with Q = K^-1, of covariance S = (Q_hh)^-1 on the hidden pixels h, around m, `expected`, which is Wiener
    interpolation (kriging). But what stands still in a clip does so in samples: their covariance is D S D. (With D^2 in
    the place of D one Gaussian would do for both; its expectation is further off, since where little moves the rest is
    the film's noise.)

    A stationary field knows of no motion. So a hidden frame between two visible ones counts as observed, with an error,
    half way along the motion from one to the other (field.motion); the precision of that adds to Q_hh.
    """

    def __init__(self, hidden, *, power, channels, mean, scale, trust=None, expected=None, bar=None):
        """hidden: bool (N, T, H, W); power (3, T', H', W' / 2 + 1); channels C (3, 3); mean (N, 3, H, W); scale: D
        (N, 3, H, W); trust: precision of what motion says (N, T, H, W), or None for 0; expected: m, N fields, or None
        before there are any."""
        self.power, self.channels, self.mean, self.scale, self.expected = power, channels, mean, scale, expected
        self.trust = torch.zeros(hidden.shape, device=power.device) if trust is None else trust
        self.size, self.bar = hidden.shape[1:], bar
        self.box = box_of(self.size)
        self.free = [boxed(torch.from_numpy(mask).float().to(power.device), 1.0) for mask in hidden]
        self.precision = 1 / power[..., None].repeat(1, 1, 1, 1, 2)  # Q, for real and imaginary part
        self.observed = [boxed(x * d.square()[:, None]) for x, d in zip(self.trust, scale)]  # of v, (3, T', H', W')
        self.parts = [self.preconditioner(*pair) for pair in zip(self.free, self.observed)]

    def preconditioner(self, free, observed):
        """(pixels, roughly the inverse of Q_hh by frequency), for pixels of which nothing is known and for the others.

        For the former K would do if nothing were visible. Visible pixels among them keep them from moving together, as
        a precision that is added to Q does. It grows with `held`: the precision of hidden pixels that move as one, over
        that of one that moves alone, 0.5 where every second pixel is hidden at random, 0.01 in a large hole.
        """
        t, h, w = self.size
        moved = (observed > 0).float()
        unknown = free * (1 - moved)
        one = boxed(unknown[:, :t, :h, :w])
        alone = self.precision.mean((1, 2, 3, 4))
        held = (one * filtered(one, self.precision)).sum(AXES) / one.sum(AXES).clamp_min(1) / alone
        added = ADDED * held.square() * alone
        known = [(moved, 1 / (self.precision + observed[observed > 0].mean()))] if moved.any() else []
        return [(unknown, 1 / (self.precision + added.view(3, 1, 1, 1, 1))), *known]

    @classmethod
    def fit(cls, filled, hidden, device="cpu"):
        """The field of clips (N, T, H, W, 3) whose hidden pixels are filled in a simple way. Frames between others are
        moved there. As all this moves too little, the spectrum is that of the clips so filled and then, as in
        stochastic EM, that of samples given their visible pixels. Shows a bar: a step may take a second."""
        filled, trust = (np.stack(x) for x in zip(*map(move_between, filled, hidden)))
        with tqdm(total=2 * STEPS * len(filled), unit="step", desc="guessing hidden pixels", disable=None) as bar:
            shown = ~hidden[..., None]
            mean = (filled * shown).sum(1, dtype=np.float32) / np.maximum(shown.sum(1), 1)
            mean = np.where(shown.any(1), mean, filled.mean(1))  # (N, H, W, 3), over the moments a pixel is visible
            away = filled - mean[:, None]
            channels = np.linalg.eigh(np.cov(away[~hidden].T))[1].astype(np.float32)
            fields = torch.from_numpy(np.ascontiguousarray(np.moveaxis(away @ channels, 4, 1))).float().to(device)
            scale = local_scale(fields, torch.from_numpy(hidden).to(device))
            parts = {"channels": torch.from_numpy(channels).to(device), "scale": scale,
                     "mean": torch.from_numpy(np.moveaxis(mean, 3, 1).copy()).float().to(device),
                     "trust": torch.from_numpy(trust).to(device)}
            v = [boxed(x) for x in fields / scale[:, :, None]]
            first = cls(hidden, power=spectrum_of(v), bar=bar, **parts)
            draws = [first.sample(k, x, torch.Generator().manual_seed(k)) for k, x in enumerate(v)]
            fitted = cls(hidden, power=spectrum_of(draws), bar=bar, **parts)
            fitted.expected = [fitted.sample(k, x, None) for k, x in enumerate(v)]
            fitted.bar = None
            bar.update(bar.total - bar.n)
        return fitted

    def sample(self, k, v, generator):
        """The field v of clip k, some guess, which is what motion says where that says anything, with its hidden pixels
        drawn anew (with D = 1) or, with None for a generator, as expected."""
        noise = 0 if generator is None else self.noise(k, generator)
        return v + self.smoothed(k, noise - filtered(v, self.precision))

    def draw(self, k, generator):
        """A sample of the field of clip k given its visible pixels."""
        return self.expected[k] + self.scaled(k, self.smoothed(k, self.noise(k, generator)))

    def spread(self, k, g):
        """D S D g."""
        return self.scaled(k, self.smoothed(k, self.scaled(k, g)))

    def scaled(self, k, v):
        """D v; beyond the video D is 1."""
        _, h, w = self.size
        v = v.clone()
        v[..., :h, :w] *= self.scale[k][:, None]
        return v

    def noise(self, k, generator):
        """Noise of covariance Q_hh: smoothed, it is a sample of clip k's hidden pixels less their expectation."""

        def z():
            return torch.randn(3, *self.box, generator=generator, device=generator.device).to(self.power.device)

        noise = filtered(z(), self.precision.sqrt())
        return noise + self.observed[k].sqrt() * z() if self.trust[k].any() else noise

    def smoothed(self, k, g, accuracy=ACCURACY):
        """S g for the hidden pixels of clip k, 0 elsewhere: by conjugate gradients."""
        free, observed, tiny = self.free[k], self.observed[k], torch.finfo(g.dtype).tiny

        def roughly(residual):
            return sum(pixels * filtered(residual * pixels, response) for pixels, response in self.parts[k])

        x, residual = torch.zeros_like(g), g * free
        p = z = roughly(residual)
        energy = (residual * z).sum(AXES, keepdim=True)
        enough = accuracy**2 * energy
        for _ in range(STEPS):
            if (energy <= enough).all():
                break
            curved = (filtered(p, self.precision) * free).addcmul_(p, observed)
            step = energy / (p * curved).sum(AXES, keepdim=True).clamp_min(tiny)
            x, residual = x.addcmul_(step, p), residual.addcmul_(step, curved, value=-1)
            z = roughly(residual)
            before, energy = energy, (residual * z).sum(AXES, keepdim=True)
            p = z + energy / before.clamp_min(tiny) * p
            if self.bar is not None:
                self.bar.update()
        return x

    def move(self, k, v, g, sigma, rho, generator):
        """A Langevin step of clip k's hidden pixels in p(hidden | visible), proportional to exp(f) q: v is their field,
        and g the gradient of f there.

            v <- m + rho (v - m) + (1 - rho) sigma^2 D S D g + (1 - rho^2)^(1/2) sigma z,    z ~ N(0, D S D)

        preconditioned by D S D, and exact at f = 0 for any rho in [0, 1) (pCNL: Cotter et al. 2013). Drift and noise
        take one solution of Q_hh together.
        """
        m, drift = self.expected[k], (1 - rho) * sigma**2 * self.scaled(k, g)
        pushed = drift + (1 - rho**2) ** 0.5 * sigma * self.noise(k, generator)
        return m + rho * (v - m) + self.scaled(k, self.smoothed(k, pushed, ROUGH))

    def video(self, k, v):
        """x (3, T, H, W) in grey levels of clip k's field v."""
        t, h, w = self.size
        v = v[:, :t, :h, :w] * self.scale[k][:, None]
        return torch.einsum("ck,kthw->cthw", self.channels, v) + self.mean[k][:, None]

    def pull(self, k, g):
        """The gradient with respect to v, given that with respect to x = video(k, v), (3, T, H, W)."""
        return boxed(torch.einsum("ck,cthw->kthw", self.channels, g) * self.scale[k][:, None])

    def state(self):
        """What a checkpoint keeps, as tensors."""
        names = ("power", "channels", "mean", "scale", "trust", "expected")
        return {name: getattr(self, name) for name in names}


def local_scale(fields, hidden):
    """D (N, 3, H, W): the root of how much fields (N, 3, T, H, W) move near each pixel, over the mean, by visible
    pixels alone."""
    shown = (~hidden[:, None]).float()
    squares = (fields.square() * shown).sum(2)
    squares, count = (avg_pool2d(x, NEAR, stride=1, padding=NEAR // 2) for x in (squares, shown.sum(2)))
    overall = squares.mean((2, 3), keepdim=True) / count.mean((2, 3), keepdim=True)
    share = torch.where(count > 0, squares / count.clamp_min(1e-6) / overall.clamp_min(1e-6), 1.0)
    return share.clamp_min(STILL).sqrt().sqrt()


def box_of(size):
    """The sides of the box for videos of size (T, H, W): somewhat larger, and fast to transform."""
    from scipy.fft import next_fast_len

    return tuple(next_fast_len(side + MARGIN, real=True) for side in size)


def boxed(x, value=0.0):
    """x (..., T, H, W) in the box, with this value beyond the video."""
    size = x.shape[-3:]
    return pad(x, [k for side, whole in zip(reversed(size), reversed(box_of(size))) for k in (0, whole - side)],
               value=value)


def filtered(x, response):
    """The field x with its Fourier coefficients multiplied by a response (3, T', H', W' / 2 + 1, 2)."""
    out = torch.empty_like(x)
    for one, channel, gain in zip(out, x, response, strict=True):  # one at a time, for a CPU's caches
        z = torch.view_as_real(torch.fft.rfftn(channel)).mul_(gain)
        one.copy_(torch.fft.irfftn(torch.view_as_complex(z), s=channel.shape))
    return out


def spectrum_of(fields):
    """The variance of each Fourier coefficient of fields, smoothed, with a floor of white noise; mean over them."""
    power = 0
    for x in fields:
        periodogram = torch.fft.rfftn(x, dim=AXES).abs().square() / x[0].numel()
        covariance = torch.fft.irfftn(periodogram, s=x.shape[1:], dim=AXES)
        for axis, n in zip((1, 2, 3), x.shape[1:], strict=True):  # a window over the lags smooths over the frequencies
            bins = torch.fft.fftfreq(n, device=x.device) * 2 * torch.pi * SMOOTHING
            covariance *= (-bins.square() / 2).exp().view([-1 if a == axis else 1 for a in range(4)])
        smooth = torch.fft.rfftn(covariance, dim=AXES).real.clamp_min(0)
        power = power + (smooth + FLOOR * x.square().mean(AXES, keepdim=True) + ROUNDING) / len(fields)
    return power
