"""TensorFlow's Adam, and the rate that falls."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import utils
from run.adam import Adam, learning_rate


def adam_steps(optimizer_of, start, gradients):
    p = torch.nn.Parameter(start.clone())
    optimizer = optimizer_of([p])
    for g in gradients:
        p.grad = g.clone()
        optimizer.step()
    return p.detach()


def tensorflows_adam(start, gradients, lr=0.001, beta1=0.5, beta2=0.999, eps=1e-8):
    p, m, v = start.double(), 0.0, 0.0
    for t, g in enumerate((g.double() for g in gradients), start=1):
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        p = p - lr * (1 - beta2**t) ** 0.5 / (1 - beta1**t) * m / (v**0.5 + eps)
    return p


def test_adam_is_tensorflows_whose_epsilon_counts_for_tiny_gradients():
    generator = torch.Generator().manual_seed(0)
    for scale in (1e-9, 1e-7, 1e-4, 1.0, 1e4):
        start, gradients = torch.zeros(50), torch.randn(6, 50, generator=generator) * scale
        ours = adam_steps(lambda p: Adam(p, lr=0.001, beta1=0.5), start, gradients)
        theirs = adam_steps(lambda p: torch.optim.Adam(p, lr=0.001, betas=(0.5, 0.999)), start, gradients)
        exact = tensorflows_adam(start, gradients)
        assert (ours - exact).abs().max() < 1e-5 * exact.abs().max()
        if scale > 1:
            assert (ours - theirs).abs().max() < 1e-5 * exact.abs().max()
        if scale <= 1e-7:
            assert (theirs - exact).abs().max() > 0.1 * exact.abs().max()


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last_3d])
def test_adam_goes_on_from_its_saved_state_whatever_order_the_weights_are_in(order):
    size = (4, 5, 2, 3, 2)
    gradients = torch.randn(5, *size, generator=torch.Generator().manual_seed(0)) * 1e-7
    p = torch.nn.Parameter(torch.zeros(size))
    q = torch.nn.Parameter(torch.zeros(size).to(memory_format=order))
    first = Adam([p], 0.01, 0.5)
    for g in gradients[:3]:
        p.grad = g.clone()
        first.step()
    second = Adam([q], 0.01, 0.5)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    with torch.no_grad():
        q.copy_(p)
    for g in gradients[3:]:
        for parameter, optimizer in ((p, first), (q, second)):
            parameter.grad = torch.empty_like(parameter).copy_(g)
            optimizer.step()
    assert torch.equal(p, q)
    assert (p - tensorflows_adam(torch.zeros(size), gradients, lr=0.01)).abs().max() < 1e-7


def test_adam_copies_no_gradient():
    p = torch.nn.Parameter(torch.zeros(4, 5, 2, 3, 2).to(memory_format=torch.channels_last_3d))
    optimizer, p.grad = Adam([p], 0.01, 0.5), torch.ones_like(p)
    with torch.profiler.profile() as profile:
        optimizer.step()
    names = {event.name for event in profile.events()}
    assert "aten::_fused_adam_" in names and "aten::contiguous" not in names


def test_a_step_of_adam_tells_that_the_parameters_have_changed():
    p = torch.nn.Parameter(torch.zeros(3))
    optimizer = Adam([p], 0.1, 0.5)
    for _ in range(2):
        version, p.grad = p._version, torch.ones(3)
        optimizer.step()
        assert p._version > version


def test_adam_does_not_import_the_compiler_which_takes_two_seconds():
    use = "w = torch.nn.Parameter(torch.ones(2)); a = run.adam.Adam([w], 0.1, 0.5); w.grad = torch.ones(2); a.step()"
    save = "a.load_state_dict(a.state_dict()); a.zero_grad(); assert w.grad is None"
    program = f"import sys, torch, run.adam; {use}; {save}; print('torch._dynamo' in sys.modules, w[0].item() < 1)"
    root = Path(utils.__file__).parent
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root)
    assert done.stdout.split() == ["False", "True"], done.stderr


def test_the_rate_falls_to_a_tenth_over_the_last_part():
    rates = [learning_rate(0.01, 0.4, epoch, 10) for epoch in range(11)]
    assert rates[:7] == [0.01] * 7
    assert rates[6:] == pytest.approx([0.01 * 0.1 ** (k / 4) for k in range(5)])
    assert {learning_rate(0.01, 0.0, epoch, 10) for epoch in range(11)} == {0.01}


def test_adam_steps_at_the_rate_that_it_is_given():
    w = torch.nn.Parameter(torch.zeros(3))
    optimizer, moves = Adam([w], lr=0.1, beta1=0.5), []
    for rate in (None, 0.01, 0.02):
        before, w.grad = w.detach().clone(), torch.ones(3)
        optimizer.step(rate)
        moves.append((before - w.detach()).tolist())
    assert moves[0] == pytest.approx([0.1] * 3, rel=1e-3)  # a constant gradient moves each weight by the rate
    assert moves[1] == pytest.approx([0.01] * 3, rel=1e-3) and moves[2] == pytest.approx([0.02] * 3, rel=1e-3)
