"""The descriptor nets: golden numbers, analytic results, and `gradient` against autograd and finite differences."""

import ast
import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bench import plain_features, plain_gradient
from fast.device import prepare
from fast.gradient import FastGradient
from fast.graph import LangevinGraph
from fast.routes import Blocks, Columns, Direct, FastConv, FastPlane, Frames, Winograd, choose
from langevin import langevin
from model import NETS, FullPlane, Layer, descriptor, layer_table, same_padding
from run.adam import Adam

# From the paper's and the released nets: (size, kernel, stride), output, (zeros before, zeros after).
SAME = [
    ((224, 7, 3), 75, (2, 3)),
    ((70, 7, 3), 24, (3, 3)),
    ((100, 7, 2), 50, (2, 3)),
    ((70, 7, 2), 35, (2, 3)),
    ((224, 15, 7), 32, (4, 4)),
    ((100, 15, 7), 15, (6, 7)),
    ((70, 15, 7), 10, (4, 4)),
    ((32, 7, 3), 11, (2, 3)),
    ((15, 7, 3), 5, (2, 2)),
    ((10, 7, 3), 4, (3, 3)),
    ((11, 3, 2), 6, (1, 1)),
    ((5, 3, 2), 3, (1, 1)),
    ((4, 2, 1), 4, (0, 1)),
    ((100, 11, 5), 20, (3, 3)),
    ((30, 9, 4), 8, (3, 4)),
    ((100, 7, 3), 34, (3, 3)),
    ((200, 7, 3), 67, (2, 3)),
    ((150, 7, 3), 50, (2, 2)),
    ((128, 7, 3), 43, (2, 3)),
    ((104, 7, 3), 35, (2, 3)),
]

# Net, frames, side: the maps (C, T, H, W) after each layer and each layer's parameters.
SHAPES = [
    ("ST", 70, 224, [(120, 10, 32, 32), (40, 4, 11, 11), (20, 4, 6, 6)], [1215120, 1646440, 14420]),
    ("ST", 70, 100, [(120, 10, 15, 15), (40, 4, 5, 5), (20, 4, 3, 3)], [1215120, 1646440, 14420]),
    ("ST", 50, 100, [(120, 8, 15, 15), (40, 3, 5, 5), (20, 3, 3, 3)], [1215120, 1646440, 14420]),
    ("FC_S_large", 70, 224, [(120, 24, 75, 75), (30, 13, 1, 1), (5, 14, 1, 1)], [123600, 81000030, 305]),
    ("FC_S_large", 50, 224, [(120, 17, 75, 75), (30, 9, 1, 1), (5, 10, 1, 1)], [123600, 81000030, 305]),
    ("FC_S_large", 70, 150, [(120, 24, 50, 50), (30, 13, 1, 1), (5, 14, 1, 1)], [123600, 36000030, 305]),
    ("FC_S_large", 150, 128, [(120, 50, 43, 43), (30, 26, 1, 1), (5, 27, 1, 1)], [123600, 26625630, 305]),
    ("FC_S_large", 104, 128, [(120, 35, 43, 43), (30, 18, 1, 1), (5, 19, 1, 1)], [123600, 26625630, 305]),
    ("FC_S", 70, 100, [(120, 35, 50, 50), (30, 18, 1, 1), (5, 19, 1, 1)], [123600, 45000030, 305]),
    ("FC_S", 50, 100, [(120, 25, 50, 50), (30, 13, 1, 1), (5, 14, 1, 1)], [123600, 45000030, 305]),
    ("FC_S_multi", 30, 100, [(120, 8, 20, 20), (30, 4, 1, 1), (5, 5, 1, 1)], [392160, 7200030, 305]),
    ("FC", 70, (100, 200), [(200, 24, 34, 67), (1, 1, 1, 1)], [206000, 10934401]),
]

