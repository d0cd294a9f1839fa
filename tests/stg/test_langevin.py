"""Langevin dynamics against what is known of it: the stationary law, the formula, and whose noise goes where."""

import pytest
import torch

from langevin import langevin


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def videos(n, seed=0, size=(4, 5, 6)):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, *size, 3, generator=generator).permute(0, 4, 1, 2, 3)


def pull(x):
    """Score of N(0, 1)."""
    return -x


@pytest.mark.parametrize("sigma, delta, variance", [(1, 0.3, 1.0230), (1, 1.0, 4 / 3), (0.5, 0.6, 0.25 / 0.64)])
def test_stationary_variance_is_the_analytic_one(sigma, delta, variance):
    assert variance == pytest.approx(sigma**2 / (1 - delta**2 / (4 * sigma**2)), rel=1e-4)
    count = 400_000
    x = torch.zeros(2, count // 2)
    x = langevin(x, lambda x: -x / sigma**2, 200, delta, generators(1, 2))
    assert x.var().item() == pytest.approx(variance, rel=4 * (2 / count) ** 0.5)
    assert x.mean().item() == pytest.approx(0, abs=4 * (variance / count) ** 0.5)
    assert (x**4).mean().item() == pytest.approx(3 * variance**2, rel=4 * (96 / count) ** 0.5 / 3)  # a Gaussian's


def test_one_step_is_equation_8():
    x, delta = torch.tensor([[1.0, -2.0, 0.5], [3.0, 0.0, -1.0]]), 0.4
    Z = torch.stack([torch.randn(3, generator=g) for g in generators(5, 6)])
    stepped = langevin(x, lambda x: x**2, 1, delta, generators(5, 6))
    torch.testing.assert_close(stepped, x + delta**2 / 2 * x**2 + delta * Z)


def test_each_step_starts_from_the_one_before_and_has_noise_of_its_own():
    x, (g,) = torch.ones(1, 4), generators(7)
    expected = x
    for _ in range(3):
        expected = expected + 0.3**2 / 2 * -expected + 0.3 * torch.randn(1, 4, generator=g)
    torch.testing.assert_close(langevin(x, pull, 3, 0.3, generators(7)), expected)


def test_a_videos_noise_does_not_depend_on_how_the_batch_is_split():
    x = videos(4)
    whole = langevin(x, pull, 3, 0.3, generators(1, 2, 3, 4))
    parts = [langevin(x[:1], pull, 3, 0.3, generators(1)), langevin(x[1:], pull, 3, 0.3, generators(2, 3, 4))]
    assert torch.equal(whole, torch.cat(parts))
    order = [2, 0, 3, 1]
    assert torch.equal(whole[order], langevin(x[order], pull, 3, 0.3, generators(3, 1, 4, 2)))


def test_every_video_needs_a_generator_of_its_own():
    for count in (1, 3):
        with pytest.raises(ValueError):
            langevin(videos(2), pull, 1, 0.3, generators(*range(count)))


def test_many_videos_get_what_each_alone_would():
    x = videos(9)
    alone = [langevin(x[k : k + 1], pull, 2, 0.3, generators(k)) for k in range(9)]
    assert torch.equal(langevin(x, pull, 2, 0.3, generators(*range(9))), torch.cat(alone))


def test_videos_have_independent_noise():
    noise = langevin(torch.zeros(2, 100_000), torch.zeros_like, 1, 1.0, generators(1, 2))
    assert abs(torch.corrcoef(noise)[0, 1]) < 4 / 100_000**0.5


def test_the_same_generators_give_the_same_video_in_any_memory_order():
    x = videos(2)
    ours = langevin(x, pull, 2, 0.3, generators(1, 2))
    assert torch.equal(ours, langevin(x, pull, 2, 0.3, generators(1, 2)))
    assert ours.stride() == x.stride()
    flat = langevin(x.permute(0, 2, 3, 4, 1).reshape(2, -1), pull, 2, 0.3, generators(1, 2))
    assert torch.equal(ours.permute(0, 2, 3, 4, 1).reshape(2, -1), flat)


def test_the_start_is_left_as_it_is():
    x = videos(2)
    before = x.clone()
    langevin(x, pull, 2, 0.3, generators(1, 2), free=torch.ones(1, dtype=torch.bool))
    assert torch.equal(x, before)
    assert torch.equal(langevin(x, pull, 0, 0.3, generators(1, 2)), x)


def test_only_free_pixels_move():
    x = videos(3)
    free = torch.zeros(3, 1, 4, 5, 6, dtype=torch.bool)
    free[0, :, 1:3, 2, 1:4] = True
    free[1] = True
    moved = langevin(x, pull, 4, 0.3, generators(1, 2, 3), free)
    free = free.expand_as(x)
    assert torch.equal(moved[~free], x[~free])
    assert (moved[free] != x[free]).all()
    everything = langevin(x, pull, 4, 0.3, generators(1, 2, 3))
    assert torch.equal(moved[1], everything[1])  # and move as they would without a mask


def test_without_generators_there_is_no_noise():
    mode = videos(2, seed=3)
    assert torch.equal(langevin(mode, lambda x: mode - x, 10, 0.3, None), mode)  # a fixed point
    climbed = langevin(videos(2), lambda x: mode - x, 2, 1.0, None)
    torch.testing.assert_close(climbed, mode + (videos(2) - mode) / 4)  # each step halves the distance


def test_no_graph_is_built():
    w = torch.ones(1, requires_grad=True)
    x = langevin(torch.zeros(1, 3), lambda x: w * x, 2, 0.3, generators(1))
    assert not x.requires_grad
