"""Figures that judge videos: closed forms, what each column sees and what it does not, and the program as a whole."""

import csv
import json

import numpy as np
import pytest
from calls import call, succeeds
from PIL import Image
from tools import assert_refused

import evaluate
from data import InputError, draw_mask, read_clip, to_tensor
from judge.fillings import interpolate_linear
from judge.lds import fit_dynamics, sample_dynamics, stabilised
from judge.metrics import (
    BEST_PSNR,
    QUICK_COLUMNS,
    TEMPORAL_FLOOR,
    autocorrelation,
    chain_distance,
    quick_metrics,
    recovery_metrics,
    smooth,
    spatial_spectrum,
    stride_imprint,
    summarise,
    temporal_spectrum,
    texture_metrics,
)
from judge.patches import Patches
from judge.pictures import draw_texture_report
from judge.tables import COLUMNS, FILLINGS, print_table, texture_report, write_csv, write_json

ERRORS = ("mean_image", "w1", "autocorr", "spatial_db", "temporal_db")  # 0 is best


def white_noise(std, frames=70, size=24, seed=0, mean=128.0):
    return np.random.default_rng(seed).normal(mean, std, (frames, size, size, 3))


def grey(values, size=2):
    """One grey level a frame -> video (T, size, size, 3)."""
    return np.broadcast_to(np.asarray(values, dtype=float)[:, None, None, None], (len(values), size, size, 3)).copy()


def shuffled(video):
    return video[np.random.default_rng(0).permutation(len(video))]


# ----------------------------------------------------------------------------------------------------------- textures


def test_a_clip_against_itself_and_shuffled_which_fails_in_what_follows_time_alone(clip):
    metrics = texture_metrics(clip, clip, stride=3)
    assert [metrics[name] for name in ERRORS] == [0] * len(ERRORS)
    assert metrics["std_ratio"] == metrics["frame_diff_ratio"] == 1 and metrics["nearest_psnr"] == BEST_PSNR
    assert metrics["std_map_corr"] == pytest.approx(1, abs=1e-9)
    metrics = texture_metrics(shuffled(clip), clip)
    assert [metrics[name] for name in ("mean_image", "w1", "spatial_db")] == pytest.approx([0, 0, 0], abs=1e-4)
    assert [metrics[name] for name in ("std_ratio", "std_map_corr")] == pytest.approx([1, 1], abs=1e-5)
    assert metrics["nearest_psnr"] == BEST_PSNR and metrics["frame_diff_ratio"] > 1.5
    assert metrics["autocorr"] > 0.2 and metrics["temporal_db"] > 2