# (T, H, W): one frame, smaller than every kernel, odd, higher than wide and wider than high, long.
SIZES = [(1, 1, 1), (1, 9, 14), (2, 4, 3), (7, 13, 8), (12, 15, 30), (70, 5, 9)]
TIME_STRIDE = {"ST": 21, "FC_S": 4, "FC_S_large": 6, "FC_S_multi": 8, "FC": 3}


def redraw(f, seed=1, bias=0.1):
    """Weights of a size that keeps maps and gradients at the size of x, biases of size `bias`."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in f.parameters():
            p.normal_(generator=generator).mul_((2 / p[0].numel()) ** 0.5 if p.ndim == 5 else bias)
        if len(f.layers[-1].bias) == 1:
            f.layers[-1].bias.fill_(4)  # a net with one unit at the top would else be dead at every other video
    return f


def video(n, size, seed=2, dtype=torch.float32):
    """White noise (N, 3, T, H, W), channels last."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, *size, 3, generator=generator, dtype=dtype).permute(0, 4, 1, 2, 3)


def net(net_type, size, **kwargs):
    return redraw(descriptor(net_type, size[0], size[1:]), **kwargs)


def error(a, b):
    """The largest difference, relative to b's largest entry."""
    a, b = (torch.as_tensor(v).detach().double() for v in (a, b))
    return ((a - b).abs().max() / b.abs().max()).item()


def norm_error(a, b):
    return ((a - b).double().norm() / b.double().norm()).item()


# ---------------------------------------------------------------------------------------------------- golden numbers


def draw(f, golden):
    """Give f the golden weights; returns synthesised and observed videos, drawn in the files' order."""
    random = np.random.RandomState(int(golden["seed"]))
    with torch.no_grad():
        for p, shape in zip(f.parameters(), golden["var_shapes"], strict=True):
            shape = ast.literal_eval(str(shape))
            values = random.standard_normal(shape)
            values *= np.sqrt(2 / np.prod(shape[:4])) if len(shape) == 5 else 0.1
            values = torch.from_numpy(values.astype(np.float32))
            p.copy_(values.permute(4, 3, 0, 1, 2) if values.ndim == 5 else values)
    t, s = int(golden["T"]), int(golden["S"])
    videos = [random.standard_normal([n, t, s, s, 3]).astype(np.float32) for n in (int(golden["n"]), 1)]
    return [torch.from_numpy(v).permute(0, 4, 1, 2, 3) for v in videos]


def in_tensorflow_order(p):
    return (p.permute(2, 3, 4, 1, 0) if p.ndim == 5 else p).detach().reshape(-1)


@pytest.mark.parametrize("name", ["ST", "ST_100", "FC_S", "FC_S_large"])
def test_values_gradients_and_one_step_of_adam_equal_the_released_program(name, reference):
    golden = reference(f"stgconvnet_{name}.npz")
    f = descriptor(str(golden["net"]), int(golden["T"]), int(golden["S"]))
    J, I = draw(f, golden)

    for gradient in (f.gradient(J), FastGradient(f)(J)):
        gradient = gradient.permute(0, 2, 3, 4, 1).reshape(-1)
        entries = gradient[golden["grad_x_idx"]].double() - torch.from_numpy(golden["grad_x_val"])
        off = entries.abs() / np.abs(golden["grad_x_val"]).max()
        assert off.max() < 1e-5
        assert gradient.double().norm().item() == pytest.approx(golden["grad_x_norm"], rel=1e-5)
        assert gradient.double().sum().item() == pytest.approx(golden["grad_x_sum"], abs=1e-5 * golden["grad_x_norm"])

    f_J, f_I = f.features(J), f.features(I)
    assert error(f_J.permute(0, 2, 3, 4, 1), golden["f_syn"]) < 1e-5
    assert error(f_I.permute(0, 2, 3, 4, 1), golden["f_obs"]) < 1e-5
    gap = f_J.flatten(1).sum(1).mean() - f_I.flatten(1).sum(1).mean()
    assert gap.item() == pytest.approx(golden["loss_map"].sum(dtype=np.float64), rel=1e-4)  # a difference of large sums

    optimizer = Adam(f.parameters(), lr=0.001, beta1=0.5)
    gap.backward()
    for i, p in enumerate(f.parameters()):
        at = golden[f"p{i}_idx"]
        assert torch.equal(in_tensorflow_order(p)[at], torch.from_numpy(golden[f"p{i}_init"])), i
        assert error(in_tensorflow_order(p.grad)[at], golden[f"p{i}_grad"]) < 1e-5, i
        assert p.grad.double().norm().item() == pytest.approx(golden[f"p{i}_grad_norm"], rel=1e-5), i
    optimizer.step()
    for i, p in enumerate(f.parameters()):
        stepped = in_tensorflow_order(p)[golden[f"p{i}_idx"]].numpy()
        assert np.abs(stepped - golden[f"p{i}_adam1"]).max() < 1e-6, i


