"""Minimal filtering against the library's convolution, its autograd, and the count of products."""

import copy
import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tools import circular_features, error, net, norm_error, video

from fast import winograd
from fast.routes import Columns, Direct, FastConv, Winograd, choose
from model import NETS, Layer

GEOMETRIES = {name: (c_out, kernel, stride) for name, ((c_out, kernel, stride, _), *_) in NETS.items()}
GEOMETRIES |= {"a tap or none": (4, (2, 1, 3), (3, 2, 2)), "stride 1": (4, (4, 4, 6), (1, 3, 1)),
               "equal phases": (5, (6, 4, 2), (2, 4, 2))}
SIZES = [(1, 1, 1), (4, 8, 14), (23, 31, 17)]  # one position, tiles that stick out, several tiles


def layer_of(name, dtype=torch.float64, wrap=False):
    """The convolution of a first layer, its two routes set to Winograd."""
    c_out, kernel, stride = GEOMETRIES[name]
    layer = Layer(3, c_out, kernel, stride, kernel[0] // 2 if wrap else None).to(dtype)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in layer.parameters():
            p.normal_(generator=generator)
    layer.wrap = wrap
    return FastConv(layer, lambda layer, size: (Winograd, Winograd))


def tiles_of(fast, size):
    return fast.route(Winograd).tiles(size)


def product_rounding():
    """What float32 loses in matrix products (relative norm): processors add up in different orders."""
    a, b = (noise_like(torch.empty(shape, dtype=torch.float64)) for shape in ((4, 150, 1029), (4, 1029, 120)))
    return norm_error(a.float() @ b.float(), a @ b)


def noise_like(y, seed=7):
    return torch.randn(y.shape, generator=torch.Generator().manual_seed(seed), dtype=y.dtype)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_forward_and_input_gradient_equal_the_librarys(name, size):
    fast, x = layer_of(name), video(2, size, dtype=torch.float64).requires_grad_()
    plain = fast.layer(x)
    g = noise_like(plain)
    plain_gradient = torch.autograd.grad(plain, x, g)[0]
    single = FastConv(copy.deepcopy(fast.layer).float(), fast.choose)
    limit = 12 * product_rounding()  # 3e-6 where these add 192 terms at a time
    assert error(fast.forward(x), plain) < 1e-12
    assert error(fast.input_gradient(g, size), plain_gradient) < 1e-12
    assert norm_error(single.forward(x.float()), plain) < limit
    assert norm_error(single.input_gradient(g.float(), size), plain_gradient) < limit


@pytest.mark.parametrize("name", ["ST", "FC_S", "FC_S_large"])
def test_time_may_be_a_circle(name):
    size = (4 * GEOMETRIES[name][2][0], 19, 20)
    fast, x = layer_of(name, wrap=True), video(2, size, dtype=torch.float64).requires_grad_()
    plain = circular_features([fast.layer], x)
    g = noise_like(plain)
    assert error(fast.forward(x).relu(), plain) < 1e-12
    through = fast.input_gradient(g * (plain > 0), size)
    assert error(through, torch.autograd.grad(plain, x, g)[0]) < 1e-12


@torch.no_grad()
def test_blocks_of_padding_alone_at_the_ends_are_left_out():
    line = layer_of("ST")
    assert tiles_of(line, (70, 100, 100)).in_size == [11 * 7, 16 * 7, 16 * 7]  # of 12, 17 and 17 blocks that tiles see
    circle = layer_of("ST", wrap=True)  # frames of the other end stand where the padding was, which the last tiles see
    assert tiles_of(circle, (70, 100, 100)).in_size[0] == 12 * 7


@pytest.mark.parametrize("name", NETS)
def test_a_tile_takes_as_few_products_as_there_can_be(name):
    fast = layer_of(name)
    layer, kernels = fast.layer, fast.up_to_date(Winograd)
    with torch.no_grad():
        tiles = tiles_of(fast, layer.kernel)
    assert len(tiles.axes) == (3 if name == "ST" else 2)
    assert all(axis.m > 1 for axis in tiles.axes)
    along = [(axis.m - 1) * s + k for axis, k, s in zip(tiles.axes, layer.kernel, layer.stride)]
    products = math.prod(along) * math.prod(layer.kernel[len(along) :]) * layer.weight[:, :, 0, 0, 0].numel()
    rows = sum(kernel.any(2).sum().item() for kernel in kernels)  # others only fill up
    assert rows * tiles.c_out == products


@pytest.mark.parametrize("name", ["ST", "FC_S"])
def test_blocks_of_any_size_side_by_side_or_in_turn_give_the_same(name, monkeypatch):
    fast = layer_of(name)
    size = [5 * s + 1 for s in fast.layer.stride]
    x = video(2, size, dtype=torch.float64)
    g = noise_like(torch.empty(2, 120, *fast.layer.out_size(size), dtype=torch.float64))
    whole = fast.forward(x), fast.input_gradient(g, size)
    monkeypatch.setattr(winograd, "THREADS", ThreadPoolExecutor(2))
    for entries in (1, 3 * 36 * 8 * 120, 2**22):
        for threads in (1, 2):
            monkeypatch.setattr(winograd, "CACHE_ENTRIES", entries)
            monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
            for ours, theirs in zip((fast.forward(x), fast.input_gradient(g, size)), whole):
                assert error(ours, theirs) < 1e-13


@pytest.mark.parametrize("name", list(GEOMETRIES))
@pytest.mark.parametrize("entries", [1, 2**20, 2**22])
def test_blocks_of_a_group_are_of_tiles_of_their_own_and_see_no_input_in_common(name, entries, monkeypatch):
    monkeypatch.setattr(winograd, "CACHE_ENTRIES", entries)
    fast = layer_of(name)
    layer = fast.layer
    with torch.no_grad():
        tiles = tiles_of(fast, [n * s - 1 for n, s in zip((40, 37, 11), layer.stride)])
    seen = torch.zeros(1, *(n // s for n, s in zip(tiles.in_size, layer.stride)))
    filled = torch.zeros(1, *tiles.out_size, tiles.c_out)
    for group in tiles.groups(3):
        seen.zero_()
        for block in group:
            tiles.seen(seen, block).add_(1)
            tiles.by_tile(filled, block).add_(1)
        assert seen.max() <= 1
    assert filled.min() == filled.max() == 1


def test_it_is_the_route_of_first_layers_in_float32():
    size = (24, 30, 30)
    for name in NETS:
        f = net(name, size)
        first = f.layers[0]
        assert choose(first, size) == (Winograd if name == "ST" else Direct, Winograd)
        assert choose(first, (1, 9, 14)) == (Direct, Columns)  # most of a tile would be for nothing
    assert choose(Layer(3, 4, (5, 3, 3), (1, 1, 1)), size) == (Direct, Columns)  # five taps


def test_it_is_taken_where_it_saves_products():
    kernel, stride = (7, 7, 7), (3, 3, 3)  # a tile of 5 x 3 outputs takes 7 * 5 products along time and height
    assert winograd.saves(kernel, stride, (5, 3, 1))
    assert winograd.saves(kernel, stride, (2, 2, 9))  # against 6 * 6
    assert not winograd.saves(kernel, stride, (1, 3, 9))  # against 3 * 9
    assert not winograd.saves((5, 7, 7), (1, 3, 3), (5, 3, 9))  # five taps