def test_the_figures_of_a_log_are_those_of_the_table(clip):
    videos, clips = [np.roll(clip, 3, axis=1), clip // 2, clip[::-1]], [clip, 255 - clip // 3]
    quick = quick_metrics(to_tensor(np.stack(videos)), to_tensor(np.stack(clips)))
    rows = [texture_metrics(video, clip) for video in videos for clip in clips]
    assert quick == {name: pytest.approx(np.mean([row[name] for row in rows]), rel=1e-5) for name in quick}
    assert list(quick) == list(QUICK_COLUMNS)


def test_a_shifted_copy_of_a_periodic_clip_fails_in_the_nearest_frame_alone():
    t = np.arange(70)[:, None, None, None]
    y, x = np.ogrid[0:20, 0:24]
    clip = 128 + 60 * np.sin(2 * np.pi * t / 14 + 0.4 * y[..., None] + 0.3 * x[..., None] + np.arange(3))
    metrics = texture_metrics(np.roll(clip, 5, axis=0), clip)
    assert [metrics[name] for name in ERRORS] == pytest.approx([0] * len(ERRORS), abs=5e-3)
    assert metrics["std_ratio"] == pytest.approx(1, abs=1e-4)
    assert metrics["frame_diff_ratio"] == pytest.approx(1, abs=1e-2)
    assert metrics["nearest_psnr"] == BEST_PSNR  # every frame is a training frame
    other = texture_metrics(np.roll(clip, 1, axis=2), clip)  # the same texture, but no frame of the clip
    assert other["nearest_psnr"] < 30 and other["autocorr"] < 1e-3


def test_white_noise_has_its_closed_forms():
    sigma, frames = 25, 70
    noise = white_noise(sigma, frames, size=64)
    assert summarise(noise)["std"].mean() == pytest.approx(sigma * (1 - 3 / (4 * frames)), rel=2e-3)
    assert summarise(noise)["frame_diff"] == pytest.approx(2 * sigma / np.sqrt(np.pi), rel=2e-3)
    assert stride_imprint(noise, 3) == pytest.approx(3 / 69, rel=0.03)
    everywhere = np.ones(noise.shape[1:], dtype=bool)
    lags = np.arange(1, 11)
    bias = -(frames - lags) / (frames * (frames - 1))  # of the biased estimator, mean removed; to first order
    assert autocorrelation(noise, everywhere) == pytest.approx(bias, abs=2e-3)
    assert temporal_spectrum(noise) == pytest.approx(sigma**2, rel=0.06)  # 12288 pixels: std 0.9 %
    rings = spatial_spectrum(noise)
    assert len(rings) == 32
    assert rings[4:] == pytest.approx(sigma**2 / 3, rel=0.1)  # of the mean of three channels


def test_noise_of_twice_the_std_is_6_db_away():
    noise = white_noise(40, mean=0)
    metrics = texture_metrics(2 * noise, noise)
    variance = smooth(temporal_spectrum(noise))
    expected = 10 * np.log10((4 * variance + TEMPORAL_FLOOR) / (variance + TEMPORAL_FLOOR)).mean()
    assert metrics["std_ratio"] == metrics["frame_diff_ratio"] == pytest.approx(2, rel=1e-5)
    assert metrics["temporal_db"] == pytest.approx(expected, rel=1e-4)
    assert metrics["temporal_db"] == pytest.approx(6.0, abs=0.05)
    assert metrics["spatial_db"] == pytest.approx(6.02, abs=0.02)
    assert metrics["autocorr"] == pytest.approx(0, abs=1e-6)  # normalised by each pixel's variance


def test_autocorrelation_of_a_first_order_process():
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(16, 16, 3)) / 0.6]  # variance 1 / (1 - 0.8^2)
    for _ in range(1999):
        x.append(0.8 * x[-1] + rng.normal(size=(16, 16, 3)))
    curve = autocorrelation(np.stack(x), np.ones((16, 16, 3), dtype=bool))
    assert curve == pytest.approx(0.8 ** np.arange(1, 11), abs=0.01)


def test_autocorrelation_counts_the_pixels_that_move_in_the_clip(clip):
    still = np.full((70, 20, 6, 3), 90.0) + white_noise(1, size=24)[:, :20, :6] - 128  # codec noise of std 1
    wide = np.concatenate([clip.astype(float), still], axis=2)
    video = shuffled(clip).astype(float)
    padded = np.concatenate([video, 10 * (still - 90) + 90], axis=2)  # what is still in the clip may do as it likes
    expected = texture_metrics(video, clip)["autocorr"]
    assert texture_metrics(padded, wide)["autocorr"] == pytest.approx(expected, abs=1e-6)
    quiet = 100 + (clip - 120.0) / 100  # nothing moves by 4 grey levels: the half that moves most counts
    assert texture_metrics(quiet, quiet)["autocorr"] == 0
    assert texture_metrics(shuffled(quiet), quiet)["autocorr"] == pytest.approx(expected, abs=0.05)


def test_grey_shifts_are_wasserstein_distances(clip):
    clip = clip.astype(float)
    assert texture_metrics(clip + 7, clip)["w1"] == pytest.approx(7, rel=1e-4)
    assert texture_metrics(clip + np.array([6, 0, 0]), clip)["w1"] == pytest.approx(2, rel=1e-4)
    red, green = clip + np.array([40, 0, 0]), clip + np.array([0, 40, 0])
    assert texture_metrics(red, green)["w1"] == pytest.approx(80 / 3, rel=1e-4)
    metrics = texture_metrics(clip - 7, clip)
    assert metrics["mean_image"] == pytest.approx(7, rel=1e-4)
    assert metrics["spatial_db"] < 1e-3 and metrics["temporal_db"] < 1e-3  # means are removed
    mirrored = texture_metrics(clip[:, :, ::-1], clip)
    assert mirrored["w1"] == 0 and mirrored["mean_image"] > 1  # places do not matter to the one, and do to the other