# ------------------------------------------------------------------------------------------------------- the layers


@pytest.mark.parametrize("axis, out, pads", SAME)
def test_same_padding_is_tensorflows(axis, out, pads):
    size, kernel, stride = axis
    assert same_padding(*axis) == pads
    assert (size + sum(pads) - kernel) // stride + 1 == out


@pytest.mark.parametrize("net_type, frames, side, maps, counts", SHAPES)
def test_maps_and_parameters_are_the_papers(net_type, frames, side, maps, counts):
    with torch.device("meta"):  # shapes without numbers
        f = descriptor(net_type, frames, side)
        x = torch.empty(2, 3, *f.size)
        shapes = []
        for layer in f.layers:
            x = layer(x)
            shapes.append(tuple(x.shape[1:]))
        assert shapes == maps
        assert tuple(f.features(torch.empty(2, 3, *f.size)).shape) == (2, *maps[-1])
        assert tuple(f(torch.empty(2, 3, *f.size)).shape) == (2,)
    assert [sum(p.numel() for p in layer.parameters()) for layer in f.layers] == counts
    table = "\n".join(layer_table(f))
    for map_ in maps:
        assert "x".join(map(str, map_)) in table
    for count in [*counts, sum(counts)]:
        assert f"{count:,}" in table


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize(
    "kind, channels, kernel, stride, time_pad",
    [(Layer, 2, (2, 1, 3), (3, 2, 2), None), (Layer, 6, (2, 1, 3), (3, 2, 2), None),
     (Layer, 3, (4, 4, 6), (1, 3, 1), 1), (Layer, 5, (2, 4, 6), (1, 3, 1), 1),
     (FullPlane, 5, (4, 4, 6), (2, 1, 1), 1), (FullPlane, 5, (4, 4, 6), (2, 1, 1), 2),
     (FullPlane, 5, (3, 4, 6), (3, 1, 1), 0), (FullPlane, 5, (1, 4, 6), (2, 1, 1), 0)],
)
def test_a_layer_of_any_kernel_and_stride_has_its_gradient(kind, channels, kernel, stride, time_pad, wrap):
    layer = kind(channels, 4, kernel, stride, time_pad)
    layer.wrap = wrap
    generator = torch.Generator().manual_seed(0)
    torch.nn.init.normal_(layer.weight, generator=generator)
    for frames in (4, 5, 6, 7):
        x = torch.randn(2, frames, 4, 6, channels, generator=generator).permute(0, 4, 1, 2, 3).requires_grad_()
        y = layer(x)
        assert y.shape[2:] == layer.out_size(x.shape[2:])
        g = torch.randn(y.shape, generator=generator)
        expected = torch.autograd.grad(y, x, g)[0]
        fast = (FastPlane if kind is FullPlane else FastConv)(layer)
        assert error(fast.input_gradient(g, x.shape[2:]), expected) < 1e-5
        if wrap:
            assert error(F.relu(y), circular_features([layer], x)) < 1e-5


def test_state_dict_holds_kernel_and_bias_of_each_layer_in_order():
    values = list(descriptor("FC_S_large", 12, (9, 15)).state_dict().values())
    kernels = [(120, 3, 7, 7, 7), (30, 120, 4, 3, 5), (5, 30, 2, 1, 1)]
    assert [tuple(v.shape) for v in values] == [shape for k in kernels for shape in (k, k[:1])]


