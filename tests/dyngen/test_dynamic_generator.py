"""The dynamic generator: golden numbers, gradients against differences, exact resume, and whole runs of the program."""

import ast
import csv
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from calls import call, frames_of, succeeds
from PIL import Image
from tools import assert_refused, assert_same_run, leaves, rows_of, state_of

import data
import dyngen.learn
import langevin
import main_dyn_G
import utils
from dyngen.generate import build_net, grey, new_videos, replayed_videos
from dyngen.learn import pack, pictures, released_mask, unpack
from dyngen.nets import IMAGE_SIZES, DynamicGenerator, Generator, Transition
from dyngen.settings import parse
from run.flags import RunError
from run.folder import snapshot
from run.loop import step

pytestmark = pytest.mark.usefixtures("undrawn")
TINY = ("-im_size 8 -state_size 6 -z_size 5 -num_frames 7 -truncated_backprop_length 3 -sample_steps 3 -seed 3 "
        "-device cpu")


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


def test_parameter_counts():
    nets = {
        Transition(100, 100): 6540, Transition(3, 100): 2563, Transition(100, 100, mode="linear"): 20_100,
        Generator(100, 64): 7_772_035, Generator(103, 64): 7_796_611, Generator(180, 64): 8_427_395,
        DynamicGenerator(64, 100, 100): 7_778_575, DynamicGenerator(128, 100, 100): 11_973_903,
        DynamicGenerator(150, 100, 100): 7_850_575}
    for net, count in nets.items():
        assert sum(p.numel() for p in net.parameters()) == count


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


def excited(net, std=0.5):
    """F with weights that move the state visibly."""
    for p in net.parameters():
        torch.nn.init.normal_(p, std=std)
    return net


@pytest.mark.parametrize("mode", ["nonlinear", "linear", "stationary"])
def test_states_in_chunks_are_those_of_one_long_run(mode):
    net = excited(Transition(4, 5, motion_size=0 if mode == "stationary" else 2, mode=mode))
    xi, s, m = torch.randn(3, 11, 5), torch.randn(3, 4), torch.randn(3, net.inputs[0])
    whole, parts, first = net(xi, s, m), [], s
    for part in xi.split(4, dim=1):
        parts.append(net(part, s, m))
        s = parts[-1][:, -1]
    torch.testing.assert_close(torch.cat(parts, 1), whole)
    assert (net(xi, first + 1, m) - whole).abs().max() > 0.01


def test_transition_is_a_residual_of_motion_type_innovation_and_state():
    net = excited(Transition(4, 3, motion_size=2))
    xi, s, m = torch.randn(1, 1, 3), torch.randn(1, 4), torch.randn(1, 2)
    r = torch.cat([m, xi[:, 0], s], dim=1)
    for k, layer in enumerate(net.layers):
        r = layer(r if k == 0 else r.clamp(min=0))
    torch.testing.assert_close(net(xi, s, m)[:, 0], torch.tanh(s + r))


def test_sections_have_their_own_batch_statistics_and_share_the_state():
    net = DynamicGenerator(8, 4, 3)
    excited(net.transition)
    xi, s, none = torch.randn(2, 6, 3), torch.randn(2, 4), torch.zeros(2, 0)
    first, states = net(xi[:, :4], s, none, none)
    last, _ = net(xi[:, 4:], states[:, -1], none, none)
    made = net.generate(xi, s, none, none, chunk=4)
    torch.testing.assert_close(made, torch.cat([first, last], dim=2))
    assert (made - net(xi, s, none, none)[0]).abs().max() > 1e-4


# -------------------------------------------------------------------------------------------------------- learning