def test_maps_of_std_correlate_where_motion_is_in_place():
    noise, clip = white_noise(1), np.full((70, 24, 24, 3), 128.0)
    clip[:, :12] += 20 * noise[:, :12] - 20 * 128
    swapped = clip[:, ::-1]
    assert texture_metrics(swapped, clip)["std_map_corr"] < -0.9
    assert texture_metrics(np.full_like(clip, 128), clip)["std_map_corr"] == 0


def test_nearest_frame_is_looked_for_in_every_seventh(clip):
    clip = clip.astype(float)
    assert texture_metrics(clip + 5, clip)["nearest_psnr"] == pytest.approx(10 * np.log10(255**2 / 25), abs=0.05)
    video = clip.copy()
    video[np.arange(70) % 7 != 0] += 50
    assert texture_metrics(video, clip)["nearest_psnr"] == BEST_PSNR
    video[14] += 50
    assert texture_metrics(video, clip)["nearest_psnr"] < BEST_PSNR - 3


def test_blur_is_seen_by_the_spatial_spectrum(clip):
    blurred = (clip + np.roll(clip.astype(float), 1, axis=1) + np.roll(clip.astype(float), -1, axis=1)) / 3
    assert texture_metrics(blurred, clip)["spatial_db"] > 1


def test_the_imprint_of_a_flicker_is_1_and_falls_with_noise():
    assert stride_imprint(grey([50] * 70), 3) == 0
    flicker = grey(np.tile([100, 130, 100], 24)[:70], 24)
    assert stride_imprint(flicker, 3) == pytest.approx(1, abs=1e-5)
    share = [stride_imprint(flicker + white_noise(std, mean=0), 3) for std in (1, 10, 40)]
    assert share[0] > 0.95 > share[1] > share[2] > 3 / 69