def test_f_is_the_sum_of_the_top_map_after_its_relu():
    f, x = net("FC_S", (9, 12, 10)), video(3, (9, 12, 10))
    top = f.features(x)
    assert (top >= 0).all() and (top == 0).any() and (top > 0).any()
    torch.testing.assert_close(f(x), top.sum((1, 2, 3, 4)))


def test_weights_are_drawn_with_std_a_thousandth_and_biases_are_zero():
    f = descriptor("FC_S", 20, 24, torch.Generator().manual_seed(3))
    for layer in f.layers[:2]:
        count = layer.weight.numel()
        assert layer.weight.std().item() == pytest.approx(0.001, rel=4 / (2 * count) ** 0.5)
        assert abs(layer.weight.mean().item()) < 4 * 0.001 / count**0.5
    assert all((layer.bias == 0).all() for layer in f.layers)
    again = descriptor("FC_S", 20, (24, 24), torch.Generator().manual_seed(3))
    other = descriptor("FC_S", 20, 24, torch.Generator().manual_seed(4))
    assert all(torch.equal(a, b) for a, b in zip(f.parameters(), again.parameters(), strict=True))
    assert not torch.equal(f.layers[0].weight, other.layers[0].weight)


def test_unknown_net_is_an_error_that_lists_the_nets():
    with pytest.raises(ValueError) as caught:
        descriptor("FC_L", 70, 224)
    assert all(name in str(caught.value) for name in ("FC_L", *NETS))


@pytest.mark.parametrize("net_type", NETS)
def test_the_smallest_size_works_and_a_smaller_one_is_an_error_that_names_it(net_type):
    assert descriptor(net_type, 1, 1).features(video(1, (1, 1, 1))).numel() > 0
    for frames, side in ((0, 8), (8, 0), (8, (8, 0)), (-3, 8)):
        with pytest.raises(ValueError, match=r"1 frame of 1x1 pixels"):
            descriptor(net_type, frames, side)


# ------------------------------------------------------------------------------------- the gradient and the fast path


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("net_type", NETS)
def test_fast_path_equals_the_librarys_convolution_and_autograd(net_type, size):
    f = net(net_type, size)
    for n in (1, 3):
        x = video(n, size)
        assert error(f.features(x), plain_features(f, x)) < 1e-5
        g = FastGradient(f)(x)
        assert g.shape == x.shape and g.dtype == torch.float32
        assert plain_gradient(f, x).abs().max() > 0
        assert error(g, plain_gradient(f, x)) < 1e-5
        assert error(f.gradient(x), plain_gradient(f, x)) < 1e-5


@pytest.mark.parametrize("net_type", NETS)
def test_gradient_equals_plain_on_a_larger_video_in_any_memory_order(net_type):
    size = (33, 47, 52)
    f, x = net(net_type, size), video(2, size)
    plain, gradient = plain_gradient(f, x), FastGradient(f)
    assert error(gradient(x), plain) < 1e-5
    assert error(gradient(x.contiguous()), plain) < 1e-5
    assert error(torch.cat([gradient(x[:1]), gradient(x[1:])]), plain) < 1e-5


