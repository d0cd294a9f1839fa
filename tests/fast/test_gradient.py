"""The fast gradient against the library's convolution, autograd and finite differences, on every route."""

import pytest
import torch
import torch.nn.functional as F
from tools import TIME_STRIDE, by, circular_features, clear_of_kinks, error, net, norm_error, video
from torch import nn

from bench import plain_features, plain_gradient
from fast.gradient import FastGradient
from fast.routes import Blocks, Columns, Direct, FastConv, FastPlane, Winograd, choose
from model import NETS, FullPlane, Layer
from run.adam import Adam

# (T, H, W): one frame, smaller than every kernel, odd, higher than wide and wider than high, several tiles.
SIZES = [(1, 1, 1), (1, 9, 14), (2, 4, 3), (7, 13, 8), (12, 15, 30), (23, 33, 40)]


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
    nn.init.normal_(layer.weight, generator=generator)
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


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("net_type", NETS)
def test_fast_path_equals_the_librarys_convolution_and_autograd(net_type, size):
    f, x = net(net_type, size), video(2, size)
    gradient, plain, before = FastGradient(f), plain_gradient(f, x), x.clone()
    assert error(f.features(x), plain_features(f, x)) < 1e-5
    with torch.enable_grad():
        for g in (gradient(x), gradient(x.contiguous()), torch.cat([gradient(x[:1]), gradient(x[1:])]), f.gradient(x)):
            assert plain.abs().max() > 0 and error(g, plain) < 1e-5
            assert g.dtype == torch.float32 and not g.requires_grad
    assert all(p.grad is None for p in f.parameters()) and torch.equal(x, before)


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("net_type", NETS)
def test_gradient_equals_finite_differences_in_float64(net_type, wrap):
    size = (2 * TIME_STRIDE[net_type], 8, 11)
    f = net(net_type, size).double().wrap_time(wrap)
    x = video(1, size, dtype=torch.float64)
    g = FastGradient(f)(x).double()
    entries = torch.randperm(x.numel(), generator=torch.Generator().manual_seed(5))[:6]
    directions = [F.one_hot(e, x.numel()).view_as(x).double() for e in entries] + [video(1, size, 6, x.dtype)]
    step, close = 1e-7, []
    with torch.no_grad():
        for d in directions:
            difference = (f(x + step * d) - f(x - step * d)) / (2 * step)
            close.append((difference - (g * d).sum()).abs() <= 1e-5 * g.abs().max() * d.norm())
    assert sum(close) >= len(close) - 1  # a unit may change sides within the step
    assert close[-1]


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


@pytest.mark.parametrize("net_type", NETS)
def test_on_a_circle_the_gradient_equals_autograd_and_on_a_line_again(net_type):
    """Also that of the copy in low precision."""
    for frames in (2 * TIME_STRIDE[net_type], 2 * TIME_STRIDE[net_type] + 5):
        size = (frames, 9, 12)
        f, x = net(net_type, size).wrap_time(), video(2, size)
        gradient = FastGradient(f)
        assert error(f.features(x), circular_features(f.layers, x)) < 1e-5
        leaf = x.clone().requires_grad_()
        circle = torch.autograd.grad(circular_features(f.layers, leaf).sum(), leaf)[0]
        assert error(gradient(x), circle) < 1e-5
        assert error(f.gradient(x), circle) < 1e-5
        f.wrap_time(False)
        assert error(gradient(x), plain_gradient(f, x)) < 1e-5 < error(circle, plain_gradient(f, x))
    low, line = FastGradient(clear_of_kinks(f), "bf16"), f.gradient(x)
    assert norm_error(low(x), line) < 0.01
    circle = f.wrap_time().gradient(x)
    assert norm_error(low(x), circle) < 0.01 < norm_error(line, circle)


@pytest.mark.parametrize("net_type", NETS)
def test_on_a_circle_a_roll_by_the_strides_leaves_f(net_type):
    stride = TIME_STRIDE[net_type]
    f, x = net(net_type, (4 * stride, 9, 12)).wrap_time(), video(2, (4 * stride, 9, 12))
    assert error(f(x.roll(stride, dims=2)), f(x)) < 1e-5
    assert error(f(x.roll(1, dims=2)), f(x)) > 1e-3


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


@pytest.mark.parametrize("routes", [(Blocks, Columns), (Winograd, Winograd)])
def test_kernels_of_a_route_are_remade_in_their_place(routes):
    """Where a CUDA graph looks for them."""
    layer, x = net("ST", (12, 11, 10)).layers[0], video(1, (12, 11, 10)).requires_grad_()
    fast = FastConv(layer, lambda layer, size: routes)
    places = []
    for factor in (1, -2):
        with torch.no_grad():
            layer.weight.mul_(factor)
        fast.renew()
        plain = layer(x)
        assert norm_error(fast.forward(x), plain) < 1e-5
        g = torch.ones_like(plain)
        assert norm_error(fast.input_gradient(g, x.shape[2:]), torch.autograd.grad(plain, x, g)[0]) < 1e-5
        places.append([kernel.data_ptr() for route in routes for kernel in fast.up_to_date(route)])
    assert places[0] == places[1]


@pytest.mark.parametrize("matrix_units, routes", [(True, (Blocks, Blocks)), (False, (Direct, Columns))])
@pytest.mark.parametrize("net_type", NETS)
def test_bfloat16_is_within_a_percent_by_blocks_where_a_cpu_has_matrix_units(
    net_type, matrix_units, routes, monkeypatch
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": matrix_units})
    size = (24, 17, 12)
    f, x = clear_of_kinks(net(net_type, size)), video(2, size)
    gradient = FastGradient(f, "bf16")
    low = gradient.layers
    assert choose(low[0], size) == routes
    if net_type == "ST":
        below = low[0].out_size(size)
        assert choose(low[1], below) == (Direct, Blocks if matrix_units else Direct)
        assert choose(f.layers[1], below) == (Direct, Direct)
    assert Winograd in choose(f.layers[0], size)  # float32 goes its own way
    rough = gradient(x)
    assert rough.dtype == torch.float32
    assert 1e-4 < norm_error(rough, plain_gradient(f, x)) < 0.01  # not 0: the products are in bfloat16
