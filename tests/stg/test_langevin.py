"""Langevin dynamics against what is known of it: the stationary law, the formula, and whose noise goes where."""

import pytest
import torch
from tools import generators, video

from langevin import langevin

SIZE = (4, 5, 6)


def pull(x):
    """Score of N(0, 1)."""
    return -x


@pytest.mark.parametrize("sigma, delta, variance", [(1, 0.3, 1.0230), (1, 1.0, 4 / 3), (0.5, 0.6, 0.25 / 0.64)])
def test_stationary_variance_is_the_analytic_one(sigma, delta, variance):
    assert variance == pytest.approx(sigma**2 / (1 - delta**2 / (4 * sigma**2)), rel=1e-4)
    count = 200_000
    x = variance**0.5 / 2 * torch.randn(2, count // 2, generator=torch.Generator().manual_seed(0))  # a quarter of it
    x = langevin(x, lambda x: -x / sigma**2, 100, delta, generators(2, 1))
    assert x.var().item() == pytest.approx(variance, rel=4 * (2 / count) ** 0.5)
    assert x.mean().item() == pytest.approx(0, abs=4 * (variance / count) ** 0.5)
    assert (x**4).mean().item() == pytest.approx(3 * variance**2, rel=4 * (96 / count) ** 0.5 / 3)  # a Gaussian's
    assert abs(torch.corrcoef(x)[0, 1]) < 4 / (count / 2) ** 0.5  # two videos are independent


def test_steps_are_equation_8_each_from_the_one_before_with_noise_of_its_own():
    x, delta, draws = torch.tensor([[1.0, -2.0, 0.5], [3.0, 0.0, -1.0]]), 0.4, generators(2, 5)
    expected = x
    for _ in range(3):
        Z = torch.stack([torch.randn(3, generator=g) for g in draws])
        expected = expected + delta**2 / 2 * torch.sin(expected) + delta * Z
    torch.testing.assert_close(langevin(x, torch.sin, 3, delta, generators(2, 5)), expected)


def test_a_videos_noise_does_not_depend_on_those_beside_it_nor_on_its_memory_order():
    x = video(9, SIZE)
    before, whole = x.clone(), langevin(x, pull, 3, 0.3, generators(9))
    assert torch.equal(x, before) and whole.stride() == x.stride() and not torch.equal(whole, x)
    alone = [langevin(x[k : k + 1], pull, 3, 0.3, generators(1, k)) for k in range(9)]
    assert torch.equal(whole, torch.cat(alone))
    assert torch.equal(whole.flip(0), langevin(x.flip(0), pull, 3, 0.3, generators(9)[::-1]))
    flat = langevin(x.permute(0, 2, 3, 4, 1).reshape(9, -1), pull, 3, 0.3, generators(9))
    assert torch.equal(whole.permute(0, 2, 3, 4, 1).reshape(9, -1), flat)
    for count in (1, 3):
        with pytest.raises(ValueError):
            langevin(x[:2], pull, 1, 0.3, generators(count))


def test_only_free_pixels_move():
    x = video(3, SIZE)
    before, free = x.clone(), torch.zeros(3, 1, *SIZE, dtype=torch.bool)
    free[0, :, 1:3, 2, 1:4] = True
    free[1] = True
    moved = langevin(x, pull, 4, 0.3, generators(3), free)
    assert torch.equal(x, before)
    free = free.expand_as(x)
    assert torch.equal(moved[~free], x[~free]) and (moved[free] != x[free]).all()
    assert torch.equal(moved[1], langevin(x, pull, 4, 0.3, generators(3))[1])  # as they would without a mask


def test_without_generators_there_is_no_noise_and_never_a_graph():
    x, mode = video(2, SIZE), video(2, SIZE, seed=3).requires_grad_()
    climbed = langevin(x, lambda x: mode - x, 2, 1.0, None)
    torch.testing.assert_close(climbed, mode + (x - mode) / 4)  # each step halves the distance
    assert not climbed.requires_grad
