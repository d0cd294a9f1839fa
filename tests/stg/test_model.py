"""The descriptor nets: golden numbers, analytic shapes, padding."""

import ast

import numpy as np
import pytest
import torch
from tools import error, net, video

from bench import plain_features
from fast.gradient import FastGradient
from model import NETS, descriptor, layer_table, same_padding
from run.adam import Adam

# From the paper's and the released nets: (size, kernel, stride), output, (zeros before, zeros after).
SAME = [((224, 7, 3), 75, (2, 3)), ((70, 7, 3), 24, (3, 3)), ((100, 7, 2), 50, (2, 3)), ((70, 7, 2), 35, (2, 3)),
        ((224, 15, 7), 32, (4, 4)), ((100, 15, 7), 15, (6, 7)), ((70, 15, 7), 10, (4, 4)), ((32, 7, 3), 11, (2, 3)),
        ((15, 7, 3), 5, (2, 2)), ((10, 7, 3), 4, (3, 3)), ((11, 3, 2), 6, (1, 1)), ((5, 3, 2), 3, (1, 1)),
        ((4, 2, 1), 4, (0, 1)), ((100, 11, 5), 20, (3, 3)), ((30, 9, 4), 8, (3, 4)), ((200, 7, 3), 67, (2, 3))]
# Net, frames, side: the maps (C, T, H, W) after each layer and each layer's parameters.
SHAPES = [
    ("ST", 70, 224, [(120, 10, 32, 32), (40, 4, 11, 11), (20, 4, 6, 6)], [1215120, 1646440, 14420]),
    ("ST", 50, 100, [(120, 8, 15, 15), (40, 3, 5, 5), (20, 3, 3, 3)], [1215120, 1646440, 14420]),
    ("FC_S_large", 70, 224, [(120, 24, 75, 75), (30, 13, 1, 1), (5, 14, 1, 1)], [123600, 81000030, 305]),
    ("FC_S_large", 150, 128, [(120, 50, 43, 43), (30, 26, 1, 1), (5, 27, 1, 1)], [123600, 26625630, 305]),
    ("FC_S", 70, 100, [(120, 35, 50, 50), (30, 18, 1, 1), (5, 19, 1, 1)], [123600, 45000030, 305]),
    ("FC_S_multi", 30, 100, [(120, 8, 20, 20), (30, 4, 1, 1), (5, 5, 1, 1)], [392160, 7200030, 305]),
    ("FC", 70, (100, 200), [(200, 24, 34, 67), (1, 1, 1, 1)], [206000, 10934401]),
]


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


def test_same_padding_is_tensorflows():
    for (size, kernel, stride), out, pads in SAME:
        assert same_padding(size, kernel, stride) == pads
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


@pytest.mark.parametrize("net_type", NETS)
def test_the_smallest_size_works_and_a_smaller_one_is_an_error_that_names_it(net_type):
    assert descriptor(net_type, 1, 1).features(video(1, (1, 1, 1))).numel() > 0
    for frames, side in ((0, 8), (8, 0), (8, (8, 0)), (-3, 8)):
        with pytest.raises(ValueError, match=r"1 frame of 1x1 pixels"):
            descriptor(net_type, frames, side)
    with pytest.raises(ValueError, match=f"FC_L.*{net_type}"):
        descriptor("FC_L", 70, 224)


@pytest.mark.parametrize("net_type", NETS)
def test_parameter_gradients_of_the_fast_path_equal_the_librarys(net_type):
    size = (14, 11, 16)
    f, x = net(net_type, size), video(3, size)
    fast = torch.autograd.grad(f(x).mean(), list(f.parameters()))
    plain = torch.autograd.grad(plain_features(f, x).flatten(1).sum(1).mean(), list(f.parameters()))
    for ours, theirs in zip(fast, plain, strict=True):
        assert error(ours, theirs) < 1e-5
