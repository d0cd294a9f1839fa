"""Which precision a device samples in."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import model
from fast.gradient import FastGradient, pick_precision, some_frames


@pytest.mark.parametrize("slow, error, chosen", [("fp32", 0, "bf16"), ("bf16", 0, "fp32"), ("fp32", 0.02, "fp32")])
def test_bfloat16_is_picked_where_it_is_faster_and_accurate(slow, error, chosen, monkeypatch):
    clock = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now)

    def altered(gradient, x):
        low = gradient.layers is not gradient.f.layers
        clock.now += 0.02 if low == (slow == "bf16") else 0.01
        return gradient.f.gradient(x) * (1 + error if low else 1)  # whatever a processor's own bfloat16 may cost

    monkeypatch.setattr(FastGradient, "__call__", altered)
    monkeypatch.setattr("fast.gradient.time", clock)
    monkeypatch.setattr("fast.gradient.multiplies_bfloat16", lambda device: True)
    f = model.descriptor("FC_S_large", 7, 12)
    torch.nn.init.normal_(f.layers[0].bias)  # of a net that has learned
    before = {name: value.clone() for name, value in f.state_dict().items()}
    assert pick_precision(f, 50 * torch.randn(1, 3, 7, 12, 12)) == chosen
    assert all(torch.equal(value, before[name]) for name, value in f.state_dict().items())


def test_bfloat16_is_not_tried_where_it_would_take_minutes(monkeypatch):
    monkeypatch.setattr("fast.gradient.multiplies_bfloat16", lambda device: False)
    monkeypatch.setattr(FastGradient, "__call__", lambda gradient, x: pytest.fail("it was"))
    assert pick_precision(model.descriptor("FC_S_large", 7, 12), torch.zeros(1, 3, 7, 12, 12)) == "fp32"


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("units, chosen", [(True, "bf16"), (False, "fp32")])
def test_a_gpu_is_asked_and_not_tried(units, chosen, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: units or including_emulation)
    monkeypatch.setattr(FastGradient, "__call__", lambda gradient, x: pytest.fail("it was"))
    x = some_frames(np.zeros((1, 7, 12, 12, 3), np.uint8), torch.device("cuda"), whole=False)
    assert pick_precision(model.descriptor("FC_S_large", 7, 12).cuda(), x) == chosen


def test_a_library_without_an_algorithm_for_bfloat16_leaves_float32(monkeypatch):
    error = RuntimeError("unable to find an engine")

    def fails(gradient, x):
        if gradient.layers[0].weight.dtype == torch.bfloat16:
            raise error
        return gradient.f.gradient(x)

    monkeypatch.setattr(FastGradient, "__call__", fails)
    monkeypatch.setattr("fast.gradient.multiplies_bfloat16", lambda device: True)
    f = model.descriptor("FC_S_large", 7, 12)
    assert pick_precision(f, torch.randn(1, 3, 7, 12, 12)) == "fp32"
    assert not any(layer.bias.any() for layer in f.layers)  # as they were
    error = torch.OutOfMemoryError()  # says nothing of precision
    with pytest.raises(torch.OutOfMemoryError):
        pick_precision(f, torch.randn(1, 3, 7, 12, 12))
