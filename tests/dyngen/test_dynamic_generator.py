"""The dynamic generator: golden numbers, gradients against differences, exact resume, and whole runs of the program."""

import ast
import csv
import itertools
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import data
import dyngen.learn
import langevin
import main_dyn_G
import utils
from dyngen.generate import build_net, grey, new_videos, replayed_videos
from dyngen.learn import pack, pictures, released_mask, unpack
from dyngen.nets import IMAGE_SIZES, DynamicGenerator, Generator, ShiftNorm, Transition, by_columns
from dyngen.settings import parse
from run.flags import RunError
from run.folder import load_checkpoint, snapshot
from run.loop import step

pytestmark = pytest.mark.usefixtures("undrawn")
TINY = {"im_size": 8, "state_size": 6, "z_size": 5, "num_frames": 7, "truncated_backprop_length": 3, "sample_steps": 3,
        "seed": 3}


def learn_epoch(learner):
    """One epoch, whole or not at all. Returns its metrics."""
    return step(learner, SimpleNamespace(log=lambda epoch, metrics: None))


def flags(**settings):
    """Settings as a command line."""
    pairs = ([f"-{name}"] if value is True else [f"-{name}", f"{value}"] for name, value in settings.items())
    return [text for pair in pairs for text in pair]


def net_and_inputs(golden):
    """The net and inputs whose numbers a golden file has, as drawn from its seed, and the parameters in its order."""
    names = ("seed", "B", "T", "image_size", "state_size", "z_size", "content_size")
    seed, b, t, side, state_size, z_size, content_size = (golden[name].item() for name in names)
    rng = np.random.RandomState(seed)

    def draw(*shape, scale=1.0):
        return torch.from_numpy((rng.standard_normal(shape) * scale).astype(np.float32)).double()

    net = DynamicGenerator(side, state_size, z_size, content_size, mode=golden["dynamic"].item()).double()
    parameters = [p for layer in net.transition.layers for p in (layer.weight, layer.bias)]
    for layer, norm in itertools.zip_longest(net.generator.layers, net.generator.norms):
        parameters += [layer.weight, layer.bias, *(norm.parameters() if norm else ())]
    with torch.no_grad():
        for p, shape in zip(parameters, map(ast.literal_eval, golden["var_shapes"].tolist()), strict=True):
            if p.ndim == 4:  # [kh, kw, c_out, c_in] there, (c_in, c_out, kh, kw) here
                p.copy_(draw(*shape, scale=np.sqrt(2 / (shape[0] * shape[1] * shape[3] / 4))).permute(3, 2, 0, 1))
            elif p.ndim == 2:
                p.copy_(draw(*shape, scale=1 / np.sqrt(shape[0])).T)
            else:
                p.copy_(draw(*shape, scale=0.1).flatten())
    inputs = [draw(b, t, z_size), draw(b, state_size), draw(b, content_size)]
    observed = torch.from_numpy(rng.uniform(-1, 1, (b, t, side, side, 3)).astype(np.float32)).double()
    return net, parameters, [u.requires_grad_() for u in inputs], observed


def distance(ours, theirs):
    """Largest difference, relative to the largest entry."""
    ours = ours.detach().numpy()
    return np.abs(ours - theirs).max(initial=0) / max(np.abs(theirs).max(initial=0), 1e-30)


# ------------------------------------------------------------------------------------------------------------- nets


@pytest.mark.parametrize("name, tolerance", [("64_nonlinear", 1e-4), ("64_linear", 1e-4), ("64_motion", 1e-4),
                                             ("128", 1e-4), ("150", 1e-3)])
def test_frames_states_and_gradients_are_those_of_the_released_nets(reference, name, tolerance):
    golden = reference(f"dyngen_{name}.npz")
    net, parameters, (xi, s, a), observed = net_and_inputs(golden)
    x, states = net(xi, s, a, xi.new_zeros(len(xi), 0))
    frames = x.permute(0, 2, 3, 4, 1)
    loss = 0.5 * (observed - frames).square().mean((0, 1)).sum()
    loss.backward()

    assert distance(frames.reshape(-1)[golden["img_idx"]], golden["img_val"]) < 1e-4
    assert distance(states, golden["states"][..., a.shape[1] :]) < 1e-4  # content comes first there
    assert distance(states[:, -1], golden["next_state"]) < 1e-4
    assert loss.item() == pytest.approx(golden["loss_sum"].item(), rel=1e-5)
    for u, key in ((xi, "grad_z"), (s, "grad_s0"), (a, "grad_content")):
        assert distance(u.grad, golden[key]) < tolerance, key
    for p, variable, norm in zip(parameters, golden["var_names"].tolist(), golden["param_grad_norms"], strict=True):
        before_norm = "biases" in variable and p is not parameters[-1]  # whose gradient is rounding noise
        assert before_norm or p.grad.norm().item() == pytest.approx(norm, rel=tolerance), variable


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_parameter_counts():
    assert count(Transition(100, 100)) == 6540
    assert count(Transition(3, 100)) == 2563
    assert count(Transition(100, 100, mode="linear")) == 20_100
    assert count(Generator(100, 64)) == 7_772_035
    assert count(Generator(103, 64)) == 7_796_611
    assert count(Generator(180, 64)) == 8_427_395
    assert count(DynamicGenerator(64, 100, 100)) == 7_778_575
    assert count(DynamicGenerator(128, 100, 100)) == 11_973_903
    assert count(DynamicGenerator(150, 100, 100)) == 7_850_575


