"""The reference q against what is known of it: a Gaussian's law, the clip's colours, the derivative's transpose."""

import pytest
import torch
from tools import generators

from data import InputError
from field import gaussian
from field.colours import principal_colours
from field.gaussian import GaussianField, motion
from langevin import langevin
from reference import WhiteNoise, load_reference

SIZE = (12, 10, 14)


def ar1(n, r):
    """The correlation r^|i - j| of n moments, and its lower root."""
    lag = torch.arange(n)
    correlation = r ** (lag[:, None] - lag).abs().double()
    return correlation, torch.linalg.cholesky(correlation)


def gaussian_clips(count, size=SIZE, seed=0):
    """Clips of a Gaussian of separable correlation, whose std and mean differ from pixel to pixel, and what is true of
    them: correlation along each axis, std and mean (H, W), covariance of the colours."""
    z = torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    correlations, roots = zip(*(ar1(n, r) for n, r in zip(size, (0.7, 0.8, 0.6), strict=True)), strict=True)
    z = torch.einsum("at,bh,cw,nkthw->nkabc", *roots, z)
    mix = torch.tensor([[1.0, 0.3, 0.1], [0.8, -0.2, 0.2], [0.5, 0.2, -0.3]], dtype=torch.float64)
    h, w = (torch.linspace(0, 1, n, dtype=torch.float64) for n in size[1:])
    std, mean = (8 + 8 * w).expand(size[1:]), 100 + 40 * h[:, None].expand(size[1:])
    videos = mean + std * torch.einsum("ck,nkthw->ncthw", mix, z)
    return videos.float(), correlations, std, mean, mix @ mix.T


def draw(q, count):
    """Videos in grey levels from noise of q."""
    return (q.video(q.noise(generators(count, 100))) + q.mean).double()


def covariances(q, place):
    """Those of the field u at a place (t, h, w) with u everywhere, (T, H, W): what K K^T is, u being K y."""
    point = torch.zeros(1, 3, *q.size)
    point[0, 1, *place] = 1
    u = q.field(q.field_transposed(point))
    assert u[:, 0].abs().max() == u[:, 2].abs().max() == 0  # three independent fields
    return u[0, 1]