@pytest.mark.parametrize("stride, frames", [(2, 20), (3, 70), (4, 71), (7, 20)])
def test_the_imprint_is_the_share_of_the_spectrum(stride, frames, clip):
    video = np.concatenate([clip, clip[::-1]]).astype(float)[:frames]
    diff = np.diff(video, axis=0)
    n = len(diff) // stride * stride
    diff = diff[len(diff) - n :]
    power = np.zeros(n)
    for pixel in diff.reshape(n, -1).T:
        power += np.abs(np.fft.fft(pixel - pixel.mean())) ** 2
    harmonics = [k * n // stride for k in range(1, stride)]
    assert stride_imprint(video, stride) == pytest.approx(power[harmonics].sum() / power.sum(), rel=1e-3)


def test_distance_of_chains():
    videos = [grey([level] * 5) for level in (0, 10, 30)]
    assert chain_distance(videos) == pytest.approx((10 + 30 + 20) / 3)
    assert chain_distance([v.astype(np.uint8) for v in videos[::-1]]) == pytest.approx(20)
    assert chain_distance(videos[:1] * 3) == 0
    with pytest.raises(InputError):
        chain_distance(videos[:1])


def test_what_cannot_be_compared_is_refused(clip):
    for video, observed, stride, said in [
        (clip[:-1], clip, None, "compared"), (clip[:, :-1], clip, None, "compared"),
        (clip, np.full_like(clip, 90), None, "does not move"),
        *((clip, clip, stride, "-stride") for stride in (1, 70, 100)),
    ]:
        with pytest.raises(InputError, match=said):
            texture_metrics(video, observed, stride)


@pytest.mark.parametrize("frames, size", [(2, 4), (3, 5), (12, 8)])
def test_the_shortest_videos_have_figures(frames, size):
    clip, video = white_noise(20, frames, size), white_noise(20, frames, size, seed=1)
    rows, _ = texture_report({"chain": video}, clip, later=video, lds=50)
    figures = [value for row in rows for name, value in row.items() if name not in ("name", "imprint")]
    assert np.isfinite([value for value in figures if value is not None]).all()


# ---------------------------------------------------------------------------------------- the linear dynamical system


def wave_system(frames, radius, noise):
    """A video of 4x4 pixels, the projection of a plane that turns by 2 pi / 20 a frame and shrinks by `radius`."""
    rng = np.random.default_rng(0)
    angle = 2 * np.pi / 20
    A = radius * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    C = np.linalg.qr(rng.normal(size=(48, 2)))[0].T
    states = [np.array([90.0, 0])]
    for _ in range(frames - 1):
        states.append(states[-1] @ A + noise * rng.normal(size=2))
    return 128 + (np.stack(states) @ C).reshape(frames, 4, 4, 3)


def drawn(video, components, frames, seed=0):
    """A new video of so many frames from the system of this one."""
    draw = sample_dynamics(fit_dynamics(video, components), frames, np.random.default_rng(seed))
    return draw.reshape(frames, *video.shape[1:])


def test_a_system_without_noise_is_found_exactly():
    video = wave_system(60, radius=1, noise=0)  # whole periods: the clip's mean is the system's
    mean, C, A, state_std, noise = fit_dynamics(video, 10)
    assert A.shape == (2, 2)  # the clip has no more components
    turns = np.linalg.eigvals(A)
    assert np.sort(np.angle(turns)) == pytest.approx([-2 * np.pi / 20, 2 * np.pi / 20], abs=1e-9)
    assert np.abs(turns) == pytest.approx([0.99, 0.99])  # drawn back from 1
    assert mean == pytest.approx(np.full(48, 128.0))
    assert state_std == pytest.approx([90 / np.sqrt(2)] * 2)
    assert noise.T @ noise == pytest.approx(0.01**2 * np.diag(state_std**2), rel=0.05, abs=0.01)  # what 0.99 leaves
    sample = drawn(video, 10, 60, seed=1)
    assert temporal_spectrum(sample).argmax() == temporal_spectrum(video).argmax() == 2


def test_samples_have_the_statistics_of_a_noisy_system():
    video = wave_system(1600, radius=0.95, noise=6)
    turns = np.linalg.eigvals(fit_dynamics(video, 2)[2])
    assert np.abs(turns) == pytest.approx([0.95, 0.95], abs=0.02)
    assert np.abs(np.angle(turns)) == pytest.approx([2 * np.pi / 20] * 2, abs=0.02)
    metrics = texture_metrics(drawn(video, 2, 1600, seed=1), video)
    assert metrics["std_ratio"] == pytest.approx(1, abs=0.08) and metrics["std_map_corr"] > 0.95
    assert metrics["autocorr"] < 0.04 and metrics["temporal_db"] < 0.5
    assert texture_metrics(drawn(shuffled(video), 2, 1600), video)["autocorr"] > 0.2


def test_samples_are_of_any_length_and_depend_on_the_generator_alone(clip):
    first, again, other = (drawn(clip, 10, 90, seed) for seed in (1, 1, 2))
    assert first.shape == (90, *clip.shape[1:]) and first.dtype == np.float32
    assert np.array_equal(first, again) and np.abs(first - other).mean() > 1
    harsh = drawn(np.clip(4 * (clip - 120.0) + 120, 0, 255), 10, 70)
    assert (len(harsh), harsh.min(), harsh.max()) == (70, 0, 255)
    assert len(fit_dynamics(clip[:20], 50)[2]) == 15  # three quarters of the frames
    assert np.isfinite(drawn(clip[:6], 50, 20)).all()


def test_first_states_are_drawn_like_those_of_the_clip(clip):
    system, rng = fit_dynamics(clip, 50), np.random.default_rng(0)
    firsts = np.stack([sample_dynamics(system, 1, rng)[0] for _ in range(400)])
    assert firsts.mean() == pytest.approx(clip.mean(), abs=0.5)
    assert firsts.std(axis=0).mean() == pytest.approx(clip.std(axis=0).mean(), rel=0.05)


def test_a_system_that_explodes_is_held_back(clip):
    growing = 128 + 0.01 * (clip - 120.0) * 1.1 ** np.arange(70)[:, None, None, None]
    assert np.abs(np.linalg.eigvals(fit_dynamics(growing, 5)[2])).max() < 0.99 + 1e-9
    A = np.diag([1.2, 0.7, 0.2])
    A[0, 1] = 0.3
    assert np.sort(np.linalg.eigvals(stabilised(A))) == pytest.approx([0.2, 0.7, 0.99])
    A[0, 0] = 0.9
    assert stabilised(A) == pytest.approx(A)


# ------------------------------------------------------------------------------------------------------ hidden pixels


def test_recovery_figures_of_known_errors():
    truth = np.full((4, 3, 3, 3), 100, np.uint8)
    mask = np.zeros((4, 3, 3), bool)
    mask[1:3] = True
    recovered = truth.astype(float)
    recovered[1] += 3
    recovered[2] -= 5
    metrics = recovery_metrics(truth, recovered, mask)
    assert metrics["hidden_mae"] == pytest.approx(4)
    assert metrics["hidden_psnr"] == pytest.approx(10 * np.log10(255**2 / 17))
    assert metrics["visible_error"] == 0
    recovered[0, 1, 1, 2] = 93
    changed = recovery_metrics(truth, recovered, mask)
    assert changed["visible_error"] == 7 and changed["hidden_mae"] == pytest.approx(4)
    assert recovery_metrics(truth, truth, mask) == {"hidden_mae": 0, "hidden_psnr": BEST_PSNR, "visible_error": 0}
    assert recovery_metrics(truth, truth - 1, np.ones_like(mask))["hidden_mae"] == 1  # nothing is visible
    with pytest.raises(InputError, match="hides no pixel"):
        recovery_metrics(truth, truth, np.zeros_like(mask))
    with pytest.raises(InputError, match="fit together"):
        recovery_metrics(truth, truth, mask[:3])


def test_later_frames_of_a_real_clip(shared):
    """Of boiling water, each frame stretched to 0-255 at 224 px, as published samples are; figures measured before."""
    path = next(shared("data/dynamic_texture/boiling_water").glob("*.avi"))
    frames = []
    for frame in read_clip(path, 140, (224, 224)).astype(np.float32):
        low, high = frame.min(), frame.max()
        stretched = ((frame - low) / (high - low) * 255).round().astype(np.uint8)
        frames.append(np.asarray(Image.fromarray(stretched).resize((100, 100), Image.BILINEAR)))
    metrics = texture_metrics(np.stack(frames[70:]), np.stack(frames[:70]), stride=3)
    assert metrics["std_ratio"] == pytest.approx(1.0, abs=0.05)
    assert metrics["std_map_corr"] == pytest.approx(0.79, abs=0.005)
    assert metrics["w1"] == pytest.approx(1.5, abs=0.05)
    assert metrics["autocorr"] == pytest.approx(0.026, abs=0.001)
    assert metrics["temporal_db"] == pytest.approx(0.2, abs=0.05)
    assert metrics["imprint"] == pytest.approx(0.03, abs=0.01)


# --------------------------------------------------------------------------------------------------- tables, pictures


def test_rows_of_a_report(clip):
    videos = {"a": clip[::-1], "b": np.roll(clip, 3, axis=2), "c": clip}
    rows = {row["name"]: row for row in texture_report(videos, clip, later=clip[:, ::-1], lds=10, stride=3)[0]}
    assert list(rows) == ["observed", "a", "b", "c", "mean of 3", "later frames", "LDS"]
    for name, video in videos.items():
        expected = texture_metrics(video, clip, stride=3)
        assert {key: rows[name][key] for key in expected} == pytest.approx(expected)
    mean = np.mean([rows[name]["mean_image"] for name in videos])
    assert rows["mean of 3"]["mean_image"] == pytest.approx(mean)
    assert rows["mean of 3"]["chain_distance"] == pytest.approx(chain_distance(list(videos.values())))
    assert rows["a"]["chain_distance"] == pytest.approx(
        np.mean([chain_distance([videos["a"], videos[other]]) for other in "bc"]))
    assert rows["observed"]["chain_distance"] == pytest.approx(chain_distance([clip[:35], clip[35:]]))
    assert rows["later frames"]["chain_distance"] is None
    patches = Patches(clip, clip[:, ::-1])
    assert patches.figures(videos["a"]).items() <= rows["a"].items()
    assert patches.usual.items() <= rows["later frames"].items()
    assert rows["observed"]["realism"] is None and rows["LDS"]["realism"] > rows["c"]["realism"] == 0
    assert rows["a"]["copying"] > 0.9 and rows["LDS"]["copying"] < 0.5
    rows, _ = texture_report({"a": clip}, clip, lds=0)
    assert [row["name"] for row in rows] == ["observed", "a"]
    assert rows[1]["chain_distance"] is None and rows[1]["imprint"] is None


def test_tables_are_printed_and_written(clip, tmp_path, capsys):
    rows, _ = texture_report({"a long name": clip[::-1], "b": clip}, clip, lds=0)
    print_table(rows)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(rows) and len({len(line) for line in lines}) == 1
    assert "imprint" not in lines[1] and "ratio" in lines[1]
    assert lines[3].startswith("a long name ") and f"{rows[1]['mean_image']:.2f}" in lines[3]
    write_csv(tmp_path / "t.csv", rows)
    with open(tmp_path / "t.csv") as file:
        table = list(csv.DictReader(file))
    assert [row["name"] for row in table] == [row["name"] for row in rows]
    assert float(table[1]["std_ratio"]) == pytest.approx(rows[1]["std_ratio"], rel=1e-5)
    assert table[0]["imprint"] == ""
    write_json(tmp_path / "t.json", rows, {"lds": 0})
    assert json.loads((tmp_path / "t.json").read_text()) == {"settings": {"lds": 0}, "rows": rows}


@pytest.mark.parametrize("count, lds, stride", [(1, 0, None), (5, 5, 3)])
def test_pictures_show_every_video(count, lds, stride, clip, tmp_path):
    videos = {f"_chain $x^{{{k}$": np.roll(clip, k, axis=2) for k in range(count)}  # a formula that cannot be set
    _, portraits = texture_report(videos, clip, clip[::-1] if lds else None, lds, stride)
    assert list(portraits) == ["observed", *videos, *(["later frames", "LDS"] if lds else [])]
    draw_texture_report(tmp_path / "p.png", portraits, stride)
    picture = np.asarray(Image.open(tmp_path / "p.png").convert("RGB"))
    assert picture.shape[1] == 1600 and picture.shape[0] > 700
    assert (picture < 250).any(axis=-1).mean() > 0.05  # not a blank sheet


# ---------------------------------------------------------------------------------------------------------- the program


@pytest.fixture(scope="module")
def folder(tmp_path_factory, moving, write_clip):
    """Clips of 24x32 pixels: observed/a.mp4 (40 frames), chains (two of 20), frames (images); masks; a spoiled file."""
    root = tmp_path_factory.mktemp("clips")
    write_clip(root / "observed/a.mp4", moving(40, 24, 32))
    write_clip(root / "chains/one.mp4", moving(20, 24, 32, phase=1.0))
    write_clip(root / "chains/two.mp4", moving(20, 24, 32, phase=2.0))
    (root / "frames").mkdir()
    mask = draw_mask("region", 20, (24, 32), np.random.default_rng(0))
    video = moving(20, 24, 32)
    for t, frame in enumerate(video):
        Image.fromarray(frame).save(root / f"frames/{t}.png")
    np.save(root / "mask.npy", mask)
    np.save(root / "none.npy", np.zeros_like(mask))
    np.save(root / "small.npy", mask[:, :20])
    recovered = interpolate_linear(video, mask).round().astype(np.uint8)
    (root / "recovered").mkdir()
    for t, frame in enumerate(recovered):
        Image.fromarray(frame).save(root / f"recovered/{t}.png")
    write_clip(root / "still.mp4", np.full((20, 24, 32, 3), 90, np.uint8))
    (root / "spoiled.mp4").write_bytes(b"no video")
    (root / "empty").mkdir()
    return root


def test_the_program_judges_textures(folder, tmp_path):
    out = succeeds(evaluate, "-num_frames 20 -im_size 24x32 --lds 5 -stride 3 -observed", folder / "observed",
                   "--synthesized", folder / "chains", folder / "frames", "-out", tmp_path / "out")
    names = ["observed", "one.mp4", "two.mp4", "frames", "mean of 3", "later frames", "LDS"]
    assert all(f"\n{name} " in out for name in names) and "as a whole" in out and "no later frames" not in out
    written = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert [row["name"] for row in written["rows"]] == names
    assert written["settings"]["im_size"] == [24, 32] and written["settings"]["num_frames"] == 20
    observed, chain = read_clip(folder / "observed/a.mp4", 40), read_clip(folder / "chains/one.mp4")
    for row, video in ((1, chain), (5, observed[20:])):
        expected = texture_metrics(video, observed[:20], stride=3)
        assert {key: written["rows"][row][key] for key in expected} == pytest.approx(expected)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "evaluation.csv", "evaluation.json", "evaluation.png"]


