"""Tables of several clips: what is judged as one, and by which clips."""

import numpy as np
import pytest

from data import draw_mask
from judge.metrics import BEST_PSNR, chain_distance, recovery_metrics, texture_metrics
from judge.tables import (
    FILLINGS,
    RecoveryTable,
    SetTable,
    TextureTable,
    print_table,
    recovery_report,
    set_report,
    write_csv,
)


def test_hidden_pixels_of_all_clips_are_judged_as_one(moving, monkeypatch):
    fill = FILLINGS["nearest frame"]
    monkeypatch.setattr("judge.tables.FILLINGS", {"nearest frame": fill})  # the others take long
    clips = np.stack([moving(8, 16, 16, phase) for phase in (0, 2)])
    masks = np.stack([draw_mask("region", 8, (16, 16), np.random.default_rng(0)), np.zeros((8, 16, 16), bool)])
    masks[1, 2, 5:7] = True
    recovered = clips.astype(float)
    recovered[0] += 3
    recovered[1] -= 5
    rows = {row["name"]: row for row in recovery_report(clips, {"recovered": recovered}, masks)}
    hidden = masks.sum(axis=(1, 2, 3))
    assert list(rows) == ["recovered", "nearest frame"]
    assert rows["recovered"]["hidden_mae"] == pytest.approx(np.average([3, 5], weights=hidden))
    assert rows["recovered"]["visible_error"] == 5 and rows["nearest frame"]["visible_error"] == 0
    each = [recovery_metrics(clip, fill(clip, mask), mask)["hidden_mae"] for clip, mask in zip(clips, masks)]
    assert rows["nearest frame"]["hidden_mae"] == pytest.approx(np.average(each, weights=hidden))


def test_videos_beside_several_clips(clip, tmp_path, capsys):
    """Their figures are means over the clips; the clip is found that each is a copy of, shifted in time."""
    clips = np.stack([clip, clip[:, :, ::-1] // 2 + 90, clip[::-1, ::-1]])
    videos = {"a": np.roll(clips[2], 7, axis=0), "b": clips[0], "c": clips[2][::-1]}
    table, portraits = set_report(videos, clips, stride=3)
    rows = {row["name"]: row for row in table}
    assert list(rows) == ["clips", "a", "b", "c", "mean of 3"] and list(portraits) == ["observed", *videos]
    assert [rows[name]["nearest_clip"] for name in rows] == [None, 2, 0, 2, None]
    assert [rows[name]["clips_near"] for name in rows] == [2, None, None, None, 2]
    assert all(rows[name]["nearest_psnr"] == BEST_PSNR for name in videos) and rows["clips"]["nearest_psnr"] < 40
    pairs = {(j, k): texture_metrics(clips[j], clips[k], stride=3) for j in range(3) for k in range(3)}
    for name in ("std_ratio", "frame_diff_ratio", "mean_image", "w1", "autocorr", "spatial_db", "temporal_db"):
        assert rows["b"][name] == pytest.approx(np.mean([pairs[0, k][name] for k in range(3)]), rel=1e-4)
        others = [figures[name] for (j, k), figures in pairs.items() if j != k]
        assert rows["clips"][name] == pytest.approx(np.mean(others), rel=1e-4)
        assert rows["mean of 3"][name] == pytest.approx(np.mean([rows[video][name] for video in videos]))
    assert rows["clips"]["chain_distance"] == pytest.approx(chain_distance(clips))
    assert np.array_equal(portraits["observed"]["middle"], clip[35])
    print_table(table)
    write_csv(tmp_path / "t.csv", table)
    assert "nearest" in capsys.readouterr().out and len((tmp_path / "t.csv").read_text().splitlines()) == 6


@pytest.mark.parametrize("make_table", [
    lambda clip: TextureTable(clip[:30], clip[30:60], lds=5, stride=3),
    lambda clip: SetTable(np.stack([clip[:30], clip[30:60]]), stride=3),
    lambda clip: RecoveryTable(clip[:30], np.random.default_rng(0).random((30, 20, 24)) < 0.1, ["Gaussian field"]),
])
def test_a_table_reports_other_videos_as_if_they_were_its_first(make_table, clip):
    """No report leaves anything in the table."""
    table, videos = make_table(clip), {"a": clip[20:50], "b": clip[40:]}
    table.report({"b": clip[10:40], "c": clip[5:35], "d": clip[:30]})
    again, first = table.report(videos), make_table(clip).report(videos)
    assert again[0] == first[0] and list(again[1]) == list(first[1])