@pytest.fixture
def make_learner(moving):
    """make_learner(flags, clips, hidden) -> a Learner of small waves, whose F moves the state visibly. clips: how many,
    or the videos."""

    def make(more="", clips=2, hidden=None):
        args, _ = parse(f"{TINY} -batch_size 2 {more}".split())
        torch.manual_seed(args.seed)
        net, size = build_net(args, args.device), (args.num_frames, args.im_size, args.im_size)
        for layer in net.transition.layers:
            torch.nn.init.normal_(layer.weight, std=0.3)
        videos = np.stack([moving(*size, phase=k) for k in range(clips)]) if isinstance(clips, int) else clips
        return dyngen.learn.make_learner(args, net, None, videos, hidden)

    return make


def learn_epochs(learner, count=1):
    """So many epochs, each whole or not at all. Returns the metrics of each."""
    return [step(learner, SimpleNamespace(log=lambda epoch, metrics: None)) for _ in range(count)]


def hidden_block(clips=2, frames=7, side=8):
    """A mask of one block in every other frame, bool (N, T, H, W)."""
    hidden = np.zeros((clips, frames, side, side), dtype=bool)
    hidden[:, ::2, 2:6, 1:5] = True
    return hidden


def assert_same(one, two):
    """Nested states that agree bit for bit."""
    one, two = leaves(one), leaves(two)
    assert one.keys() == two.keys()
    for name, x in one.items():
        assert torch.equal(x, two[name]) if isinstance(x, torch.Tensor) else x == two[name], name


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


@pytest.mark.parametrize("hidden, mask_type", [(None, "none"), (hidden_block(), "region")])
def test_score_is_the_gradient_of_the_log_joint_through_the_learned_nets(make_learner, hidden, mask_type):
    learner = make_learner(f"-content_size 3 -motion_type_size 2 -refsig 0.5 -mask_type {mask_type}", hidden=hidden)
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
    leaf = u.clone().requires_grad_()  # inference climbs what learning descends
    (-learner.log_likelihood(learner.net(**unpack(leaf, unknown))[0], I, visible)).backward()
    torch.testing.assert_close(learner.score(u, unknown, {}, I, visible), -u - leaf.grad)


def test_bfloat16_infers_nearly_the_same_and_leaves_learning_alone(make_learner):
    rough, exact = make_learner("-precision bf16"), make_learner()
    learn_epochs(rough)
    learn_epochs(exact, 20)
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
            learner = make_learner(f"-likelihood_scale {scale}", hidden=hidden)
            u, unknown, I, visible = doubled(learner)
            values.append(learner.log_likelihood(learner.net(**unknown)[0], I, visible).item())
        assert values[0] / values[1] == pytest.approx(count, rel=1e-9)
    assert make_learner().likelihood_scale == "sum"


def test_without_the_likelihood_xi_keeps_the_variance_of_langevin_dynamics(make_learner):
    """1 / (1 - delta^2 / 4), exactly, for the prior alone."""
    learner = make_learner("-num_frames 60 -z_size 800", clips=1, hidden=np.ones((1, 60, 8, 8), dtype=bool))
    delta, unknown = 0.8, learner.latents
    u = langevin.langevin(pack(unknown), lambda u: learner.score(u, unknown, {}, learner.I, learner.visible),
                          40, delta, [utils.generator("cpu", 0)])
    xi = unpack(u, unknown)["xi"]
    assert xi.var().item() == pytest.approx(1 / (1 - delta**2 / 4), rel=0.03)  # 1.19
    assert not learner.likelihood_gradient.any()


@pytest.mark.parametrize("scale", ["sum", "mean"])
def test_hidden_pixels_influence_nothing(make_learner, moving, scale):
    hidden, videos = hidden_block(), np.stack([moving(7, 8, 8, phase=k) for k in range(2)])
    other, seen = np.where(hidden[..., None], 255 - videos, videos), videos.copy()
    seen[0, 0, 0, 0] ^= 1  # one visible pixel by one grey level
    runs = []
    for version in (videos, other, seen):
        learner = make_learner(f"-task recovery -likelihood_scale {scale}", version, hidden)
        metrics = learn_epochs(learner, 2)[-1]
        gradients = [p.grad for p in learner.net.parameters()]
        shown = torch.from_numpy(pictures(parse(TINY.split())[0], learner, videos)[1])
        runs.append(([snapshot(learner.state()), gradients, shown], metrics["recovery_error"]))
    (first, error), (second, error_2), (third, _) = runs
    assert_same(first, second)
    assert error != error_2  # the truth is looked at for the score alone
    assert not torch.equal(first[0]["latents"]["xi"], third[0]["latents"]["xi"])