@pytest.mark.parametrize("net_type", NETS)
def test_parameter_gradients_of_the_fast_path_equal_the_librarys(net_type):
    size = (14, 11, 16)
    f, x = net(net_type, size), video(3, size)
    fast = torch.autograd.grad(f(x).mean(), list(f.parameters()))
    plain = torch.autograd.grad(plain_features(f, x).flatten(1).sum(1).mean(), list(f.parameters()))
    for ours, theirs in zip(fast, plain, strict=True):
        assert error(ours, theirs) < 1e-5


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("net_type", NETS)
def test_gradient_equals_finite_differences_in_float64(net_type, wrap):
    size = (2 * TIME_STRIDE[net_type], 8, 11)
    f = net(net_type, size).double().wrap_time(wrap)
    x = video(1, size, dtype=torch.float64)
    g = FastGradient(f)(x).double()
    entries = torch.randperm(x.numel(), generator=torch.Generator().manual_seed(5))[:24]
    directions = [F.one_hot(e, x.numel()).view_as(x).double() for e in entries] + [video(1, size, 6, x.dtype)]
    step, close = 1e-7, []
    with torch.no_grad():
        for d in directions:
            difference = (f(x + step * d) - f(x - step * d)) / (2 * step)
            close.append((difference - (g * d).sum()).abs() <= 1e-5 * g.abs().max() * d.norm())
    assert sum(close) >= len(close) - 1  # a unit may change sides within the step
    assert close[-1]


@pytest.mark.parametrize("net_type", NETS)
def test_float32_gradient_equals_float64s(net_type):
    size = (25, 14, 11)
    f, x = net(net_type, size), video(2, size)
    exact = plain_gradient(copy.deepcopy(f).double(), x.double())
    assert error(FastGradient(f)(x), exact) < 1e-5


@pytest.mark.parametrize("precision", ["plain", "fp32", "bf16"])
def test_gradient_computes_no_parameter_gradient_builds_no_graph_and_leaves_the_video_alone(precision):
    size = (9, 12, 10)
    f, x = net("FC_S_large", size), video(2, size)
    gradient, before = f.gradient if precision == "plain" else FastGradient(f, precision), x.clone()
    with torch.enable_grad():
        g = gradient(x)
    assert not g.requires_grad and g.grad_fn is None
    assert all(p.grad is None for p in f.parameters())
    assert torch.equal(x, before)
    assert g.data_ptr() != x.data_ptr()


def clear_of_kinks(f):
    """Biases that outweigh what the layer below sends: every other unit is on, the rest are off, none is close."""
    with torch.no_grad():
        for k, layer in enumerate(f.layers, start=1):
            layer.bias.fill_(10**k)
            layer.bias[1::2] *= -1
    return f


@pytest.mark.parametrize("net_type", NETS)
def test_bfloat16_gradient_is_within_a_percent(net_type):
    size = (24, 17, 12)
    f, x = clear_of_kinks(net(net_type, size)), video(2, size)
    exact = plain_gradient(f, x)
    rough = FastGradient(f, "bf16")(x)
    assert rough.dtype == torch.float32
    assert 1e-4 < norm_error(rough, exact) < 0.01  # not 0: the products are in bfloat16


@pytest.mark.parametrize("precision, limit", [("fp32", 1e-5), ("bf16", 0.01)])
@pytest.mark.parametrize("net_type", ["ST", "FC_S_large"])
def test_gradient_follows_the_weights(net_type, precision, limit):
    size = (12, 11, 10)
    f, x = clear_of_kinks(net(net_type, size)), video(2, size)
    gradient = FastGradient(f, precision)
    other = clear_of_kinks(net(net_type, size, seed=9))
    optimizer = Adam(f.parameters(), lr=0.005, beta1=0.5)

    def step():
        optimizer.zero_grad()
        (-f(x).mean()).backward()
        optimizer.step()

    def write():
        with torch.no_grad():
            f.layers[0].weight.mul_(-0.5)

    for change in (step, step, lambda: f.load_state_dict(other.state_dict()), write):
        before = gradient(x)
        change()
        exact = plain_gradient(f, x)
        assert norm_error(before, exact) > 0.1, change  # the change matters
        assert norm_error(gradient(x), exact) < limit, change


# -------------------------------------------------------------------------------------------------- time as a circle


def circular_features(layers, x):
    """`features` with time as a circle, by the library: frames picked modulo T."""
    for layer in layers:
        (before, after), *plane = layer.padding(x.shape[2:])
        frames = x.shape[2]
        x = x[:, :, torch.arange(-before, frames + after) % frames]
        x = F.pad(x, [edge for pad in reversed(plane) for edge in pad])
        x = F.relu(F.conv3d(x, layer.weight, layer.bias, layer.stride))
    return x


