"""The reference q of the model p(I; w) = exp(f(I; w)) q(I) / Z(w): white noise of std sigma (Xie, Zhu, Wu 2017)."""

import torch

from langevin import gaussian_


def white_noise(count, size, generators):
    """`count` videos of unit Gaussian noise, float32 (N, 3, T, H, W), stored channels last: where chains start."""
    noise = torch.empty(count, *size, 3, device=generators[0].device)
    return gaussian_(noise, generators).permute(0, 4, 1, 2, 3)


def add_reference_(gradient, x, level, sigma):
    """df/dx, in place, to the gradient of the log density, df/dx - (x - level) / sigma^2 (paper, equation 7)."""
    gradient.sub_(x, alpha=1 / sigma**2)
    return gradient.add_(level / sigma**2) if level else gradient
