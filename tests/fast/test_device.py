"""What a device can do."""

import re
from pathlib import Path

import pytest
import torch

from fast.device import multiplies_bfloat16

CPU = torch.device("cpu")


def instructions():
    """What this processor lists."""
    info = Path("/proc/cpuinfo")
    flags = re.findall(r"^flags\s*:(.*)$", info.read_text(), re.M) if info.exists() else []
    return flags[0].split() if flags else pytest.skip("this system does not list its processor's instructions")


def test_instructions_for_bfloat16_are_found():
    assert multiplies_bfloat16(CPU) == ("avx512_bf16" in instructions())


@pytest.mark.parametrize("units", [True, False])
def test_a_busy_machine_does_not_hide_instructions_for_bfloat16(units, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": units})
    assert multiplies_bfloat16(CPU) == units


def test_products_in_bfloat16_are_timed_where_their_instructions_do_not_tell(monkeypatch):
    flags = instructions()
    if "avx512f" in flags and "avx512_bf16" not in flags:
        pytest.skip("this processor emulates them")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"bf16": True})
    answers = (multiplies_bfloat16(CPU) for _ in range(5))  # a busy machine may hide them
    assert any(answers) == ("avx512_bf16" in flags)
