"""Runs that are killed lose nothing that they reported, and end as if nothing had happened."""

import kills
import pytest


@pytest.mark.parametrize("program", kills.PROGRAMS)
def test_a_run_survives_kills(program, tmp_path, request):
    kills.write_clip(tmp_path / "data/clip/a.mp4")
    kills.survive(program, tmp_path, 50 if request.config.getoption("--many", default=False) else 3)
