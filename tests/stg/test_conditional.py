"""A Gaussian field given visible pixels, against dense linear algebra."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from field import conditional
from field.conditional import ConditionalField, filtered, spectrum_of
from field.motion import move_between
from judge.fillings import interpolate_linear

SIZE = (3, 4, 5)


@pytest.fixture(params=["stationary", "moved"])
def field(monkeypatch, request):
    """A field on a box of the videos' size, its covariance K (3, 60, 60), which of its pixels are hidden; also one
    of whose pixels motion tells something."""
    monkeypatch.setattr(conditional, "box_of", lambda size: tuple(size))
    monkeypatch.setattr(conditional, "STEPS", 300)
    monkeypatch.setattr(conditional, "ROUGH", 1e-12)
    monkeypatch.setattr(ConditionalField.smoothed, "__defaults__", (1e-12,))
    torch.manual_seed(0)
    power = torch.fft.rfftn(torch.randn(3, *SIZE, dtype=torch.float64), dim=(1, 2, 3)).abs().square() + 0.1
    hidden = torch.rand(1, *SIZE) < 0.4
    channels = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    mean = torch.randn(1, 3, *SIZE[1:], dtype=torch.float64)
    trust = hidden * torch.rand(1, *SIZE, dtype=torch.float64).sub(0.5).relu() if request.param == "moved" else None
    q = ConditionalField(hidden.numpy(), power=power, channels=channels, mean=mean, trust=trust,
                         scale=1 + torch.rand(1, 3, *SIZE[1:], dtype=torch.float64))
    q.free = [free.double() for free in q.free]
    return q, matrix(lambda x: filtered(x, 1 / q.precision)), hidden.flatten()


def conditional_law(q, K, h, k, v):
    """Mean and covariance of the pixels h of channel k, v (60,), given the others and what motion tells: v there."""
    K, W = K[k], torch.diag((q.trust[0] * q.scale[0, k].square()).flatten()[h]).double()
    weights = torch.linalg.solve(K[~h][:, ~h], K[~h][:, h]).T
    P = torch.linalg.inv(K[h][:, h] - weights @ K[~h][:, h])
    S = torch.linalg.inv(P + W)
    return S @ (P @ weights @ v[~h] + W @ v[h]), S


def matrix(linear):
    """The matrices (3, 60, 60), one a channel, of a linear map of fields."""
    impulses = torch.eye(60, dtype=torch.float64).view(60, 1, *SIZE).expand(-1, 3, *SIZE)
    return torch.stack([linear(x) for x in impulses]).flatten(2).permute(1, 2, 0)


def test_the_expectation_is_the_conditional_mean(field):
    q, K, h = field
    v = torch.randn(3, *SIZE, dtype=torch.float64)
    found = q.sample(0, v, None).flatten(1)
    for k in range(3):
        assert torch.allclose(found[k, h], conditional_law(q, K, h, k, v[k].flatten())[0], atol=1e-6)
        assert torch.equal(found[k, ~h], v[k].flatten()[~h])


def test_smoothing_is_the_conditional_covariance_and_so_is_that_of_samples(field):
    q, K, h = field
    smooth = matrix(lambda g: q.smoothed(0, g))
    draws = matrix(lambda z: q.smoothed(0, filtered(z, q.precision.sqrt())))  # of white noise z, and of another
    others = matrix(lambda z: q.smoothed(0, q.observed[0].sqrt() * z))
    spread = matrix(lambda g: q.spread(0, g))
    for k in range(3):
        _, S = conditional_law(q, K, h, k, torch.zeros(60, dtype=torch.float64))
        assert torch.allclose(smooth[k][h][:, h], S, atol=1e-6)
        assert torch.allclose((draws[k] @ draws[k].T + others[k] @ others[k].T)[h][:, h], S, atol=1e-6)
        assert not smooth[k][~h].any() and not draws[k][~h].any()
        D = torch.diag(q.scale[0, k].expand(SIZE).flatten())
        assert torch.allclose(spread[k][h][:, h], D[h][:, h] @ S @ D[h][:, h], atol=1e-5)


@pytest.mark.parametrize("kind, most", [("single pixels", 6), ("a hole", 12)])
def test_few_steps_are_close_wherever_visible_pixels_lie(kind, most):
    """K alone takes 30 steps and 20; the precision that single pixels need, in the hole, stops too early."""
    size, steps = (12, 20, 24), []
    hidden = np.random.default_rng(0).random((1, *size)) < 0.5
    if kind == "a hole":
        hidden[:] = False
        hidden[:, 2:-2, 4:-4, 4:-4] = True
    waves = torch.meshgrid(*(torch.fft.fftfreq(n) for n in conditional.box_of(size)), indexing="ij")
    power = 1e-4 + (1 + sum((20 * w).square() for w in waves)) ** -3  # as steep as a clip's
    q = ConditionalField(hidden, power=power[..., : power.shape[2] // 2 + 1].expand(3, -1, -1, -1),
                         channels=torch.eye(3), mean=torch.zeros(1, 3, *size[1:]), scale=torch.ones(1, 3, *size[1:]),
                         bar=SimpleNamespace(update=lambda: steps.append(1)))
    noise = q.noise(0, torch.Generator().manual_seed(0))
    rough = q.video(0, q.smoothed(0, noise, conditional.ROUGH))
    assert len(steps) <= most
    exact = q.video(0, q.smoothed(0, noise, 1e-6))
    assert (rough - exact).norm() < 0.06 * exact.norm()


def test_a_move_is_exact_for_any_step_where_f_is_flat_and_drifts_along_its_gradient(field):
    """Then mean m and covariance sigma^2 D S D stay as they are, since 1 - rho^2 of it is drawn anew."""
    q, _, _ = field
    v, g, m = torch.randn(3, 3, *SIZE, dtype=torch.float64)
    q.expected = [m]
    for rho in (0.0, 0.6):
        moved = q.move(0, v, g, 0.8, rho, torch.Generator().manual_seed(1))
        drawn = q.draw(0, torch.Generator().manual_seed(1)) - m
        expected = m + rho * (v - m) + (1 - rho) * 0.64 * q.spread(0, g) + 0.8 * (1 - rho**2) ** 0.5 * drawn
        assert torch.allclose(moved, expected, atol=1e-4)


def test_a_video_and_its_gradient_on_the_way_back(field):
    q, _, _ = field
    v, g = torch.randn(2, 3, *SIZE, dtype=torch.float64)
    still = q.video(0, torch.zeros_like(v))
    assert ((q.video(0, v) - still) * g).sum().item() == pytest.approx((v * q.pull(0, g)).sum().item())


def test_a_power_spectrum_is_smooth_and_adds_up_to_the_variance():
    torch.manual_seed(0)
    x = torch.randn(3, 20, 24, 30) * torch.tensor([1.0, 2, 5]).view(3, 1, 1, 1)
    variance, power = x.square().mean((1, 2, 3)), spectrum_of([x])
    impulse = torch.zeros(3, 20, 24, 30)
    impulse[:, 0, 0, 0] = 1
    expected = variance * (1 + conditional.FLOOR) + conditional.ROUNDING
    assert torch.allclose(filtered(impulse, power[..., None])[:, 0, 0, 0], expected, rtol=1e-4)
    spread = power.std((1, 2, 3)) / power.mean((1, 2, 3))
    assert (spread < 0.3).all()  # 1 for the periodogram of white noise


def test_what_stands_still_varies_less_in_samples_by_visible_pixels_alone():
    fields = torch.from_numpy(np.random.default_rng(0).normal(0, 5, (1, 3, 30, 20, 24)))
    fields[..., 12:] /= 10
    hidden = torch.from_numpy(np.random.default_rng(1).random((1, 30, 20, 24)) < 0.5)
    D = conditional.local_scale(fields, hidden)
    assert torch.equal(D, conditional.local_scale(torch.where(hidden[:, None], 99.0, fields), hidden))
    assert D[..., 15:].square().mean().item() == pytest.approx(0.1 * D[..., :9].square().mean().item(), rel=0.05)
    assert D.pow(4).mean().item() == pytest.approx(1, rel=0.05)


def test_a_frame_between_two_lies_half_way_along_the_motion():
    """A wave of 18 pixels moves by six from one visible frame to the next: interpolation in time flattens it."""
    y, x = np.mgrid[:32, :40]
    waves = [np.sin(2 * np.pi * (x - 3 * t) / 18) for t in range(9)]
    frames = [127 + 60 * wave + 40 * np.sin(y / 3) for wave in waves]
    video = np.repeat(np.stack(frames)[..., None], 3, 3).round().astype(np.uint8)
    hidden = np.zeros((9, 32, 40), bool)
    hidden[1::2] = True
    filled = interpolate_linear(np.where(hidden[..., None], 0, video), hidden)
    moved, trust = move_between(filled, hidden)
    inside = np.s_[1::2, 6:-6, 6:-6]
    assert np.abs(filled - video)[inside].mean() > 15 and np.abs(moved - video)[inside].mean() < 3
    assert (trust[1::2] > 0).all() and not trust[::2].any() and np.array_equal(moved[::2], video[::2])
    hidden[2] = True  # too far apart
    trust = move_between(filled, hidden)[1]
    assert not trust[:4].any() and (trust[5] > 0).all()
