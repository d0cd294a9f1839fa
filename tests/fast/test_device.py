"""What a device can do."""

import re
from pathlib import Path

import pytest
import torch

from fast.device import multiplies_bfloat16


def test_instructions_for_bfloat16_are_found():
    info = Path("/proc/cpuinfo")
    flags = re.findall(r"^flags\s*:(.*)$", info.read_text(), re.M) if info.exists() else []
    if not flags:
        pytest.skip("this system does not list its processor's instructions")
    flags = flags[0].split()
    if "avx512f" in flags and "avx512_bf16" not in flags:
        pytest.skip("this processor emulates them")
    answers = (multiplies_bfloat16(torch.device("cpu")) for _ in range(5))  # a busy machine may hide them
    assert any(answers) == ("avx512_bf16" in flags)