@pytest.mark.parametrize("side", [side for side in IMAGE_SIZES if side < 256])
def test_every_generator_makes_frames_of_its_size(side):
    net = DynamicGenerator(side, 4, 3, content_size=2)
    x, states = net(torch.randn(2, 3, 3), torch.randn(2, 4), torch.randn(2, 2), torch.randn(2, 0))
    assert x.shape == (2, 3, 3, side, side) and states.shape == (2, 3, 4)
    assert 0 < x.abs().max() < 1


def test_the_start_of_learning():
    torch.manual_seed(0)
    net = DynamicGenerator(64, 100, 100)
    stds = [layer.weight.std().item() for layer in net.transition.layers]
    assert stds == pytest.approx([0.1, 0.1 ** 0.5, 0.001], rel=0.1)  # hidden ReLU layers keep their units alive
    assert net.generator.layers[1].weight.std().item() == pytest.approx(0.005, rel=0.01)
    assert all(not layer.bias.any() for layer in (*net.transition.layers, *net.generator.layers))


def scatter(x, weight, stride):
    """A transposed convolution in full, straight from its definition: every input pixel adds its kernel."""
    (height, width), (c_out, kernel) = x.shape[1:], weight.shape[1:3]
    out = np.zeros((c_out, (height - 1) * stride + kernel, (width - 1) * stride + kernel))
    for i, j, u, v in itertools.product(range(height), range(width), range(kernel), range(kernel)):
        out[:, i * stride + u, j * stride + v] += x[:, i, j] @ weight[:, :, u, v]
    return out


def test_padding_and_cropping_of_transposed_convolutions():
    """Stride 2 loses a border of one on every side, stride 3 the last row and column only, the last layer nothing."""
    generator, normed, code = Generator(2, 150), [], torch.randn(1, 2)
    for norm in generator.norms:
        norm.register_forward_hook(lambda norm, inputs, output: normed.append((inputs[0][0], output[0].clone())))
    with torch.no_grad():
        frame = generator(code)
    below = code[0, :, None, None]
    for layer, (map_, output), side in zip(generator.layers, normed, (2, 4, 8, 16, 48, 144), strict=False):
        full = scatter(below.numpy(), layer.weight.detach().numpy()[:, :2], layer.stride[0])
        inside = full[:, 1:-1, 1:-1] if layer.stride == (2, 2) else full[:, :-1, :-1]
        assert inside.shape == (2, side, side)
        np.testing.assert_allclose(map_[:2], inside, atol=1e-6)
        below = output.relu()
    assert frame.shape == (1, 3, 150, 150)


def test_columns_side_by_side_are_a_transposed_convolution():
    layer, x = torch.nn.ConvTranspose2d(5, 3, (7, 4)), torch.randn(2, 5, 6, 9)
    torch.testing.assert_close(by_columns(x, layer), layer(x))


