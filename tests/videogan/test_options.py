"""What VideoGAN can do beyond the released code: a moving average, the R1 penalty, spectral norm."""

import numpy as np
import pytest
import torch
from calls import narrow
from tools import leaves
from torch import nn

from run.folder import snapshot
from videogan.clips import Windows
from videogan.generate import load_generator
from videogan.learn import build_nets, discriminator_loss, make_learner
from videogan.nets import FAKE, REAL, Discriminator
from videogan.settings import parse


@pytest.fixture(autouse=True)
def small():
    with narrow():
        yield


class Quadratic(nn.Module):
    """A discriminator whose log-odds of "real" are (w x)^2."""

    def __init__(self, w):
        super().__init__()
        self.w = nn.Parameter(w)

    def forward(self, video):
        half = (video.flatten(1) @ self.w).square() / 2
        return torch.stack([half if k == REAL else -half for k in sorted((FAKE, REAL))], 1)


def test_r1_is_the_squared_gradient_of_the_log_odds_at_real_videos():
    w, x = torch.randn(24).double(), torch.randn(3, 3, 2, 2, 2).double()
    D = Quadratic(w.clone())
    total, _, _, entropy, penalty = discriminator_loss(D, x, -x, r1=3)
    wx = x.flatten(1) @ w
    assert torch.allclose(penalty, (4 * wx.square() * w.square().sum()).mean())  # the gradient is 2 (w x) w
    assert torch.allclose(total, entropy + 1.5 * penalty)
    g, = torch.autograd.grad(penalty, D.w)
    expected = 8 * wx[:, None] * (w.square().sum() * x.flatten(1) + wx[:, None] * w)
    assert torch.allclose(g, expected.mean(0))
    assert discriminator_loss(D, x, -x)[4] == 0


def test_spectral_norm_leaves_no_singular_value_above_1():
    torch.manual_seed(0)
    D, video = Discriminator(spectral=True), torch.randn(2, 3, 32, 64, 64)
    for _ in range(8):  # each of which is a step of the power iteration
        D(video)
    for layer in [block[0] for block in D.features] + [D.classify]:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.02)
    assert sum(p.numel() for p in D.parameters()) == sum(p.numel() for p in Discriminator().parameters())


def make(moving, state=None, flags="-average 0.9 -r1 2 -spectral_norm", seed=0):
    """A Learner from a checkpoint's state, or one whose nets depend on the seed."""
    torch.manual_seed(seed)
    args, _ = parse(f"-device cpu -batch_size 2 -workers 0 {flags}".split())
    train = Windows([moving(40, 64, 64)], [(0, 0), (0, 4), (0, 8)])
    nets = build_nets(args.streams, args.conditional, args.spectral_norm, args.device)
    return make_learner(args, nets, state, train, np.empty((0, 32, 64, 64, 3)))


def iterate(learner, count):
    """So many iterations; yields the weights of the generator after each."""
    for _ in range(count):
        learner.learn()
        learner.commit()
        yield snapshot(learner.G.state_dict())


def test_samples_come_from_the_average_of_the_generator(moving):
    learner = make(moving, flags="-average 0.5")
    a, b, c = iterate(learner, 3)
    mean = learner.sampler.state_dict()
    for name in ("trunk.0.0.weight", "background.4.0.bias", "trunk.1.1.running_var"):
        expected = (a[name] + b[name]) / 4 + c[name] / 2  # of the first two, their mean
        assert torch.allclose(mean[name], expected, rtol=1e-5) and not torch.equal(mean[name], c[name])
    assert mean["trunk.1.1.num_batches_tracked"] == 3


def test_resuming_with_every_option_changes_nothing(tmp_path, moving):
    whole, part = make(moving), make(moving)
    assert len([*iterate(whole, 3), *iterate(part, 1)]) == 4
    torch.save(part.state(), tmp_path / "latest.pt")
    resumed = make(moving, torch.load(tmp_path / "latest.pt"), seed=1)
    assert len([*iterate(resumed, 2)]) == 2
    expected, found = leaves(whole.state()), leaves(resumed.state())
    assert expected.keys() == found.keys() and any("original" in name for name in expected)
    for name, value in expected.items():
        assert torch.equal(value, found[name]) if isinstance(value, torch.Tensor) else value == found[name], name
    assert resumed.metrics()["r1_penalty"] > 0

    torch.save(resumed.state(), tmp_path / "latest.pt")
    G, _ = load_generator(tmp_path / "latest.pt", torch.device("cpu"))
    for name, value in G.state_dict().items():
        assert torch.equal(value, found[f"/average/{name}"])
    assert not torch.equal(found["/average/trunk.0.0.weight"], found["/G/trunk.0.0.weight"])
