"""Hidden pixels: never looked at, guessed, recovered and judged."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from small import EPOCHS, call
from tools import assert_refused, assert_same_run, assert_same_state, images, read_log

import data
import main
import model
from stg.inputs import move

pytestmark = pytest.mark.usefixtures("undrawn")
FIELD = "-category three -batch_size 2 -mask_type region -preset quality -anneal 0"
WHITE = "-mask_type missing_frames"


def films(folder):
    return {path.stem for path in (folder / "final_results").glob("*.mp4")}


@pytest.mark.parametrize("reference", ["white", "field"])
def test_hidden_pixels_are_never_looked_at(reference, tmp_path, flags, moving):
    """Two clips that differ under the mask alone give the same run, bit for bit; also where it hides the first frame
    and one between two that are visible."""
    clip = moving(12, 16, 16)
    hidden = np.random.default_rng(0).random(clip.shape[:3]) < 0.4
    hidden[[0, 5]], hidden[[4, 6]] = True, False
    np.save(tmp_path / "mask.npy", hidden)
    for name, change in (("one", 0), ("two", 77)):
        frames = np.where(hidden[..., None], clip // 2 + change, clip).astype(np.uint8)
        images(tmp_path / name / "clip/frames", frames)
        more = ["-mask_type", "external", "-mask_file", tmp_path / "mask.npy", "-num_epochs", 2]
        more += ["-reference", reference, "-data_path", tmp_path / name]
        assert call(flags(tmp_path / f"output_{name}", *more)).code == 0
    assert_same_state(tmp_path / "output_one/clip", tmp_path / "output_two/clip")


@pytest.mark.parametrize("hides, said", [(True, "hides every pixel"), (False, "hides no pixel")])
def test_a_mask_that_hides_all_or_nothing_is_an_error_of_one_line(hides, said, tmp_path, flags):
    np.save(tmp_path / "mask.npy", np.full((12, 16, 16), hides))
    done = call(flags(tmp_path / "new", "-mask_type", "external", "-mask_file", tmp_path / "mask.npy"))
    assert_refused(done, said)
    assert not (tmp_path / "new").exists()


def test_the_mean_of_samples_is_the_fields_until_f_has_a_gradient(moving):
    """Then it moves along that gradient's mean over the epochs, by the field's covariance (Stein's identity)."""
    args, _ = main.parse("-im_size 10 -num_frames 8 -num_chain 1 -preset quality -device cpu -precision fp32".split())
    clip, hidden = moving(8, 10, 10)[None], data.draw_mask("region", 8, (10, 10), np.random.default_rng(0))[None]
    learner = main.make_learner(args, model.descriptor("FC_S_large", 8, 10), None, clip, hidden)
    I = data.to_tensor(clip) - learner.reference.mean
    recovery, [hidden] = learner.recovery, learner.recovery.hidden
    field, sampler = recovery.field, learner.langevin
    expected = torch.where(hidden, field.video(0, field.expected[0]) - learner.reference.mean, I)
    assert torch.equal(recovery.mean(1.0)[0], expected)
    g = torch.randn(I.shape, generator=torch.Generator().manual_seed(0))
    for epoch, gradient in ((1, lambda x: g), (2, lambda x: 3 * g)):
        moved = recovery.move(0, I, gradient, sampler, 0.5, 1.0, [torch.Generator().manual_seed(epoch)])
        assert torch.equal(moved[~hidden.expand_as(I)], I[~hidden.expand_as(I)])
        recovery.update([moved], epoch)
    step = field.video(0, 0.25 * field.spread(0, field.pull(0, (2 * g * hidden)[0]))) - field.mean[0][:, None]
    assert step.norm() > 1
    off = recovery.mean(0.5)[0] - torch.where(hidden, expected + step, I)
    assert off.norm() < 0.1 * step.norm()


@pytest.mark.parametrize("more", [FIELD, WHITE])
def test_resumed_equals_uninterrupted_bit_for_bit(more, tmp_path, flags, runs):
    straight = runs(more)
    for epochs in (2, EPOCHS):
        assert call(flags(tmp_path, *more.split(), "-num_epochs", epochs)).code == 0
    assert_same_run(tmp_path / straight.name, straight)
    assert [p.step for p in read_log(tmp_path / straight.name).Scalars("gap")] == [1, 2, 3, 4]


@pytest.mark.parametrize("more", [FIELD, WHITE])
def test_recovered_pixels_of_all_clips_are_judged_and_visible_ones_kept(more, runs, flags):
    args = main.parse(flags(runs(more).parent, *more.split()))[0]
    truth, hidden, *_ = data.load_clips(args.data_path, args.category, 12, (16, 16), args.mask_type, None, 0, 0, 1)
    rows = {row["name"]: row for row in json.loads((runs(more) / "recovery.json").read_text())["rows"]}
    assert list(rows)[:3] == ["mean of samples", "one sample", "Gaussian field"] and rows["MRF-l1"]["hidden_mae"] > 0
    for name, row in (("mean", "mean of samples"), ("sample", "one sample")):
        folders = sorted((runs(more) / f"recovered_{name}_sequence").iterdir())
        found = np.stack([[np.asarray(Image.open(path)) for path in sorted(folder.iterdir())] for folder in folders])
        assert np.array_equal(found[~hidden], truth[~hidden]) and rows[row]["visible_error"] == 0
        error = np.abs(found.astype(float) - truth)[hidden].mean()
        assert rows[row]["hidden_mae"] == pytest.approx(error, rel=1e-5)
    kinds = ("sequence", "observed", "masked", "sample")
    assert films(runs(more)) == {"all"} | {f"{kind}_{k}" for kind in kinds for k in range(len(truth))}


@pytest.mark.parametrize("preset, kind, frames", [("quality", "every_second", 12), ("released", "region", 12),
                                                  ("quality", "future", 20)])
def test_a_learned_model_fills_in_another_clip(preset, kind, frames, tmp_path, flags, runs):
    """Also frames that the clip, which has 16, does not have."""
    more = ["-test", "-ckpt", runs(f"-preset {preset}") / "model/latest.pt", "-category", "other", "-mask_type", kind]
    done = call(flags(tmp_path, *more, "-num_frames", frames, "-test_steps", 2))
    assert done.code == 0, done.err
    folder = tmp_path / "other/test"
    assert len(list((folder / "recovered_sample_sequence/sequence_0").iterdir())) == frames
    assert films(folder) == {"all", "sequence_0", "masked_0", "sample_0"}
    rows = json.loads((folder / "recovery.json").read_text())["rows"]
    assert rows[0]["name"] == "mean of samples" and rows[1]["visible_error"] == 0 and rows[1]["hidden_mae"] > 0


def test_a_clip_moves_if_what_is_visible_does():
    videos = np.zeros((2, 5, 4, 6, 3), np.uint8)
    hidden = np.zeros(videos.shape[:-1], bool)
    hidden[:, 0] = True  # a whole frame, the first
    videos[1, 0] = 9
    assert move(videos, None) and not move(videos, hidden)
    videos[1, 3, 2, 2, 1] = 9
    assert move(videos, hidden)
    hidden[1, :, 2, 2] = True
    assert not move(videos, hidden)