def test_batch_norm_shifts_and_does_not_scale():
    norm = ShiftNorm(3).eval()  # the batch's own statistics in generation too
    assert [p.shape for p in norm.parameters()] == [(3,)]
    norm.beta.data = torch.tensor([1.0, 0, -2])
    x = torch.randn(5, 3, 4, 4) * 0.05 + 7
    centred = x - x.mean((0, 2, 3), keepdim=True)
    expected = centred / (centred.square().mean((0, 2, 3), keepdim=True) + 1e-3).sqrt() + norm.beta[:, None, None]
    torch.testing.assert_close(norm(x), expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("mode", ["nonlinear", "linear"])
def test_states_in_chunks_are_those_of_one_long_run(mode):
    net = Transition(6, 5, motion_size=2, mode=mode)
    for layer in net.layers:
        torch.nn.init.normal_(layer.weight, std=0.5)
    xi, s, m = torch.randn(3, 11, 5), torch.randn(3, 6), torch.randn(3, 2)
    whole, parts = net(xi, s, m), []
    for part in xi.split(4, dim=1):
        parts.append(net(part, s, m))
        s = parts[-1][:, -1]
    torch.testing.assert_close(torch.cat(parts, 1), whole)
    assert (net(xi, whole[:, 0], m) - whole).abs().max() > 0.01


def test_transition_is_a_residual_of_motion_type_innovation_and_state():
    net = Transition(4, 3, motion_size=2)
    xi, s, m = torch.randn(1, 1, 3), torch.randn(1, 4), torch.randn(1, 2)
    for layer in net.layers:
        torch.nn.init.normal_(layer.weight, std=0.5)
        torch.nn.init.normal_(layer.bias, std=0.5)
    r = torch.cat([m, xi[:, 0], s], dim=1)
    for k, layer in enumerate(net.layers):
        r = layer(r if k == 0 else r.clamp(min=0))
    torch.testing.assert_close(net(xi, s, m)[:, 0], torch.tanh(s + r))


def test_sections_have_their_own_batch_statistics_and_share_the_state():
    net = DynamicGenerator(8, 4, 3)
    for layer in net.transition.layers:
        torch.nn.init.normal_(layer.weight, std=0.5)
    xi, s, none = torch.randn(2, 6, 3), torch.randn(2, 4), torch.zeros(2, 0)
    first, states = net(xi[:, :4], s, none, none)
    last, _ = net(xi[:, 4:], states[:, -1], none, none)
    made = net.generate(xi, s, none, none, chunk=4)
    torch.testing.assert_close(made, torch.cat([first, last], dim=2))
    assert (made - net(xi, s, none, none)[0]).abs().max() > 1e-4


# -------------------------------------------------------------------------------------------------------- learning


@pytest.fixture
def make_learner(moving):
    """make_learner(clips, hidden, **settings) -> a Learner of small waves, whose F moves the state visibly."""

    def make(clips=2, hidden=None, videos=None, **settings):
        args, _ = parse(flags(**{**TINY, "batch_size": 2, **settings, "device": "cpu"}))
        torch.manual_seed(args.seed)
        net = build_net(args, args.device)
        for layer in net.transition.layers:
            torch.nn.init.normal_(layer.weight, std=0.3)
        if videos is None:
            videos = np.stack([moving(args.num_frames, args.im_size, args.im_size, phase=k) for k in range(clips)])
        return dyngen.learn.make_learner(args, net, None, videos, hidden)

    return make


def hidden_block(clips=2, frames=7, side=8):
    """A mask of one block in every other frame, bool (N, T, H, W)."""
    hidden = np.zeros((clips, frames, side, side), dtype=bool)
    hidden[:, ::2, 2:6, 1:5] = True
    return hidden


def doubled(learner):
    """The learner in float64, and one chunk's unknowns, I and visible."""
    learner.net.double()
    learner.I = learner.I.double()
    unknown = {name: u[:2, :3].double() if name == "xi" else u[:2].double() for name, u in learner.latents.items()}
    visible = None if learner.visible is None else learner.visible[:2, :, :3].double()
    return pack(unknown), unknown, learner.I[:2, :, :3], visible


def log_joint(learner, u, unknown, I, visible):
    """The log joint of one chunk straight from the paper, to take differences of."""
    latents = unpack(u, unknown)
    x, _ = learner.net(**latents)
    error = (I - x) ** 2 if visible is None else visible * (I - x) ** 2
    return (-error.sum() / learner.refsig**2 - sum((v**2).sum() for v in latents.values())) / 2


@pytest.mark.parametrize("masked", [False, True])
def test_score_is_the_gradient_of_the_log_joint_through_the_learned_nets(make_learner, masked):
    learner = make_learner(hidden=hidden_block() if masked else None, content_size=3, motion_type_size=2, refsig=0.5,
                           mask_type="region" if masked else "none")
    u, unknown, I, visible = doubled(learner)
    assert u.shape == (2, 3 * 5 + 6 + 3 + 2)
    earlier = None
    for _ in range(2):
        score = learner.score(u, unknown, {}, I, visible)
        for k in range(0, u.shape[1], 2):  # the second row follows from the first: batch norm joins them
            step = torch.zeros_like(u)
            step[0, k] = 1e-5
            with torch.no_grad():
                up, down = (log_joint(learner, u + sign * step, unknown, I, visible).item() for sign in (1, -1))
            assert score[0, k].item() == pytest.approx((up - down) / 2e-5, rel=1e-4, abs=1e-6)
        assert earlier is None or (score - earlier).abs().max() > 0.01  # F has changed, and the score with it
        earlier = score
        with torch.no_grad():
            for p in learner.net.transition.parameters():
                p.add_(torch.randn_like(p), alpha=0.3)


def test_inference_climbs_what_learning_descends(make_learner):
    """The score is the prior's -u and minus the gradient of the very loss that moves the weights."""
    learner = make_learner(content_size=3)
    u, unknown, I, visible = doubled(learner)
    leaf = u.clone().requires_grad_()
    loss = -learner.log_likelihood(learner.net(**unpack(leaf, unknown))[0], I, visible)
    loss.backward()
    torch.testing.assert_close(learner.score(u, unknown, {}, I, visible), -u - leaf.grad)


def test_bfloat16_infers_nearly_the_same_and_leaves_learning_alone(make_learner):
    rough, exact = make_learner(precision="bf16"), make_learner()
    for learner in (rough, exact):
        for _ in range(20):
            learn_epoch(learner)
    rough.net.load_state_dict(exact.net.state_dict())
    unknown = exact.latents
    u, I = pack(unknown), exact.I
    scores = [learner.score(u, unknown, {}, I, None) + u for learner in (rough, exact)]
    assert scores[0].dtype == torch.float32
    assert 1e-4 < (scores[0] - scores[1]).norm() / scores[1].norm() < 0.05  # not 0: the products are in bfloat16
    assert torch.equal(rough.net(**exact.latents)[0], exact.net(**exact.latents)[0])


def test_sum_and_mean_differ_by_the_number_of_frames_or_of_visible_entries(make_learner):
    for hidden, count in ((None, 2 * 3), (hidden_block(), 3 * (2 * 3 * 64 - 2 * 2 * 16))):
        values = []
        for scale in ("sum", "mean"):
            learner = make_learner(hidden=hidden, likelihood_scale=scale)
            u, unknown, I, visible = doubled(learner)
            values.append(learner.log_likelihood(learner.net(**unknown)[0], I, visible).item())
        assert values[0] / values[1] == pytest.approx(count, rel=1e-9)
    assert parse(flags(**TINY))[0].likelihood_scale == "sum"


def test_without_the_likelihood_xi_keeps_the_variance_of_langevin_dynamics(make_learner):
    """1 / (1 - delta^2 / 4), exactly, for the prior alone."""
    learner = make_learner(clips=1, hidden=np.ones((1, 60, 8, 8), dtype=bool), num_frames=60, z_size=800)
    delta, unknown = 0.8, learner.latents
    generators = [utils.generator("cpu", 0)]
    u = langevin.langevin(pack(unknown), lambda u: learner.score(u, unknown, {}, learner.I, learner.visible),
                          40, delta, generators)
    xi = unpack(u, unknown)["xi"]
    assert xi.var().item() == pytest.approx(1 / (1 - delta**2 / 4), rel=0.03)  # 1.19
    assert not learner.likelihood_gradient.any()


def assert_same(a, b):
    """Nested states that agree bit for bit."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


@pytest.mark.parametrize("scale", ["sum", "mean"])
def test_hidden_pixels_influence_nothing(make_learner, moving, scale):
    hidden = hidden_block()
    videos = np.stack([moving(7, 8, 8, phase=k) for k in range(2)])
    other = np.where(hidden[..., None], 255 - videos, videos)
    seen = videos.copy()
    seen[0, 0, 0, 0] ^= 1  # one visible pixel by one grey level
    states = []
    for version in (videos, other, seen):
        learner = make_learner(videos=version, hidden=hidden, task="recovery", likelihood_scale=scale)
        for _ in range(2):
            metrics = learn_epoch(learner)
        gradients = [p.grad for p in learner.net.parameters()]
        seen_by_all = pictures(parse(flags(**TINY))[0], learner, videos)[1]
        states.append((snapshot(learner.state()), gradients, seen_by_all, metrics["recovery_error"]))
    (state, gradients, shown, error), (state_2, gradients_2, shown_2, error_2), (state_3, *_) = states
    assert_same(state, state_2)
    assert_same(gradients, gradients_2)
    assert (shown == shown_2).all()
    assert error != error_2  # the truth is looked at for the score alone
    assert not torch.equal(state["latents"]["xi"], state_3["latents"]["xi"])


def test_recovery_error_is_the_mean_over_hidden_pixels_in_grey_levels(make_learner):
    learner = make_learner(hidden=hidden_block(), task="recovery")
    assert learner.recovery_error(learner.truth) == 0
    assert learner.recovery_error(learner.truth + learner.visible) == 0
    assert learner.recovery_error(learner.truth - 2 / 255) == pytest.approx(1, rel=1e-4)
    recovered = pictures(parse(flags(**TINY))[0], learner, grey(learner.truth))[1]
    shown, observed = torch.from_numpy(~hidden_block()), grey(learner.I)
    assert (recovered[shown.numpy()] == observed[shown.numpy()]).all() and (recovered != observed).any()
    assert (observed[~shown.numpy()] == 128).all()


def test_later_chunks_start_from_the_state_that_the_one_before_has_reached(make_learner):
    learner, starts, seen = make_learner(clips=1, content_size=3), [], []
    forward = learner.net.forward

    def spy(xi, s, a, m, **how):
        x, states = forward(xi, s, a, m, **how)
        starts.append((s.detach().clone(), s.requires_grad, a.detach().clone()))
        seen.append(states[:, -1].detach())
        return x, states

    learner.net.forward = spy
    learn_epoch(learner)
    steps = learner.sample_steps + 1
    assert len(starts) == 3 * steps  # 7 frames in chunks of 3: 3, 3, 1
    assert all(torch.equal(s, seen[steps - 1]) and not unknown for s, unknown, _ in starts[steps : 2 * steps])
    assert starts[0][1] and not torch.equal(starts[0][0], starts[1][0])
    assert torch.equal(learner.latents["s"], starts[steps - 1][0])
    assert torch.equal(learner.latents["a"], starts[-1][2]) and not torch.equal(starts[steps][2], starts[-1][2])


def test_every_clip_chunk_and_epoch_has_noise_of_its_own(make_learner, monkeypatch):
    seeds = []

    def spy(u, score, steps, delta, generators):
        seeds.extend(generator.initial_seed() for generator in generators)
        return langevin.langevin(u, score, steps, delta, generators)

    monkeypatch.setattr("dyngen.learn.langevin", spy)
    for batch_size in (2, 3):  # how clips are batched does not matter
        learner = make_learner(clips=3, batch_size=batch_size)
        learn_epoch(learner)
        learn_epoch(learner)
    half = len(seeds) // 2
    assert half == 3 * 3 * 2 and len(set(seeds[:half])) == half and set(seeds[half:]) == set(seeds[:half])


def test_inference_goes_on_from_where_it_was(make_learner):
    learner = make_learner(content_size=3, step_size=1e-6)
    before = snapshot(learner.latents)
    learn_epoch(learner)
    for name, u in learner.latents.items():
        torch.testing.assert_close(u, before[name], atol=1e-4, rtol=0)


def test_an_epoch_that_ends_early_never_was(make_learner, monkeypatch):
    learner = make_learner()
    learn_epoch(learner)
    before, learn_chunk, calls = snapshot(learner.state()), learner.learn_chunk, []

    def stop(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return learn_chunk(*args)

    monkeypatch.setattr(learner, "learn_chunk", stop)
    with pytest.raises(KeyboardInterrupt):
        learn_epoch(learner)
    assert_same(before, snapshot(learner.state()))

    monkeypatch.setattr(learner, "learn_chunk", learn_chunk)
    learner.step_size = 1e15
    with pytest.raises(RunError, match="diverged in epoch 2: .* lower -step_size or -lr"):
        learn_epoch(learner)
    learner.step_size = 0.03
    assert_same(before, snapshot(learner.state()))


def test_learning_fits_the_clip(make_learner):
    learner = make_learner(clips=1, sample_steps=2)
    first = learn_epoch(learner)["psnr"]
    for _ in range(25):
        last = learn_epoch(learner)["psnr"]
    assert last > first + 6


def test_the_rate_falls_at_the_end(make_learner):
    learner, rates = make_learner(num_epochs=4, anneal=0.5, lr=0.01), []
    for _ in range(4):
        learn_epoch(learner)
        rates.append(learner.optimizer.lr)
    assert rates == pytest.approx([0.01, 0.01, 0.01, 0.01 * 0.1**0.5])


def test_each_clip_is_generated_with_its_own_content_or_with_the_one_asked_for(make_learner):
    learner = make_learner(clips=3, content_size=3, batch_size=3)
    latents, seen = learner.latents, []
    asked = {"batch_size": 3, "chunk": 3, "sections": 4, "burn_in": 4, "init_state": "inferred", "seed": 0,
             "batches": 2}
    generate = learner.net.generate
    learner.net.generate = lambda xi, s, a, m, chunk: seen.append((xi, s, a)) or generate(xi, s, a, m, chunk)
    for content in ("inferred", "2", "random"):
        videos = new_videos(learner.net, latents, 0, content=content, **asked)
        assert videos.shape == (3, 3, 12, 8, 8)  # four sections of three frames, without the burn-in
    (xi, s, own), (_, _, swapped), (_, _, random) = seen
    assert torch.equal(own, latents["a"]) and torch.equal(swapped, latents["a"][[2, 2, 2]])
    assert not torch.isin(random, latents["a"]).any()
    asked |= {"burn_in": 0, "content": "inferred"}
    new_videos(learner.net, latents, 0, **asked)
    assert torch.equal(seen[-1][1], latents["s"]) and not torch.equal(s, latents["s"])
    new_videos(learner.net, latents, 1, **asked | {"init_state": "random"})
    assert not torch.isin(seen[-1][1], latents["s"]).any() and not torch.equal(seen[-1][0][:, :12], seen[-2][0][:, :12])

    seen.clear()
    replayed_videos(learner.net, latents, batch_size=3, chunk=3, content="1")
    assert torch.equal(seen[0][0], latents["xi"]) and torch.equal(seen[0][2], latents["a"][[1, 1, 1]])

    seen.clear()  # six videos on the way from one look to another, of one motion
    for batch in range(2):
        new_videos(learner.net, latents, batch, **asked | {"content": "2:0"})
    xi, s, a = (torch.cat(parts) for parts in zip(*seen))
    assert torch.equal(a[0], latents["a"][2]) and torch.equal(a[-1], latents["a"][0])
    assert torch.allclose(a.diff(dim=0), (a[-1] - a[0]).expand(5, -1) / 5, atol=1e-6)
    assert torch.equal(xi, xi[:1].expand_as(xi)) and torch.equal(s, latents["s"][[2] * 6])


# ------------------------------------------------------------------------------------------------------ command line


def test_released_settings_are_the_presets():
    table = {  # size, frames, chunk, batch, dim s, dim xi, dim a, dim m, sigma, epochs, sections x batches
        "scene": (64, 60, 30, 1, 100, 100, 0, 0, 1, 3000, 4, 2),
        "motion": (64, 30, 30, 30, 3, 100, 100, 0, 1, 7000, 2, 2),
        "recovery": (150, 70, 70, 1, 100, 100, 0, 0, 0.5, 7000, 4, 2),
        "inpainting": (128, 150, 150, 1, 100, 100, 0, 0, 0.5, 7000, 4, 2),
    }
    names = ("im_size num_frames truncated_backprop_length batch_size state_size z_size content_size motion_type_size "
             "refsig num_epochs num_sections_in_test num_batches_in_test").split()
    for task, row in table.items():
        args, _ = parse(["-task", task, "-category", "ocean"])
        assert tuple(getattr(args, name) for name in names) == row
        assert (args.lr, args.beta1, args.sample_steps, args.dynamic_mode) == (0.002, 0.5, 15, "nonlinear")
        assert args.step_size == (0.01 if task in ("recovery", "inpainting") else 0.03)
        assert parse(["-task", task, "-likelihood_scale", "mean"])[0].step_size == 0.03
    chatelet, _ = parse(["-task", "inpainting", "-category", "chatelet"])
    assert (chatelet.num_frames, chatelet.truncated_backprop_length, chatelet.mask_file) == (104, 104, "mask128.mat")


def test_released_command_lines():
    args, _ = parse("--category fire --isTraining True".split())
    assert (args.task, args.category, args.test, args.im_size) == ("scene", "fire", False, 64)
    args, given = parse(
        "--category fire --isTraining False --num_sections_in_test 4 --num_batches_in_test 2 --net_type scene "
        "--image_size 64 --output_dir there --ckpt model.ckpt".split())
    assert args.test and (given["im_size"], given["ckpt"], args.output_dir) == (64, "model.ckpt", "there")
    args, _ = parse(
        "--category ocean --training_mode incomplete --mask_type external --mask_file region_type.mat".split())
    assert (args.task, args.im_size, args.num_frames, args.output_dir) == ("recovery", 150, 70, "./output_recovery")
    args, _ = parse("--training_mode complete --mask_file x.mat -num_frames 20".split())
    assert (args.mask_type, args.truncated_backprop_length) == ("none", 20)
    args, _ = parse(["-encoder", "-content_size", "7"])
    assert (args.state_size, args.z_size, args.content_size) == (80, 20, 7)
    for text, tests in (("--isTraining no", True), ("--isTraining 1", False), ("--test=False", False),
                        ("--test False --isTraining False", True), ("--replay=1", True)):
        assert parse(text.split())[0].test == tests


def test_released_masks():
    rng = np.random.default_rng(0)
    for length, first, last in ((70, 24, 46), (60, 20, 39), (2, 1, 1)):
        frames = released_mask("missingFrames", length, (15, 15), rng)
        hidden = list(range(first, last + 1))
        assert np.flatnonzero(frames.all((1, 2))).tolist() == hidden and frames.sum() == len(hidden) * 15**2
    blocks = released_mask("randomRegion", 5, (150, 150), rng)
    assert (blocks.sum((1, 2)) == 53 * 256).all() and blocks.mean() == pytest.approx(0.603, abs=5e-4)
    assert not blocks[:, 144:].any() and not blocks[:, :, 144:].any() and (blocks[0] != blocks[1]).any()
    for mask_type, length, side in (("missingFrames", 1, 64), ("randomRegion", 70, 8)):
        with pytest.raises(data.InputError, match=f"-mask_type {mask_type} hides nothing"):
            released_mask(mask_type, length, (side, side), rng)


@pytest.fixture
def clips(tmp_path, moving, write_clip):
    """A data folder with a category of two clips, and one with a mask beside its clip."""
    root = tmp_path / "clips"
    for k in range(2):
        write_clip(root / f"waves/clip{k}.mp4", moving(9, 64, 64, phase=k))
    write_clip(root / "masked/clip.mp4", moving(9, 64, 64))
    np.save(root / "masked/mask.npy", hidden_block(1)[0])
    return root


@pytest.fixture
def program(clips, tmp_path, capsys, monkeypatch):
    """program(**settings) -> (exit code, what it printed on stdout, on stderr)."""
    monkeypatch.setattr("sys.argv", ["main_dyn_G.py"])

    def run(**settings):
        usual = {"data_path": clips, "output_dir": tmp_path / "out", "category": "waves", "device": "cpu"}
        try:
            code = main_dyn_G.main(flags(**{**usual, **settings}))
        except SystemExit as stop:
            code = stop.code
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


LEARN = {**TINY, "content_size": 3, "batch_size": 1, "log_step": 2}


def rows(folder):
    """metrics.csv without the times."""
    with open(folder / "metrics.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds_per_step"} for row in csv.DictReader(file)]


@pytest.mark.parametrize("settings", [{}, {"category": "masked", "task": "recovery", "mask_file": "mask.npy"}])
def test_resumed_run_equals_an_uninterrupted_one(program, tmp_path, settings):
    folders = []
    for name, epochs in (("whole", (4,)), ("parts", (1, 3, 4))):
        for last in epochs:
            code, out, err = program(**LEARN, **settings, num_epochs=last, output_dir=tmp_path / name)
            assert (code, err) == (0, "") and f"done: {last} epochs" in out
        folders.append(tmp_path / name / settings.get("category", "waves"))
    states = [load_checkpoint(folder / "model/latest.pt", "cpu") for folder in folders]
    for state in states:
        del state["settings"]["output_dir"]
    assert_same(*states)
    assert states[0]["epoch"] == 4 and rows(folders[0]) == rows(folders[1]) and len(rows(folders[0])) == 4
    code, out, _ = program(**LEARN, **settings, num_epochs=4, output_dir=tmp_path / "whole")
    assert code == 0 and "is finished: 4 epochs" in out


def test_whole_program(program, tmp_path):
    """Learn, generate, generate again from a random state, replay with another's content."""
    code, out, err = program(**LEARN, num_epochs=2)
    assert (code, err) == (0, "") and "likelihood sum: 1 x squared error" in out and "Dynamic generator  scene" in out
    folder = tmp_path / "out/waves"
    names = "config.json metrics.csv observed_sequence synthesized_sequence final_results progress log model"
    assert {p.name for p in folder.iterdir()} == {
        *names.split(), "index.html", "page_parts.js", *(f"evaluation.{kind}" for kind in ("csv", "json", "png"))}
    films = [data.read_clip(folder / f"final_results/{name}_0.mp4") for name in ("observed", "inferred", "sequence")]
    assert [len(film) for film in films] == [7, 7, 4 * 3]
    assert len(list((folder / "observed_sequence/sequence_1").iterdir())) == 7
    assert len(list((folder / "synthesized_sequence/sequence_1").iterdir())) == 4 * 3
    assert data.read_clip(folder / "final_results/all.gif").shape[0] == 4 * 3
    metrics = rows(folder)[-1]
    assert metrics["likelihood_weight"] == "1" and float(metrics["gradient_a"]) > 0

    def frames():
        sequences = sorted((folder / "test/synthesized_sequence").iterdir())
        return np.stack([[np.asarray(Image.open(p)) for p in sorted(sequence.iterdir())] for sequence in sequences])

    length = {"num_sections_in_test": 2, "num_batches_in_test": 3}
    code, out, err = program(isTraining="False", init_state="random", **length)
    assert (code, err) == (0, "") and "3 videos of 6 frames" in out
    new = frames()
    assert new.shape == (3, 6, 8, 8, 3) and (new[0] != new[1]).any()
    program(test=True, ckpt_name="model.ckpt-2", burn_in=5, **length)
    assert (frames() != new).any()
    program(test=True, init_state="random", **length)
    assert (frames() == new).all()
    shutil.rmtree(folder / "test")
    code, out, _ = program(test=True, replay=True)
    own = frames()
    assert code == 0 and "2 videos of 7 frames" in out and own.shape == (2, 7, 8, 8, 3)
    program(replay=True, content=1)
    swapped = frames()
    assert (swapped[1] == own[1]).all() and (swapped[0] != own[0]).any()


def test_a_run_starts_from_the_weights_of_a_checkpoint(program, tmp_path):
    program(**LEARN, num_epochs=2)
    ckpt = tmp_path / "out/waves/model/epoch_0002.pt"
    new = {**LEARN, "output_dir": tmp_path / "new", "ckpt": ckpt, "lr": 1e-7, "seed": 1}
    code, out, err = program(**new, num_epochs=1)
    assert (code, err) == (0, "") and f"starting from the weights in '{ckpt}'" in out
    then, now = (load_checkpoint(path, "cpu") for path in (ckpt, tmp_path / "new/waves/model/latest.pt"))
    for name, weight in then["net"].items():
        assert (now["net"][name] - weight).abs().max() < 1e-6  # a step of Adam for each of three chunks
    assert now["epoch"] == 1 and (now["latents"]["xi"] - then["latents"]["xi"]).abs().max() > 1
    code, out, err = program(**new | {"im_size": 16, "output_dir": tmp_path / "other"})
    assert code == 2 and "generator.layers" in err and err.count("\n") == 1 and not (tmp_path / "other").exists()


def test_masked_run(program, tmp_path):
    """The released command line for hidden pixels, a mask beside the clip; the recovered clip keeps what is seen."""
    code, out, err = program(category="masked", training_mode="incomplete", mask_type="external", mask_file="mask.npy",
                             num_epochs=2, readout="mean", **{**LEARN, "content_size": 0})
    assert (code, err) == (0, "") and "Dynamic generator  recovery" in out
    folder = tmp_path / "out/masked"
    hidden = hidden_block(1)[0]
    observed, recovered = (
        np.stack([np.asarray(Image.open(p)) for p in sorted((folder / name / "sequence_0").iterdir())])
        for name in ("observed_sequence", "recovered_sequence")
    )
    assert (observed[hidden] == 128).all() and (recovered[~hidden] == observed[~hidden]).all()
    assert (recovered[hidden] != 128).any()
    with open(folder / "recovery.csv", newline="") as file:
        judged = {row["name"]: row for row in csv.DictReader(file)}
    assert float(judged["recovered"]["visible_error"]) == 0 and "linear interpolation" in judged
    error = float(rows(folder)[-1]["recovery_error_mean"])
    assert error == pytest.approx(float(judged["recovered"]["hidden_mae"]), rel=0.01)


def test_image_to_video(program, tmp_path, moving, make_learner):
    """An encoder learns with the nets, sees windows of long clips, and starts videos from a picture."""
    small = {"num_frames": 4, "truncated_backprop_length": 2, "sample_steps": 1, "num_sections_in_test": 2}
    code, out, err = program(encoder=True, num_epochs=1, **small)
    assert (code, err) == (0, "") and "4 clip(s), 4 frames of 64x64" in out  # two windows of each clip of 9 frames
    Image.fromarray(moving(1, 40, 40)[0]).save(tmp_path / "picture.png")
    code, out, err = program(animate=tmp_path / "picture.png", num_batches_in_test=1)
    assert (code, err) == (0, "") and "1 videos of 4 frames" in out

    learner = make_learner(encoder=True, im_size=64, state_size=8, z_size=5, num_frames=4, sample_steps=1)
    weights, latents = snapshot(learner.net.encoder.state_dict()), snapshot(learner.latents)
    a, s = learner.net.encoder(learner.I[:, :, 0])
    learn_epoch(learner)
    assert all(not torch.equal(v, weights[k]) for k, v in learner.net.encoder.state_dict().items())
    assert torch.equal(learner.latents["a"], a) and torch.equal(learner.latents["s"], s)
    assert not torch.equal(learner.latents["xi"], latents["xi"])


def test_dry_run_leaves_nothing(program, tmp_path):
    code, out, _ = program(dry_run=True, num_frames=7)
    assert code == 0 and "in all 7,778,575 parameters" in out and "-likelihood_scale sum" in out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("settings, said", [
    ({"category": "nothing"}, "no category 'nothing'"),
    ({"data_path": "nowhere"}, "data_path 'nowhere' is not a folder"),
    ({"num_frames": 90}, "has 9 frames, 90 are needed"),
    ({"im_size": 100}, "no generator makes frames of '100'; there are sides of 8, 16, 32"),
    ({"im_size": "64x32"}, "no generator makes frames of '64x32'"),
    ({"frame_generator_mode": 128}, "does not fit -im_size 64"),
    ({"isTraining": "maybe"}, "'maybe' is neither True nor False"),
    ({"cat": "fire"}, "unrecognized arguments: -cat"),
    ({"training_mode": "incomplete", "task": "scene"}, "-training_mode incomplete needs -mask_type"),
    ({"mask_type": "external"}, "-mask_type external needs -mask_file"),
    ({"mask_file": "nothing.mat", "num_frames": 9}, "mask file 'nothing.mat' does not exist"),
    ({"category": "masked", "mask_file": "mask.npy", "num_frames": 9},
     "is 7x8x8 (frames x height x width), the clip is 9x64x64"),
    ({"content": 2, "content_size": 3, "num_frames": 9}, "is not inferred, random, or a clip's number, 0 to 1"),
    ({"content": "1:2", "content_size": 3, "num_frames": 9}, "a clip's number, 0 to 1, or two"),
    ({"content": 0, "num_frames": 9}, "the model has no content"),
    ({"encoder": True, "im_size": 32}, "-encoder takes -im_size 64"),
    ({"encoder": True}, "has 60 frames: lower -num_frames"),
    ({"beta1": 1.5}, "1.5 is not in [0, 1)"),
    ({"test": True}, "there is no checkpoint"),
    ({"test": True, "ckpt": __file__}, "cannot load checkpoint"),
])
def test_bad_input_ends_in_one_line_and_exit_code_2(program, tmp_path, settings, said):
    code, _, err = program(**settings)
    assert code == 2 and said in err and err.count("\n") == 1, err
    assert not (tmp_path / "out").exists()


def test_a_learned_model_is_used_as_it_was_learned(program, tmp_path):
    program(**{**LEARN, "content_size": 0, "num_epochs": 1})
    for settings, said in (
        ({"im_size": 16}, "was learned with -im_size 8, not 16"),
        ({"frame_generator_mode": 64}, "was learned with -frame_generator_mode 8, not 64"),
        ({"animate": "picture.png"}, "-animate needs a model learned with -encoder"),
        ({"content": 0}, "the model has no content"),
        ({"replay": True, "content": "random"}, "-content random does not fit"),
    ):
        code, _, err = program(test=True, **settings)
        assert code == 2 and said in err and err.count("\n") == 1, err
    torch.save({"net": {}}, tmp_path / "other.pt")
    code, _, err = program(test=True, ckpt=tmp_path / "other.pt")
    assert code == 2 and "is not a checkpoint of this program" in err
    code, _, err = program(**{**LEARN, "content_size": 0, "num_epochs": 2, "refsig": 0.7})
    assert code == 2 and "refsig was 1.0, now 0.7" in err


def test_new_videos_of_one_clip_are_judged_piece_by_piece(program, clips, tmp_path):
    (clips / "waves/clip1.mp4").unlink()
    code, out, err = program(**{**LEARN, "num_epochs": 1, "num_frames": 6, "num_batches_in_test": 1})
    assert (code, err) == (0, "") and "std-map" in out
    with open(tmp_path / "out/waves/evaluation.csv", newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == [
            "observed", "new 0 from frame 0", "new 0 from frame 6", "mean of 2", "LDS"]
    assert (tmp_path / "out/waves/evaluation.png").exists()


def test_new_videos_of_several_clips_are_judged_beside_all_of_them(program, tmp_path):
    code, out, err = program(**{**LEARN, "num_epochs": 1, "num_frames": 6, "num_batches_in_test": 1})
    assert (code, err) == (0, "") and "nearest" in out
    with open(tmp_path / "out/waves/evaluation.csv", newline="") as file:
        judged = list(csv.DictReader(file))
    assert [row["name"] for row in judged] == ["clips", "new 0 from frame 0", "new 0 from frame 6", "mean of 2"]
    assert {row["nearest_clip"] for row in judged[1:-1]} <= {"0", "1"} and judged[-1]["clips_near"] in ("1", "2")


@pytest.mark.usefixtures("gpu")
def test_a_gpu_learns_goes_on_and_generates(program, tmp_path):
    for settings in ({"num_epochs": 1}, {"num_epochs": 2}, {"test": True, "init_state": "random"}):
        code, _, err = program(**LEARN, **settings, device="cuda")
        assert (code, err) == (0, "")
    assert [row["epoch"] for row in rows(tmp_path / "out/waves")] == ["1", "2"]
    assert (tmp_path / "out/waves/test/final_results/all.gif").exists()
