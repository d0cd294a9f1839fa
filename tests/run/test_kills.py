"""Runs that are killed lose nothing that they reported, and end as if nothing had happened."""

import kills
import pytest


@pytest.mark.parametrize("program", kills.PROGRAMS)
def test_a_run_survives_kills(program, tmp_path, request):
    """Each program one of the three signals, in short: of what they share, tests/run/test_loop.py has every moment."""
    kills.write_clip(tmp_path)
    many = request.config.getoption("--many", default=False)
    kills.survive(program, tmp_path, 50 if many else 1, first=list(kills.PROGRAMS).index(program))