@pytest.fixture(scope="module")
def field():
    """A field of clips whose law is known, whose correlation is not altered and whose colours are not cut off."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("field.spectrum.POWER", 1.0)
        patch.setattr("field.colours.WITHIN", (0.0, 1.0))
        return GaussianField.fit(gaussian_clips(200)[0])


@pytest.fixture(scope="module")
def moving_field(moving):
    """A field of a clip of waves, and the clip."""
    videos = torch.from_numpy(moving(20, 12, 16)).permute(3, 0, 1, 2)[None].float()
    return GaussianField.fit(videos), videos


# ------------------------------------------------------------------------------------------------- the law at f = 0


def tapered(correlation, reach, box):
    """The correlation of moments 0 to n - 1, tapered to 0 at `reach`, where opposite ends of a box are neighbours."""
    lag = (torch.arange(len(correlation))[:, None] - torch.arange(len(correlation))).abs()
    lag = torch.minimum(lag, box - lag)
    return correlation[0][lag] * torch.where(lag < reach, 0.5 + 0.5 * torch.cos(torch.pi * lag / reach), 0)


def test_the_field_has_the_autocorrelation_of_the_clips(field):
    reaches = 12, 5, 7  # lags that are known: all in time, to half the side in space
    axes = [tapered(*each) for each in zip(gaussian_clips(1)[1], reaches, field.box, strict=True)]
    for place in ((0, 0, 0), (5, 4, 6), (11, 9, 13)):
        found = covariances(field, place).double()
        t, h, w = (each[k] for each, k in zip(axes, place, strict=True))
        assert found[place] == pytest.approx(1, abs=1e-5)  # unit noise gives one unit
        assert (found - t.view(-1, 1, 1) * h.view(-1, 1) * w).abs().max() < 0.05


def test_what_moves_downwards_in_the_clip_does_in_samples():
    texture = torch.randn(1, 1, 1, 24, 16, generator=torch.Generator().manual_seed(1))
    texture = 128 + 20 * (texture + texture.roll(1, 3) + texture.roll(1, 4))
    videos = torch.cat([texture.roll(t, 3) for t in range(24)], dim=2).expand(-1, 3, -1, -1, -1).contiguous()
    q = GaussianField.fit(videos)
    column = covariances(q, (12, 12, 8))
    assert column[13, 13, 8] > 0.75 and column[11, 11, 8] > 0.75 and column[13, 11, 8].abs() < 0.4


def test_samples_have_the_clips_mean_variance_and_colours(field):
    _, _, std, mean, colours = gaussian_clips(1)
    x = draw(field, 400)
    each = x.transpose(0, 1).flatten(1, 2)  # (3, samples, H, W)
    sigma = std * colours.diagonal().sqrt().view(3, 1, 1)
    off = (each.mean(1) - mean) / sigma  # samples, and the clips that the field knows, have errors of about 0.05
    assert off.square().mean().sqrt() < 0.1 and off.abs().max() < 0.3
    assert (each.std(1) / sigma - 1).abs().max() < 0.15
    assert ((each.std(1) / sigma).mean((1, 2)) - 1).abs().max() < 0.04
    unit = (x - mean) / std  # as if all pixels were alike
    flat = unit.transpose(0, 1).flatten(1)
    assert torch.allclose(flat @ flat.T / flat.shape[1], colours, atol=0.05)


def test_a_pixel_has_its_clips_colours_as_often_as_the_clip(monkeypatch):
    """Of flames, say: far from Gaussian, and on a curve in the space of colours."""
    z = gaussian_clips(30, seed=3)[0][:, :1] / 16
    z = (z - z.mean()) / z.std()
    a = torch.special.ndtr(z) ** 3
    videos = torch.cat([250 * a**0.5, 200 * a, 120 * a**2], dim=1)
    for stationary in (False, True):
        x = draw(GaussianField.fit(videos, stationary=stationary), 60).float()
        levels = torch.linspace(0.02, 0.98, 25)
        for c in range(3):
            ours, theirs = (torch.quantile(v[:, c].flatten()[::9], levels) for v in (x, videos))
            assert (ours - theirs).abs().max() < 0.04 * 250, (stationary, c)
        palette = torch.linspace(0, 1, 2000)
        palette = torch.stack([250 * palette**0.5, 200 * palette, 120 * palette**2], dim=1)
        off = torch.cdist(x.movedim(1, -1).reshape(-1, 3)[::97], palette).amin(1)
        assert off.mean() < 6  # grey levels; three axes of a Gaussian would be off by 20


def test_the_axes_of_neighbours_point_the_same_way():
    """Else the noise behind a curve would change sign from pixel to pixel, and look rougher than it is."""
    videos = gaussian_clips(20)[0]
    w = torch.linspace(0, 1, SIZE[2])
    tints = torch.stack([2 * w - 1, torch.full_like(w, 0.8), torch.full_like(w, 0.5)])  # red falls where green rises
    around = (videos - videos.mean((0, 2), keepdim=True))[:, :1] * tints[:, None, None]
    first = principal_colours(around, False)[:, 0]
    assert ((first[:, :, 1:] * first[:, :, :-1]).sum(0) > 0.9).all()
    assert ((first[:, 1:] * first[:, :-1]).sum(0) > 0.9).all()


# ---------------------------------------------------------------------------------------------- the gradient's way back


def test_the_way_back_of_a_function_is_its_gradient_at_the_noise(moving_field):
    field = GaussianField(**moving_field[0].state() | {"scale": 0.9})
    white = WhiteNoise(SIZE, mean=torch.tensor(100.0), sigma=2.0)
    for q in (field, field.resized((15, 12, 16), loop=True), white):
        y, seen = q.noise(generators(2)), []
        found = q.pull(y, lambda x, seen=seen: seen.append(x.clone()) or 0.2 * x)
        assert torch.equal(seen[0], q.video(y)) and not found.requires_grad
        y.requires_grad_()
        [expected] = torch.autograd.grad(0.1 * q.video(y).square().sum(), y)
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max())


@pytest.mark.parametrize("delta", [0.5, 1.0])
def test_a_stationary_chain_stays_stationary(delta, moving_field):
    q = moving_field[0]
    variance = 1 / (1 - delta**2 / 4)
    y = variance**0.5 * q.noise(generators(4))
    before = q.video(y)
    y = langevin(y, lambda y: q.pull(y, torch.zeros_like) - y / q.sigma**2, 40, delta, generators(4, 50))
    assert y.var().item() == pytest.approx(variance, rel=4 * (2 / y.numel()) ** 0.5)
    assert abs(y.mean()) < 4 * (variance / y.numel()) ** 0.5
    after = q.video(y)
    assert motion(after) == pytest.approx(motion(before), rel=0.15)
    assert (after - before).abs().mean() > 0.5 * (after[:2] - after[2:]).abs().mean()  # it has gone elsewhere


# ---------------------------------------------------------------------------------------------------- lengths and loops


@pytest.fixture(scope="module")
def texture(clip):
    """A field of the smooth texture of 70 frames."""
    return GaussianField.fit(torch.from_numpy(clip).permute(3, 0, 1, 2)[None].float())


def steps(x):
    """How much successive frames differ, (T - 1,), and the first from the last."""
    return (x[:, :, 1:] - x[:, :, :-1]).abs().mean((0, 1, 3, 4)), (x[:, :, 0] - x[:, :, -1]).abs().mean()


def test_a_longer_video_has_the_same_local_statistics(texture):
    long = texture.resized((210, 20, 24))
    short, x = draw(texture, 12), draw(long, 4)
    assert x.shape == (4, 3, 210, 20, 24)
    for part in x.split(70, dim=2):
        assert steps(part)[0].mean().item() == pytest.approx(steps(short)[0].mean().item(), rel=0.05)
        assert part.std(2).mean().item() == pytest.approx(short.std(2).mean().item(), rel=0.05)
        assert (part.mean((0, 2)) - short.mean((0, 2))).abs().mean() < 0.25 * short.std((0, 2)).mean()
    apart, (a, b) = (short[::2] - short[1::2]).abs().mean().item(), (x[:, :, k : k + 70] for k in (0, 140))
    assert (a - b).abs().mean().item() == pytest.approx(apart, rel=0.15)  # nothing comes again


def test_a_loop_closes(texture):
    around, line = draw(texture.resized((36, 20, 24), loop=True), 8), draw(texture.resized((36, 20, 24)), 8)
    inside, seam = steps(around)
    assert inside.min() * 0.9 < seam < inside.max() * 1.1
    assert inside.mean().item() == pytest.approx(steps(line)[0].mean().item(), rel=0.05)
    assert steps(line)[1] > 2 * inside.mean()
    loop = texture.resized((36, 20, 24), loop=True)
    first, later = (covariances(loop, (t, 7, 9)) for t in (0, 20))
    assert torch.allclose(first.roll(20, 0), later, atol=1e-5)  # all moments are alike
    assert first[35, 7, 9] == pytest.approx(first[1, 7, 9].item(), abs=1e-5) and first[1, 7, 9] > 0.5


def test_a_stationary_field_serves_frames_of_any_size(clip):
    q = GaussianField.fit(torch.from_numpy(clip).permute(3, 0, 1, 2)[None].float(), stationary=True)
    x, small = draw(q.resized((30, 32, 50)), 4), draw(q, 4)
    assert x.shape == (4, 3, 30, 32, 50)
    assert x.std().item() == pytest.approx(small.std().item(), rel=0.1)
    assert x.mean().item() == pytest.approx(small.mean().item(), abs=0.1 * x.std().item())
    halves = [part.std() for part in x.split(25, dim=4)]
    assert halves[0].item() == pytest.approx(halves[1].item(), rel=0.15)


# ---------------------------------------------------------------------------------------------- what a checkpoint keeps


@pytest.mark.parametrize("kind", ["field", "white"])
def test_a_saved_reference_gives_the_same_videos_bit_for_bit(kind, moving_field, tmp_path):
    q = GaussianField(**moving_field[0].state())
    if kind == "field":
        q.balance(motion(1.1 * moving_field[1], q.several))  # sigma has moved
        assert gaussian.LEAST < q.scale < 1
    else:
        q = WhiteNoise((20, 12, 16), mean=torch.tensor(77.7), sigma=0.8)
    torch.save({"reference": q.state(), "settings": {}}, tmp_path / "state.pt")
    again = load_reference(torch.load(tmp_path / "state.pt", weights_only=True))
    y = q.noise(generators(2, 7))
    assert torch.equal(y, again.noise(generators(2, 7)))
    assert torch.equal(q.video(y) + q.mean, again.video(y) + again.mean) and q.sigma == again.sigma
    assert type(again) is type(q)


def test_an_earlier_checkpoint_holds_white_noise():
    q = load_reference({"mean": torch.tensor(90.0), "settings": {"refsig": 0.7, "num_frames": 5, "im_size": [8, 9]}})
    assert isinstance(q, WhiteNoise) and (q.size, q.mean, q.sigma) == ((5, 8, 9), 90, 0.7)


@pytest.mark.parametrize("times, scale, factor", [
    (1.05, 1 / 1.05, 1), (0.5, 1, 1), (0, 1, 1), (1 / 0.75, 0.75, (0.75**2 - 0.7**2) / 0.2), (3, 0.7, 0),
])
def test_balance_brings_sigma_towards_equal_motion_and_stops_learning_at_the_least(
    times, scale, factor, moving_field, monkeypatch
):
    for name, value in {"LEAST": 0.7, "SHARE": 0.49, "BAND": 0.2}.items():
        monkeypatch.setattr(gaussian, name, value)
    q, videos = GaussianField(**moving_field[0].state()), moving_field[1]
    place = q.scale
    assert q.balance(motion(times * videos, q.several)) == pytest.approx(factor, abs=1e-4)
    assert q.scale is place and q.scale.item() == pytest.approx(scale, rel=1e-5)  # where a CUDA graph looks for it


# ------------------------------------------------------------------------------------------------------- unusual clips


def test_clips_that_stand_still_have_no_field():
    several = 10.0 * torch.arange(3).view(-1, 1, 1, 1, 1).expand(3, 3, 9, 8, 9)
    for videos in (torch.full((1, 3, 9, 8, 9), 77.0), several):
        for part in (videos, videos[:, :, :1]):
            with pytest.raises(InputError, match="not move"):
                GaussianField.fit(part)


def test_what_is_grey_or_stands_still_in_the_clip_does_so_in_samples(moving_field):
    grey = draw(GaussianField.fit(moving_field[1].mean(1, keepdim=True).expand(-1, 3, -1, -1, -1).contiguous()), 3)
    assert (grey - grey.mean(1, keepdim=True)).abs().max() < 0.02 and grey.std(2).mean() > 10
    videos = moving_field[1].clone()
    videos[..., :5, :] = 40
    still = draw(GaussianField.fit(videos), 3)
    assert (still[..., :4, :] - 40).abs().max() < 1.5 and still[..., 6:, :].std(2).mean() > 10
    speck = torch.full((1, 3, 10, 8, 8), 50.0)
    speck[0, 0, ::2, 3, 4] = 51  # flickers
    assert (draw(GaussianField.fit(speck), 2) - 50).abs().max() < 5


@pytest.mark.parametrize("stationary", [False, True])
def test_two_frames_are_enough(stationary, moving_field):
    videos = moving_field[1][:, :, :8:7]
    q = GaussianField.fit(videos, stationary=stationary)
    x = draw(q, 40)
    assert x.shape == (40, 3, 2, 12, 16) and torch.isfinite(x).all()
    assert x.mean().item() == pytest.approx(videos.mean().item(), abs=0.2 * videos.std().item())
    assert torch.isfinite(draw(q.resized((9, 12, 16)), 1)).all()
