"""Markov random fields: draws against their analytic laws, and what must have no influence."""

import numpy as np
import pytest
from scipy.stats import kstest

from data import InputError, draw_mask
from judge.mrf import draw_l1, gibbs, mrf_l1, mrf_l2, strength


def laplacian(*size):
    """The matrix L of a grid, x' L x = the sum of (x_i - x_j)^2 over all pairs of neighbours."""
    numbers = np.arange(np.prod(size)).reshape(size)
    L = np.zeros((numbers.size, numbers.size))
    for axis in range(len(size)):
        i, j = (np.delete(numbers, end, axis).ravel() for end in (-1, 0))
        np.add.at(L, (np.r_[i, j, i, j], np.r_[i, j, j, i]), np.repeat([1, -1], 2 * len(i)))
    return L


def test_l2_has_the_conditional_mean_and_covariance_of_its_gaussian():
    """Of five pixels in an L, in many equal cells of 4x4x4 whose borders are visible: against dense linear algebra."""
    rng = np.random.default_rng(0)
    cell, hidden = rng.uniform(100, 150, (4, 4, 4)), np.zeros((4, 4, 4), bool)
    hidden[1:3, 1:3, 1] = hidden[1, 1, 2] = True
    video = np.repeat(np.tile(cell, (12, 12, 12))[..., None], 3, axis=3)
    mask = np.tile(hidden, (12, 12, 12))
    precision = 2 * strength(video, mask, 2) * laplacian(4, 4, 4)
    a, b = hidden.ravel(), ~hidden.ravel()
    covariance = np.linalg.inv(precision[a][:, a])
    mean = -covariance @ precision[a][:, b] @ cell.ravel()[b]
    draws = gibbs(video, mask, 2).reshape(12, 4, 12, 4, 12, 4, 3).transpose(0, 2, 4, 6, 1, 3, 5).reshape(-1, 64)[:, a]
    assert draws.mean(axis=0) == pytest.approx(mean, abs=5 * (covariance.max() / len(draws)) ** 0.5)
    assert np.cov(draws.T) == pytest.approx(covariance, abs=0.1 * covariance.max())


@pytest.mark.parametrize("near", [
    [90, 100, 104, 107, 120, 140],
    [100, 100, 104, 104, 104, 130],
    [90, 110, 104, 120, 140, np.inf],
    [104, np.inf, np.inf, 90, np.inf, 100],
    [np.inf, 100, np.inf, np.inf, np.inf, np.inf],
])
def test_l1_of_one_pixel_has_its_analytic_law(near):
    beta, count = 0.07, 20000
    draws = draw_l1(np.repeat(np.float32(near)[:, None], count, axis=1), beta, np.random.default_rng(0))
    x = np.linspace(-300, 500, 160001)
    density = np.exp(-beta * sum(np.abs(x - value) for value in near if np.isfinite(value)))
    law = np.cumsum(density) / density.sum()
    assert kstest(draws, lambda at: np.interp(at, x, law)).pvalue > 1e-3


def test_the_strength_is_the_one_that_a_gaussian_field_was_drawn_with():
    values, vectors = np.linalg.eigh(2 * 0.03 * laplacian(6, 6, 6))
    noise = np.random.default_rng(0).standard_normal((215, 3))
    field = (vectors[:, 1:] @ (noise / values[1:, None] ** 0.5)).reshape(6, 6, 6, 3)
    assert strength(field, np.zeros((6, 6, 6), bool), 2) == pytest.approx(0.03, rel=0.2)  # 1 std: 0.056


@pytest.mark.parametrize("fill", [mrf_l1, mrf_l2])
def test_fields_keep_what_is_visible_and_never_look_at_what_is_hidden(fill, clip):
    clip = clip[:8]
    for kind in ("region", "missing_frames", "salt_pepper"):
        mask = draw_mask(kind, 8, clip.shape[1:3], np.random.default_rng(3))
        filled = fill(clip, mask)
        assert filled.dtype == np.float32 and np.isfinite(filled).all()
        assert np.array_equal(filled[~mask], clip[~mask])
        assert np.abs(filled[mask] - clip[mask]).mean() < 40  # a wrong pixel is 40 away on average
        other = np.where(mask[..., None], 255 - clip, clip)
        assert np.array_equal(fill(other, mask), filled)
    flat = np.full_like(clip, 77)
    assert fill(flat, mask) == pytest.approx(flat, abs=0.01)
    with pytest.raises(InputError, match="every pixel"):
        fill(clip, np.ones_like(mask))
