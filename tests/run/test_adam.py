"""TensorFlow's Adam, and the rate that falls."""

import copy

import pytest
import torch

from run.adam import Adam, learning_rate


def stepped(optimizer_of, gradients):
    """Weights that begin at 0, after these gradients."""
    p = torch.nn.Parameter(torch.zeros(gradients.shape[1:]))
    optimizer = optimizer_of([p])
    for g in gradients:
        p.grad = g.clone()
        optimizer.step()
    return p.detach()


def tensorflows_adam(gradients, lr=0.001, beta1=0.5, beta2=0.999, eps=1e-8):
    p = m = v = 0.0
    for t, g in enumerate(gradients.double(), start=1):
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        p = p - lr * (1 - beta2**t) ** 0.5 / (1 - beta1**t) * m / (v**0.5 + eps)
    return p


def test_adam_is_tensorflows_whose_epsilon_counts_for_tiny_gradients():
    generator = torch.Generator().manual_seed(0)
    for scale in (1e-9, 1e-7, 1e-4, 1.0, 1e4):
        gradients = torch.randn(6, 50, generator=generator) * scale
        ours = stepped(lambda p: Adam(p, lr=0.001, beta1=0.5), gradients)
        theirs = stepped(lambda p: torch.optim.Adam(p, lr=0.001, betas=(0.5, 0.999)), gradients)
        exact = tensorflows_adam(gradients)
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
    first, second = Adam([p], 0.01, 0.5), Adam([q], 0.01, 0.5)
    for k, g in enumerate(gradients):
        if k == 3:
            second.load_state_dict(copy.deepcopy(first.state_dict()))
            with torch.no_grad():
                q.copy_(p)
        for parameter, optimizer in ((p, first), (q, second))[: 1 + (k >= 3)]:
            parameter.grad = torch.empty_like(parameter).copy_(g)
            optimizer.step()
    assert torch.equal(p, q)
    assert (p - tensorflows_adam(gradients, lr=0.01)).abs().max() < 1e-7


def test_a_step_is_one_kernel_that_copies_no_gradient_and_tells_that_the_weights_have_changed():
    p = torch.nn.Parameter(torch.zeros(4, 5, 2, 3, 2).to(memory_format=torch.channels_last_3d))
    optimizer, p.grad, version = Adam([p], 0.01, 0.5), torch.ones_like(p), p._version
    with torch.profiler.profile() as profile:
        optimizer.step()
    names = {event.name for event in profile.events()}
    assert "aten::_fused_adam_" in names and "aten::contiguous" not in names and p._version > version


def test_the_rate_falls_to_a_tenth_over_the_last_part():
    rates = [learning_rate(0.01, 0.4, epoch, 10) for epoch in range(11)]
    assert rates[:7] == [0.01] * 7
    assert rates[6:] == pytest.approx([0.01 * 0.1 ** (k / 4) for k in range(5)])
    assert {learning_rate(0.01, 0.0, epoch, 10) for epoch in range(11)} == {0.01}


def test_adam_steps_at_the_rate_that_it_is_given():
    w = torch.nn.Parameter(torch.zeros(3))
    optimizer = Adam([w], lr=0.1, beta1=0.5)
    for rate, move in ((None, 0.1), (0.01, 0.01), (0.02, 0.02)):  # a constant gradient moves each weight by the rate
        before, w.grad = w.detach().clone(), torch.ones(3)
        optimizer.step(rate)
        assert (before - w.detach()).tolist() == pytest.approx([move] * 3, rel=1e-3)