@pytest.mark.usefixtures("undrawn")
def test_the_program_says_that_later_frames_are_missing(folder, tmp_path):
    out = succeeds(evaluate, "-num_frames 15 -lds 0 -observed", folder / "frames", "-synthesized", folder / "frames",
                   folder / "chains/one.mp4", "-out", tmp_path)
    assert "no later frames: the observed clip has fewer than 30" in out and "imprint" not in out
    assert [row["name"] for row in json.loads((tmp_path / "evaluation.json").read_text())["rows"]] == [
        "observed", "frames", "one.mp4", "mean of 2"]


def test_clips_of_one_name_are_told_apart(folder, tmp_path):
    (tmp_path / "frames").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "frames/0.png")
    found = evaluate.find_clips([folder / "frames", tmp_path / "frames", folder / "frames"])
    assert list(found) == [str(folder / "frames"), str(tmp_path / "frames")]
    assert evaluate.find_clips([folder / "frames"] * 2) == {"frames": folder / "frames"}


def test_the_program_judges_a_recovered_clip(folder, tmp_path, monkeypatch):
    def judged(recovered):
        out = succeeds(evaluate, "-truth", folder / "frames", "-mask", folder / "mask.npy", "-recovered", recovered,
                       "-out", tmp_path)
        return "Visible pixels have changed" in out, json.loads((tmp_path / "recovery.json").read_text())["rows"]

    changed, rows = judged(folder / "recovered")
    assert not changed and [row["name"] for row in rows] == ["recovered", *FILLINGS]
    assert rows[0]["hidden_mae"] == pytest.approx(rows[2]["hidden_mae"], abs=0.5) and rows[0]["hidden_mae"] > 1
    assert all(row["visible_error"] == 0 for row in rows)
    monkeypatch.setattr("judge.tables.FILLINGS", {"linear interpolation": interpolate_linear})  # the others take long
    changed, rows = judged(folder / "chains/one.mp4")  # another video altogether
    assert changed and rows[0]["visible_error"] > 20 and rows[1]["visible_error"] == 0


