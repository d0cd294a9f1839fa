"""Code for GPUs: on one, or on one that is pretended where there is none."""

import queue

import pytest
import torch
from tools import by, clear_of_kinks, generators, net, norm_error, video

import bench
from bench import plain_gradient
from fast.device import prepare
from fast.gradient import FastGradient
from fast.graph import LangevinGraph
from fast.routes import Blocks, Columns, Direct, choose
from langevin import langevin
from model import NETS, Layer
from run.adam import Adam

pytestmark = pytest.mark.usefixtures("gpu")
SIZE = (24, 17, 12)


def test_a_gpu_takes_blocks_in_bfloat16_for_few_channels_or_large_kernels_and_else_the_librarys_way():
    for net_type, expected in {"ST": [Blocks, Blocks, Direct], "FC_S": [Blocks, Direct]}.items():
        f = net(net_type, SIZE).cuda()
        gradient = FastGradient(f, "bf16")
        low = [layer for layer in gradient.layers if type(layer) is Layer]
        assert gradient.fast[0].up_to_date(Blocks)[0].shape[1] % 32 == 0  # filled up with ones that bring the bias
        assert [choose(layer, SIZE) for layer in low] == [(route, route) for route in expected]
        assert {choose(layer, SIZE) for layer in f.layers if type(layer) is Layer} == {(Direct, Direct)}


@pytest.mark.parametrize("precision, limit", [("fp32", 1e-5), ("bf16", 0.01)])
@pytest.mark.parametrize("net_type", NETS)
def test_a_gpu_computes_the_same_gradient(net_type, precision, limit):
    f, x = clear_of_kinks(net(net_type, SIZE)), video(2, SIZE)
    exact = plain_gradient(f, x)
    prepare(torch.device("cuda"))
    assert norm_error(FastGradient(f.cuda(), precision)(x.cuda()).cpu(), exact) < limit


@pytest.mark.parametrize("precision, limit", [("fp32", 1e-5), ("bf16", 1e-3)])
@pytest.mark.parametrize("forward, backward", [(Direct, Direct), (Direct, Blocks), (Blocks, Columns)])
def test_a_cuda_graph_of_a_chain_follows_the_weights(forward, backward, precision, limit):
    prepare(torch.device("cuda"))
    f, x = clear_of_kinks(net("FC_S_large", SIZE)).cuda(), video(2, SIZE).cuda()
    gradient, adam = by(f, forward, backward, precision), Adam(f.parameters(), 0.01, 0.5)
    seeds = (2, 1, "cuda")
    gradient.renew()
    graph = LangevinGraph(x, gradient, 3, 0.3, generators(*seeds))
    before = graph(x, 0.3, generators(*seeds))
    f(x).sum().backward()
    adam.step()
    gradient.renew()
    after, expected = graph(x, 0.3, generators(*seeds)), langevin(x, gradient, 3, 0.3, generators(*seeds))
    assert norm_error(after, expected) < limit < norm_error(after, before)


def test_a_cuda_graph_is_the_same_chain():
    x, mode = video(2, (4, 5, 6), seed=1).cuda(), video(1, (4, 5, 6)).cuda()
    free = torch.zeros(2, 1, 4, 5, 6, dtype=torch.bool, device="cuda")
    free[:, :, 1:3] = True

    for mask in (None, free):
        graph = LangevinGraph(x, lambda x: mode - x, 5, 0.3, generators(2, 1, "cuda"), mask)
        for start, delta, seed, change in ((x, 0.3, 3, 0), (x + 1, 0.1, 5, 0), (x, 0.3, 3, 1)):
            mode.add_(change)  # what the score reads, in its place
            expected = langevin(start, lambda x: mode - x, 5, delta, generators(2, seed, "cuda"), mask)
            assert torch.equal(graph(start, delta, generators(2, seed, "cuda"), mask), expected)


def test_a_gpu_is_measured_by_its_graphs(monkeypatch, capsys):
    monkeypatch.setitem(bench.NETS, "FC_S_large", 16)
    monkeypatch.setattr(bench, "product_rate", lambda dtype, device: 100.0)
    monkeypatch.setattr(bench, "CHAIN", 2)
    rows = queue.Queue()
    bench.measure("FC_S_large", "cuda", rounds=1, chains=2, profile=False, queue=rows)
    bench.print_table(rows.get())
    assert "ours fp32" in capsys.readouterr().out
