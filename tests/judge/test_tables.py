"""Tables of several clips: what is judged as one, and by which clips."""

import numpy as np
import pytest

from data import draw_mask
from judge.metrics import recovery_metrics
from judge.tables import FILLINGS, recovery_report


def test_hidden_pixels_of_all_clips_are_judged_as_one(moving):
    clips = np.stack([moving(8, 16, 16, phase) for phase in (0, 2)])
    masks = np.stack([draw_mask("region", 8, (16, 16), np.random.default_rng(0)), np.zeros((8, 16, 16), bool)])
    masks[1, 2, 5:7] = True
    recovered = clips.astype(float)
    recovered[0] += 3
    recovered[1] -= 5
    rows = {row["name"]: row for row in recovery_report(clips, recovered, masks, {"temporal mean": recovered})}
    hidden = masks.sum(axis=(1, 2, 3))
    assert list(rows) == ["recovered", "temporal mean", *(name for name in FILLINGS if name != "temporal mean")]
    assert rows["recovered"]["hidden_mae"] == pytest.approx(np.average([3, 5], weights=hidden))
    assert rows["recovered"]["visible_error"] == 5 and rows["MRF-l2"]["visible_error"] == 0
    assert rows["temporal mean"] | {"name": ""} == rows["recovered"] | {"name": ""}
    fill = FILLINGS["nearest frame"]
    each = [recovery_metrics(clip, fill(clip, mask), mask)["hidden_mae"] for clip, mask in zip(clips, masks)]
    assert rows["nearest frame"]["hidden_mae"] == pytest.approx(np.average(each, weights=hidden))