def test_recovery_error_is_the_mean_over_hidden_pixels_in_grey_levels(make_learner):
    learner, hidden = make_learner("-task recovery", hidden=hidden_block()), hidden_block()
    assert learner.recovery_error(learner.truth) == learner.recovery_error(learner.truth + learner.visible) == 0
    assert learner.recovery_error(learner.truth - 2 / 255) == pytest.approx(1, rel=1e-4)
    recovered, observed = pictures(parse(TINY.split())[0], learner, grey(learner.truth))[1], grey(learner.I)
    assert (recovered[~hidden] == observed[~hidden]).all() and (recovered != observed).any()
    assert (observed[hidden] == 128).all()


def test_later_chunks_start_from_the_state_that_the_one_before_has_reached(make_learner):
    learner, starts, seen = make_learner("-content_size 3", clips=1), [], []
    forward = learner.net.forward

    def spy(xi, s, a, m, **how):
        x, states = forward(xi, s, a, m, **how)
        starts.append((s.detach().clone(), s.requires_grad, a.detach().clone()))
        seen.append(states[:, -1].detach())
        return x, states

    learner.net.forward = spy
    learn_epochs(learner)
    steps = learner.sample_steps + 1
    assert len(starts) == 3 * steps  # 7 frames in chunks of 3: 3, 3, 1
    assert all(torch.equal(s, seen[steps - 1]) and not unknown for s, unknown, _ in starts[steps : 2 * steps])
    assert starts[0][1] and not torch.equal(starts[0][0], starts[1][0])
    assert torch.equal(learner.latents["s"], starts[steps - 1][0])
    assert torch.equal(learner.latents["a"], starts[-1][2]) and not torch.equal(starts[steps][2], starts[-1][2])


def test_every_clip_chunk_and_epoch_has_noise_of_its_own(make_learner, monkeypatch):
    seeds, move = [], langevin.langevin
    monkeypatch.setattr("dyngen.learn.langevin", lambda u, score, steps, delta, generators: seeds.extend(
        generator.initial_seed() for generator in generators) or move(u, score, steps, delta, generators))
    for batch_size in (2, 3):  # how clips are batched does not matter
        learn_epochs(make_learner(f"-batch_size {batch_size}", clips=3), 2)
    half = len(seeds) // 2
    assert half == 3 * 3 * 2 and len(set(seeds[:half])) == half and set(seeds[half:]) == set(seeds[:half])


def test_inference_goes_on_from_where_it_was(make_learner):
    learner = make_learner("-content_size 3 -step_size 1e-6")
    before = snapshot(learner.latents)
    learn_epochs(learner)
    for name, u in learner.latents.items():
        torch.testing.assert_close(u, before[name], atol=1e-4, rtol=0)