@pytest.mark.parametrize("flags, message", [
    ("-observed observed -synthesized nowhere", "does not exist"),
    ("-observed chains -synthesized frames", "2 clips, name one of them: one.mp4, two.mp4"),
    ("-observed empty -synthesized chains", "no clip in"),
    ("-observed observed -synthesized spoiled.mp4 -num_frames 20", "cannot read"),
    ("-observed observed -synthesized chains -num_frames 30", "20 frames, 30 are needed"),
    ("-observed still.mp4 -synthesized chains -num_frames 20", "does not move"),
    ("-observed observed -synthesized chains -num_frames 20 -stride 20", "-stride 20"),
    ("-observed observed -synthesized chains -num_frames 20 -out mask.npy", "cannot be a folder"),
    ("-truth frames -mask nowhere -recovered recovered", "does not exist"),
    ("-truth frames -mask spoiled.mp4 -recovered recovered", "cannot read"),
    ("-truth frames -mask small.npy -recovered recovered", "mask"),
    ("-truth frames -mask none.npy -recovered recovered", "hides no pixel"),
    ("-truth frames -mask mask.npy -recovered observed", "40 are needed"),
    ("", "give either"), ("-observed observed", "give either"), ("-truth frames -mask mask.npy", "give either"),
    ("-observed observed -synthesized chains -truth frames", "give either"),
    ("-observed observed -synthesized chains -lds -1", "-lds"),
])
def test_bad_input_is_one_line_and_code_2(flags, message, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    refused = call(evaluate, "-out", tmp_path, flags)
    assert_refused(refused, message)
    assert "ratio" not in refused.out and not any(tmp_path.iterdir())  # no table, whatever the reader says of clips


def test_help_explains_every_column():
    help = call(evaluate, "-h")
    assert help.code == 0 and all(f"\n  {name} " in help.out for name in COLUMNS)
