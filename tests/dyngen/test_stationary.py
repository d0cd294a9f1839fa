"""-preset quality: the stationary transition, and F and G that start as a linear dynamical system of the clips."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from calls import call, frames_of, succeeds
from tools import assert_refused, assert_same_state, leaves

import main_dyn_G
from dyngen.generate import build_net, unit
from dyngen.learn import make_learner
from dyngen.nets import DynamicGenerator, Transition
from dyngen.settings import parse
from dyngen.start import start
from run.loop import step

pytestmark = pytest.mark.usefixtures("undrawn")
SMALL = "-preset quality -im_size 8 -num_frames 12 -truncated_backprop_length 5 -device cpu"


def matrices(transition):
    """A and B of s_t = A s_{t-1} + B xi_t."""
    _, xi_size, state_size = transition.inputs
    A, B = (transition(torch.eye(xi_size + state_size)[:, None, :xi_size], torch.eye(xi_size + state_size)[:, xi_size:],
                       torch.zeros(xi_size + state_size, 0))[:, 0].T.detach().split([xi_size, state_size], 1)[::-1])
    return A, B


def test_states_keep_unit_variance_whatever_the_weights():
    transition = Transition(4, 6, mode="stationary")
    for scale in (0.001, 1, 100):
        torch.nn.init.normal_(transition.layers[0].weight, std=scale)
        A, B = matrices(transition)
        torch.testing.assert_close(A @ A.T + B @ B.T, torch.eye(4), atol=1e-4, rtol=0)
    assert (A.abs().max() > 0.1) and not any(name.endswith("bias") for name, _ in transition.named_parameters())


@pytest.mark.parametrize("xi_size", [11, 14])
def test_the_start_makes_the_clip_of_its_principal_components(clip, xi_size):
    """All components of 12 frames, 11, make the clip exactly; fewer make what a projection leaves of it."""
    videos = unit(clip[None, :12, :8, :8])
    for d in (11, 3):
        net = DynamicGenerator(8, d, xi_size, mode="stationary")
        latents = start(net, videos)
        made, states = net(**latents, a=torch.zeros(1, 0), m=torch.zeros(1, 0))
        y = videos[0].transpose(0, 1).flatten(1).double().numpy()
        U, sizes, V = np.linalg.svd(y - y.mean(0), full_matrices=False)
        expected = y.mean(0) + U[:, :d] * sizes[:d] @ V[:d]
        np.testing.assert_allclose(made[0].detach().transpose(0, 1).flatten(1), expected, atol=2e-3)
        torch.testing.assert_close(states[0].T @ states[0] / 12, torch.eye(d), atol=1e-3, rtol=0)


def test_the_start_finds_the_dynamics_that_a_clip_was_made_with():
    """Two components that turn, and hardly any noise: A is their rotation, but for the half of its coupling."""
    t, angle = torch.arange(400), 0.3
    pictures = torch.linalg.qr(torch.randn(3 * 64, 2, generator=torch.Generator().manual_seed(0)))[0]
    turning = torch.stack([(angle * t).cos(), (angle * t).sin()], 1) @ pictures.T
    net = DynamicGenerator(8, 2, 2, mode="stationary")
    start(net, turning.view(1, 400, 3, 8, 8).transpose(1, 2))
    A, _ = matrices(net.transition)
    assert A.diag().tolist() == pytest.approx([np.cos(angle)] * 2, abs=0.01)
    assert A[0, 1].abs().item() == pytest.approx(np.sin(angle) / 2, abs=0.01) and A[0, 1] * A[1, 0] < 0


def learner_of(videos, hidden=None, more=""):
    args, _ = parse(f"{SMALL} {more}".split())
    torch.manual_seed(0)
    return make_learner(args, build_net(args, args.device), None, videos, hidden)


def test_learning_goes_on_from_the_start(clip):
    learner = learner_of(clip[None, :12, :8, :8])
    assert learner.net.transition.inputs == (0, 9, 9)  # three quarters of the frames
    errors = [step(learner, SimpleNamespace(log=lambda *_: None))["psnr"] for _ in range(8)]
    assert errors[0] > 25 and errors[-1] > errors[0]


def test_hidden_pixels_influence_nothing(clip):
    videos, hidden = clip[None, :12, :8, :8], np.zeros((1, 12, 8, 8), bool)
    hidden[:, ::2, 2:6, 1:5] = True
    other = np.where(hidden[..., None], 255 - videos, videos)
    a, b = (leaves(learner_of(v, hidden, "-task recovery").state()) for v in (videos, other))
    assert all(torch.equal(v, b[name]) for name, v in a.items() if isinstance(v, torch.Tensor))
    assert a["/latents/xi"].abs().max() > 0


def test_a_resumed_run_equals_an_uninterrupted_one(clip, write_clip, tmp_path):
    write_clip(tmp_path / "clips/waves/clip.mp4", clip.repeat(2, 1).repeat(2, 2)[:12])
    given = (SMALL, "-category waves -data_path", tmp_path / "clips", "-output_dir")
    for name, epochs in (("whole", 2), ("parts", 1), ("parts", 2)):
        succeeds(main_dyn_G, *given, tmp_path / name, "-num_epochs", epochs)
    assert_same_state(tmp_path / "whole/waves", tmp_path / "parts/waves")
    succeeds(main_dyn_G, *given, tmp_path / "whole", "-test")
    assert set(frames_of(tmp_path / "whole/waves/test/synthesized_sequence")) == {4 * 5}


@pytest.mark.parametrize("given, said", [
    ("-preset quality -task motion", "not for -task motion"),
    ("-preset quality -encoder", "-dynamic_mode stationary takes"),
    ("-dynamic_mode stationary -state_size 60", "-dynamic_mode stationary takes"),
    ("-dynamic_mode stationary -state_size 8 -z_size 7", "-dynamic_mode stationary takes"),
])
def test_what_does_not_fit_ends_in_one_line(given, said):
    assert_refused(call(main_dyn_G, given), said)