@pytest.mark.parametrize("net_type", NETS)
def test_on_a_circle_the_gradient_equals_autograd(net_type):
    for frames in (2 * TIME_STRIDE[net_type], 2 * TIME_STRIDE[net_type] + 5):
        size = (frames, 9, 12)
        f, x = net(net_type, size).wrap_time(), video(2, size)
        assert error(f.features(x), circular_features(f.layers, x)) < 1e-5
        leaf = x.clone().requires_grad_()
        plain = torch.autograd.grad(circular_features(f.layers, leaf).sum(), leaf)[0]
        assert error(FastGradient(f)(x), plain) < 1e-5
        assert error(f.gradient(x), plain) < 1e-5


@pytest.mark.parametrize("net_type", NETS)
def test_only_on_a_circle_a_roll_by_the_strides_leaves_f_and_rolls_the_gradient(net_type):
    stride = TIME_STRIDE[net_type]
    size = (4 * stride, 9, 12)
    f, x = net(net_type, size), video(2, size)
    rolled, gradient = x.roll(stride, dims=2), FastGradient(f)
    f.wrap_time()
    assert error(f(rolled), f(x)) < 1e-5
    assert error(gradient(rolled), gradient(x).roll(stride, dims=2)) < 1e-5
    if stride > 1:
        assert error(f(x.roll(1, dims=2)), f(x)) > 1e-3
    f.wrap_time(False)
    assert error(f(rolled), f(x)) > 1e-3
    assert error(gradient(x), plain_gradient(f, x)) < 1e-5


def test_the_circle_reaches_the_low_precision_copy():
    size = (12, 9, 12)
    f, x = clear_of_kinks(net("FC_S_large", size)), video(2, size)
    low, line, circle = FastGradient(f, "bf16"), f.gradient(x), f.wrap_time().gradient(x)
    assert norm_error(line, circle) > 0.05
    assert norm_error(low(x), circle) < 0.01
    f.wrap_time(False)
    assert norm_error(low(x), line) < 0.01


def by(f, forward, backward, precision="fp32"):
    """f's gradient with its convolutions on these routes; the ones of many channels have no columns."""
    gradient = FastGradient(f, precision)
    for fast in gradient.fast:
        if isinstance(fast, FastConv):
            back = Direct if fast.layer.weight.shape[1] > 4 and backward is Columns else backward
            fast.choose = lambda layer, size, back=back: (forward, back)
    return gradient


@pytest.mark.parametrize("forward, backward", [(Direct, Direct), (Direct, Blocks), (Blocks, Columns)])
@pytest.mark.parametrize("net_type, size", [("ST", (16, 23, 30)), ("FC_S_large", (13, 17, 20)), ("FC", (9, 8, 16))])
def test_every_route_is_the_same_gradient(net_type, size, forward, backward):
    f, x = clear_of_kinks(net(net_type, size)).double(), video(2, size).double()
    assert error(by(f, forward, backward)(x), plain_gradient(f, x)) < 1e-6  # columns are added in float32


def test_blocks_have_no_position_more_than_the_sums():
    """Of 9 + 2 frames a kernel of 4 at stride 2 leaves one over, which fills up a block."""
    layer, x = Layer(3, 5, (4, 4, 4), (2, 2, 2), time_pad=1), video(2, (9, 9, 11))
    nn.init.normal_(layer.weight)
    with torch.no_grad():
        exact = layer(x)
    assert norm_error(FastConv(layer, lambda layer, size: (Blocks, Blocks)).forward(x), exact) < 1e-6