def test_an_epoch_that_ends_early_never_was(make_learner, monkeypatch):
    learner = make_learner()
    learn_epochs(learner)
    before, learn_chunk, calls = snapshot(learner.state()), learner.learn_chunk, []

    def stop(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return learn_chunk(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(learner, "learn_chunk", stop)
        learn_epochs(learner)
    assert_same(before, snapshot(learner.state()))
    learner.step_size = 1e15
    with pytest.raises(RunError, match="diverged in epoch 2: .* lower -step_size or -lr"):
        learn_epochs(learner)
    assert_same(before, snapshot(learner.state()))


def test_learning_fits_the_clip(make_learner):
    metrics = learn_epochs(make_learner("-sample_steps 2", clips=1), 26)
    assert metrics[-1]["psnr"] > metrics[0]["psnr"] + 6


def test_the_rate_falls_at_the_end(make_learner):
    learner, rates = make_learner("-num_epochs 4 -anneal 0.5 -lr 0.01 -sample_steps 1"), []
    for _ in range(4):
        learn_epochs(learner)
        rates.append(learner.optimizer.lr)
    assert rates == pytest.approx([0.01, 0.01, 0.01, 0.01 * 0.1**0.5])


def test_each_clip_is_generated_with_its_own_content_or_with_the_one_asked_for(make_learner):
    learner = make_learner("-content_size 3 -batch_size 3", clips=3)
    latents, seen, generate = learner.latents, [], learner.net.generate
    learner.net.generate = lambda xi, s, a, m, chunk: seen.append((xi, s, a)) or generate(xi, s, a, m, chunk)
    asked = {"batch_size": 3, "chunk": 3, "sections": 4, "burn_in": 4, "init_state": "inferred", "seed": 0,
             "batches": 2, "content": "inferred"}

    def made(batch=0, **more):
        """The innovations, first states and content of new videos."""
        videos = new_videos(learner.net, latents, batch, **asked | more)
        assert videos.shape == (3, 3, 12, 8, 8)  # four sections of three frames, without the burn-in
        return seen[-1]

    a, s = latents["a"], latents["s"]
    assert torch.equal(made()[2], a) and torch.equal(made(content="2")[2], a[[2, 2, 2]])
    assert not torch.isin(made(content="random")[2], a).any()
    assert torch.equal(made(burn_in=0)[1], s) and not torch.equal(made()[1], s)
    other = made(1, burn_in=0, init_state="random")
    assert not torch.isin(other[1], s).any() and not torch.equal(other[0], made(burn_in=0)[0])
    replayed_videos(learner.net, latents, batch_size=3, chunk=3, content="1")
    assert torch.equal(seen[-1][0], latents["xi"]) and torch.equal(seen[-1][2], a[[1, 1, 1]])
    # six videos on the way from one look to another, of one motion
    xi, s_0, way = (torch.cat(parts) for parts in zip(*(made(k, burn_in=0, content="2:0") for k in range(2))))
    assert torch.equal(way[0], a[2]) and torch.equal(way[-1], a[0])
    assert torch.allclose(way.diff(dim=0), (way[-1] - way[0]).expand(5, -1) / 5, atol=1e-6)
    assert torch.equal(xi, xi[:1].expand_as(xi)) and torch.equal(s_0, s[[2] * 6])


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


@pytest.mark.parametrize("line, means", [  # beside those of tests/run/test_published.py
    ("--training_mode complete --mask_file x.mat -num_frames 20", {"mask_type": "none",
                                                                   "truncated_backprop_length": 20}),
    ("-encoder -content_size 7", {"state_size": 80, "z_size": 20, "content_size": 7}),
    ("--isTraining no", {"test": True}), ("--isTraining 1", {"test": False}), ("--test=False", {"test": False}),
    ("--test False --isTraining False", {"test": True}), ("--replay=1", {"test": True})])
def test_a_command_line_means(line, means):
    args, _ = parse(line.split())
    assert {name: getattr(args, name) for name in means} == means


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


@pytest.fixture(scope="module")
def clips(tmp_path_factory, moving, write_clip):
    """A data folder with categories of two clips, of one, and of one with a mask beside it."""
    root = tmp_path_factory.mktemp("clips")
    for k, name in enumerate(("waves/clip0", "waves/clip1", "one/clip", "masked/clip")):
        write_clip(root / f"{name}.mp4", moving(9, 64, 64, phase=k % 2))
    np.save(root / "masked/mask.npy", hidden_block(1)[0])
    return root


LEARN = f"{TINY} -content_size 3 -batch_size 1 -log_step 2"
MASKED = "-category masked --training_mode incomplete --mask_type external --mask_file mask.npy"  # as released


@pytest.fixture(scope="module")
def flags(clips):
    """flags(output, *more): where clips are, and where a run goes."""
    return lambda output, *more: ("-category waves -device cpu -data_path", clips, "-output_dir", output, *more)


@pytest.fixture(scope="module")
def learned(tmp_path_factory, flags):
    """What a run of two epochs has printed, and its output_dir."""
    output = tmp_path_factory.mktemp("learned")
    return succeeds(main_dyn_G, *flags(output, LEARN, "-num_epochs 2")), output


@pytest.fixture(scope="module")
def recovered(tmp_path_factory, flags):
    """The same of a run whose hidden pixels have been recovered."""
    output = tmp_path_factory.mktemp("recovered")
    return succeeds(main_dyn_G, *flags(output, LEARN, MASKED, "-content_size 0 -num_epochs 2 -readout mean")), output


def films(folder):
    """All videos in a folder of frames, uint8 (N, T, H, W, 3)."""
    return np.stack([[np.asarray(Image.open(path)) for path in sorted(each.iterdir())]
                     for each in sorted(folder.iterdir())])


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("more, category, whole", [
    ("", "waves", "learned"), (f"{MASKED} -content_size 0 -readout mean", "masked", "recovered")])
def test_resumed_run_equals_an_uninterrupted_one(more, category, whole, flags, tmp_path, request, monkeypatch):
    _, output = request.getfixturevalue(whole)
    monkeypatch.setattr("dyngen.learn.judge", lambda *_: None)
    for last in (1, 2):
        out = succeeds(main_dyn_G, *flags(tmp_path, LEARN, more, "-num_epochs", last))
        assert f"done: {last} epochs" in out
    assert_same_run(tmp_path / category, output / category)
    assert len(rows_of(tmp_path / category)) == 2
    assert "is finished: 2 epochs" in succeeds(main_dyn_G, *flags(tmp_path, LEARN, more, "-num_epochs 2"))


def test_what_a_run_leaves_and_how_it_is_judged_beside_its_clips(learned):
    out, folder = learned[0], learned[1] / "waves"
    assert "likelihood sum: 1 x squared error" in out and "Dynamic generator  scene" in out and "nearest" in out
    names = "config.json metrics.csv observed_sequence synthesized_sequence final_results progress log model"
    assert {p.name for p in folder.iterdir()} == {
        *names.split(), "index.html", "page_parts.js", *(f"evaluation.{kind}" for kind in ("csv", "json", "png"))}
    shown = [data.read_clip(folder / f"final_results/{name}_0.mp4") for name in ("observed", "inferred", "sequence")]
    assert [len(film) for film in shown] == [7, 7, 4 * 3]
    assert data.read_clip(folder / "final_results/all.gif").shape[0] == 4 * 3
    assert frames_of(folder / "observed_sequence") == [7, 7] and frames_of(folder / "synthesized_sequence")[1] == 4 * 3
    metrics = rows_of(folder)[-1]
    assert metrics["likelihood_weight"] == "1" and float(metrics["gradient_a"]) > 0
    judged = table(folder / "evaluation.csv")
    assert [row["name"] for row in judged] == ["clips", "new 0 from frame 0", "new 1 from frame 0", "mean of 2"]
    assert {row["nearest_clip"] for row in judged[1:-1]} <= {"0", "1"} and judged[-1]["clips_near"] in ("1", "2")


def test_new_videos_of_one_clip_are_judged_piece_by_piece(flags, tmp_path):
    out = succeeds(main_dyn_G, *flags(tmp_path, LEARN, "-category one -num_epochs 1 -num_frames 6 -sample_steps 1 "
                                      "-num_batches_in_test 1"))
    assert "std-map" in out and (tmp_path / "one/evaluation.png").exists()
    assert [row["name"] for row in table(tmp_path / "one/evaluation.csv")] == [
        "observed", "new 0 from frame 0", "new 0 from frame 6", "mean of 2", "LDS"]


def test_new_videos_from_a_learned_model(learned, flags):
    made = learned[1] / "waves/test/synthesized_sequence"

    def frames(*more):
        out = succeeds(main_dyn_G, *flags(learned[1], *more))
        return out, films(made)

    length = "-num_sections_in_test 2 -num_batches_in_test 3"
    out, new = frames("-isTraining False -init_state random", length)
    assert "3 videos of 6 frames" in out and new.shape == (3, 6, 8, 8, 3) and (new[0] != new[1]).any()
    assert (frames("-test -ckpt_name model.ckpt-2 -burn_in 5", length)[1] != new).any()
    assert (frames("-test -init_state random", length)[1] == new).all()
    out, own = frames("-test -replay")
    assert "2 videos of 7 frames" in out and own.shape == (2, 7, 8, 8, 3)
    swapped = frames("-replay -content 1")[1]
    assert (swapped[1] == own[1]).all() and (swapped[0] != own[0]).any()


def test_a_run_starts_from_the_weights_of_a_checkpoint(learned, flags, tmp_path):
    ckpt = learned[1] / "waves/model/epoch_0002.pt"
    new = (LEARN, "-lr 1e-7 -seed 1 -num_epochs 1 -ckpt", ckpt)
    assert f"starting from the weights in '{ckpt}'" in succeeds(main_dyn_G, *flags(tmp_path / "new", *new))
    then, now = torch.load(ckpt), state_of(tmp_path / "new/waves")
    for name, weight in then["net"].items():
        assert (now["net"][name] - weight).abs().max() < 1e-6  # a step of Adam for each of three chunks
    assert now["epoch"] == 1 and (now["latents"]["xi"] - then["latents"]["xi"]).abs().max() > 1
    assert_refused(call(main_dyn_G, *flags(tmp_path / "other", *new, "-im_size 16")), "generator.layers")
    assert not (tmp_path / "other").exists()


def test_a_recovered_clip_keeps_what_is_seen_and_is_judged(recovered):
    out, folder, hidden = recovered[0], recovered[1] / "masked", hidden_block(1)[0]
    observed, made = (films(folder / name)[0] for name in ("observed_sequence", "recovered_sequence"))
    assert "Dynamic generator  recovery" in out
    assert (observed[hidden] == 128).all() and (made[~hidden] == observed[~hidden]).all()
    assert (made[hidden] != 128).any()
    judged = {row["name"]: row for row in table(folder / "recovery.csv")}
    assert float(judged["recovered"]["visible_error"]) == 0 and "linear interpolation" in judged
    error = float(rows_of(folder)[-1]["recovery_error_mean"])
    assert error == pytest.approx(float(judged["recovered"]["hidden_mae"]), rel=0.01)


def test_image_to_video(flags, tmp_path, moving, make_learner):
    """An encoder learns with the nets, sees windows of long clips, and starts videos from a picture."""
    picture, small = tmp_path / "picture.png", "-num_frames 4 -truncated_backprop_length 2 -sample_steps 1"
    out = succeeds(main_dyn_G, *flags(tmp_path, "-encoder -num_epochs 1 -num_sections_in_test 2", small))
    assert "4 clip(s), 4 frames of 64x64" in out  # two windows of each clip of 9 frames
    Image.fromarray(moving(1, 40, 40)[0]).save(picture)
    out = succeeds(main_dyn_G, *flags(tmp_path, "-num_batches_in_test 1 -animate", picture))
    assert "1 videos of 4 frames" in out

    learner = make_learner("-encoder -im_size 64 -state_size 8 -num_frames 4 -sample_steps 1")
    weights, latents = snapshot(learner.net.encoder.state_dict()), snapshot(learner.latents)
    a, s = learner.net.encoder(learner.I[:, :, 0])
    learn_epochs(learner)
    assert all(not torch.equal(v, weights[k]) for k, v in learner.net.encoder.state_dict().items())
    assert torch.equal(learner.latents["a"], a) and torch.equal(learner.latents["s"], s)
    assert not torch.equal(learner.latents["xi"], latents["xi"])


def test_dry_run_leaves_nothing(flags, tmp_path):
    out = succeeds(main_dyn_G, *flags(tmp_path / "out", "-dry_run -num_frames 7"))
    assert "in all 7,778,575 parameters" in out and "-likelihood_scale sum" in out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("given, said", [
    ("-category nothing", "no category 'nothing'"),
    ("-data_path nowhere", "data_path 'nowhere' is not a folder"),
    ("-num_frames 90", "has 9 frames, 90 are needed"),
    ("-im_size 100", "no generator makes frames of '100'; there are sides of 8, 16, 32"),
    ("-im_size 64x32", "no generator makes frames of '64x32'"),
    ("-frame_generator_mode 128", "does not fit -im_size 64"),
    ("-isTraining maybe", "'maybe' is neither True nor False"),
    ("-training_mode incomplete -task scene", "-training_mode incomplete needs -mask_type"),
    ("-mask_type external", "-mask_type external needs -mask_file"),
    ("-mask_file nothing.mat -num_frames 9", "mask file 'nothing.mat' does not exist"),
    ("-category masked -mask_file mask.npy -num_frames 9",
     "is 7x8x8 (frames x height x width), the clip is 9x64x64"),
    ("-content 2 -content_size 3 -num_frames 9", "is not inferred, random, or a clip's number, 0 to 1"),
    ("-content 1:2 -content_size 3 -num_frames 9", "a clip's number, 0 to 1, or two"),
    ("-content 0 -num_frames 9", "the model has no content"),
    ("-encoder -im_size 32", "-encoder takes -im_size 64"),
    ("-encoder", "has 60 frames: lower -num_frames"),
    ("-beta1 1.5", "1.5 is not in [0, 1)"),
    ("-test", "there is no checkpoint"),
    (f"-test -ckpt {__file__}", "cannot load checkpoint"),
])
def test_bad_input_ends_in_one_line_and_exit_code_2(flags, tmp_path, given, said):
    assert_refused(call(main_dyn_G, *flags(tmp_path / "out", given)), said)
    assert not (tmp_path / "out").exists()


def test_a_learned_model_is_used_as_it_was_learned(learned, recovered, flags, tmp_path):
    for given, said in (
        ("-im_size 16", "was learned with -im_size 8, not 16"),
        ("-frame_generator_mode 64", "was learned with -frame_generator_mode 8, not 64"),
        ("-animate picture.png", "-animate needs a model learned with -encoder"),
        ("-replay -content random", "-content random does not fit"),
    ):
        assert_refused(call(main_dyn_G, *flags(learned[1], "-test", given)), said)
    without = flags(recovered[1], "-test -category masked -content 0")
    assert_refused(call(main_dyn_G, *without), "the model has no content")
    torch.save({"net": {}}, tmp_path / "other.pt")
    other = flags(learned[1], "-test -ckpt", tmp_path / "other.pt")
    assert_refused(call(main_dyn_G, *other), "is not a checkpoint of this program")
    changed = flags(learned[1], LEARN, "-num_epochs 3 -refsig 0.7")
    assert_refused(call(main_dyn_G, *changed), "refsig was 1.0, now 0.7")


@pytest.mark.usefixtures("gpu")
def test_a_gpu_learns_goes_on_and_generates(flags, tmp_path, monkeypatch):
    monkeypatch.setattr("dyngen.learn.judge", lambda *_: None)
    for more in ("-num_epochs 1", "-num_epochs 2", "-test -init_state random"):
        succeeds(main_dyn_G, *flags(tmp_path, LEARN, "-sample_steps 1 -device cuda", more))
    assert [row["epoch"] for row in rows_of(tmp_path / "waves")] == ["1", "2"]
    assert (tmp_path / "waves/test/final_results/all.gif").exists()