@pytest.mark.usefixtures("gpu")
def test_a_gpu_takes_blocks_in_bfloat16_for_few_channels_or_large_kernels_and_else_the_librarys_way():
    size = (24, 17, 12)
    for net_type, expected in {"ST": [Blocks, Blocks, Direct], "FC_S": [Blocks, Direct]}.items():
        f = net(net_type, size).cuda()
        low = [layer for layer in FastGradient(f, "bf16").layers if type(layer) is Layer]
        assert [choose(layer, size) for layer in low] == [(route, route) for route in expected]
        assert {choose(layer, size) for layer in f.layers if type(layer) is Layer} == {(Direct, Direct)}


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("net_type", NETS)
def test_a_gpu_fills_blocks_up_with_ones_that_bring_the_bias(net_type):
    size = (24, 17, 12)
    f, x = net(net_type, size), video(2, size)
    nn.init.normal_(f.layers[0].bias, std=100)
    exact = f.layers[0](x)
    low = FastGradient(f.cuda(), "bf16").fast[0]
    assert low.up_to_date(Blocks)[0].shape[1] % 32 == 0
    assert norm_error(low.forward(x.cuda()).float().cpu(), exact) < 0.01


def test_kernels_of_a_route_are_remade_in_their_place():
    size = (12, 11, 10)
    f, x = clear_of_kinks(net("ST", size)), video(1, size)
    gradient = by(f, Blocks, Columns)
    gradient(x)
    first = gradient.fast[0]
    before = [kernel.data_ptr() for route in (Blocks, Columns) for kernel in first.up_to_date(route)]
    with torch.no_grad():
        f.layers[0].weight.mul_(2)
    gradient.renew()
    assert before == [kernel.data_ptr() for route in (Blocks, Columns) for kernel in first.up_to_date(route)]
    assert error(gradient(x), plain_gradient(f, x)) < 1e-5


@pytest.mark.parametrize("matrix_units, routes", [(True, (Blocks, Blocks)), (False, (Direct, Columns))])
@pytest.mark.parametrize("net_type", NETS)
def test_bfloat16_takes_blocks_where_a_cpu_has_matrix_units(net_type, matrix_units, routes, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": matrix_units})
    size = (24, 17, 12)
    f, x = clear_of_kinks(net(net_type, size)), video(2, size)
    gradient = FastGradient(f, "bf16")
    low = gradient.layers
    assert choose(low[0], size) == routes
    if net_type == "ST":
        below = low[0].out_size(size)
        assert choose(low[1], below) == (Direct, Blocks if matrix_units else Direct)
        assert choose(f.layers[1], below) == (Frames, Direct)
    assert Winograd in choose(f.layers[0], size)  # float32 goes its own way
    assert norm_error(gradient(x), plain_gradient(f, x)) < 0.01


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("precision, limit", [("fp32", 1e-5), ("bf16", 0.01)])
@pytest.mark.parametrize("net_type", NETS)
def test_a_gpu_computes_the_same_gradient(net_type, precision, limit):
    size = (24, 17, 12)
    f, x = clear_of_kinks(net(net_type, size)), video(2, size)
    exact = plain_gradient(f, x)
    prepare(torch.device("cuda"))
    assert norm_error(FastGradient(f.cuda(), precision)(x.cuda()).cpu(), exact) < limit


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("precision, limit", [("fp32", 1e-5), ("bf16", 1e-3)])
@pytest.mark.parametrize("forward, backward", [(Direct, Direct), (Direct, Blocks), (Blocks, Columns)])
def test_a_cuda_graph_of_a_chain_follows_the_weights(forward, backward, precision, limit):
    size = (24, 17, 12)
    prepare(torch.device("cuda"))
    f, x = clear_of_kinks(net("FC_S_large", size)).cuda(), video(2, size).cuda()
    gradient, adam = by(f, forward, backward, precision), Adam(f.parameters(), 0.01, 0.5)

    def noise():
        return [torch.Generator("cuda").manual_seed(seed) for seed in (1, 2)]

    gradient.renew()
    graph = LangevinGraph(x, gradient, 3, 0.3, noise())
    before = graph(x, 0.3, noise())
    f(x).sum().backward()
    adam.step()
    gradient.renew()
    after = graph(x, 0.3, noise())
    assert norm_error(after, langevin(x, gradient, 3, 0.3, noise())) < limit < norm_error(after, before)
