"""Hidden pixels: never looked at, guessed, recovered and judged."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from small import call
from tools import (
    assert_refused,
    assert_same_state,
)

import data
import main
import model

pytestmark = pytest.mark.usefixtures("undrawn")


def test_hidden_pixels_are_never_looked_at(tmp_path, flags, moving):
    """Two clips that differ under the mask alone give the same run, bit for bit."""
    clip = moving(12, 16, 16)
    hidden = np.random.default_rng(0).random(clip.shape[:3]) < 0.4
    np.save(tmp_path / "mask.npy", hidden)
    for name, change in (("one", 0), ("two", 77)):
        folder = tmp_path / name / "clip" / "images"
        folder.mkdir(parents=True)
        for t, frame in enumerate(np.where(hidden[..., None], clip // 2 + change, clip).astype(np.uint8)):
            Image.fromarray(frame).save(folder / f"{t}.png")
        more = ["-mask_type", "external", "-mask_file", tmp_path / "mask.npy", "-num_epochs", 2]
        assert call(flags(tmp_path / f"output_{name}", "-data_path", tmp_path / name, *more)).code == 0
    assert_same_state(tmp_path / "output_one/clip", tmp_path / "output_two/clip")


@pytest.mark.parametrize("hides, said", [(True, "hides every pixel"), (False, "hides no pixel")])
def test_a_mask_that_hides_all_or_nothing_is_an_error_of_one_line(hides, said, tmp_path, flags):
    np.save(tmp_path / "mask.npy", np.full((12, 16, 16), hides))
    done = call(flags(tmp_path / "new", "-mask_type", "external", "-mask_file", tmp_path / "mask.npy"))
    assert_refused(done, said)
    assert not (tmp_path / "new").exists()



@pytest.fixture
def recovering(moving):
    """A learner of a clip with hidden pixels, at its start, and the clip in its units."""

    def make(*flags):
        args = main.parse(["-im_size", "16", "-num_frames", "16", "-num_chain", "1", "-mask_type", "region", *flags])[0]
        args.device, args.precision = torch.device("cpu"), "fp32"
        clip = moving(16, 16, 16)[None]
        hidden = data.draw_mask("region", 16, (16, 16), np.random.default_rng(0))[None]
        learner = main.make_learner(args, model.descriptor("FC_S_large", 16, 16), None, clip, hidden)
        return learner, data.to_tensor(clip) - learner.reference.mean

    return make


def test_the_mean_of_samples_is_the_fields_until_f_has_a_gradient(recovering):
    """Then it moves along that gradient's mean over the epochs, by the field's covariance (Stein's identity)."""
    learner, I = recovering("-preset", "quality")
    recovery, [hidden] = learner.recovery, learner.recovery.hidden
    field, sampler = recovery.field, learner.langevin
    expected = torch.where(hidden, field.video(0, field.expected[0]) - learner.reference.mean, I)
    assert torch.equal(recovery.mean(1.0)[0], expected)
    g = torch.randn(I.shape, generator=torch.Generator().manual_seed(0))
    for epoch, gradient in ((1, lambda x: g), (2, lambda x: 3 * g)):
        moved = recovery.move(0, I, gradient, sampler, 0.5, 1.0, [torch.Generator().manual_seed(epoch)])
        assert torch.equal(moved[~hidden.expand_as(I)], I[~hidden.expand_as(I)])
        recovery.update([moved], epoch)
    step = field.video(0, 0.25 * field.spread(0, field.pull((2 * g * hidden)[0]))) - field.mean[0][:, None]
    assert step.norm() > 1
    off = recovery.mean(0.5)[0] - torch.where(hidden, expected + step, I)
    assert off.norm() < 0.1 * step.norm()


def test_recovered_pixels_of_all_clips_are_judged(tmp_path, flags):
    more = ["-category", "three", "-mask_type", "region", "-batch_size", 2, "-num_epochs", 2, "-preset", "quality"]
    assert call(flags(tmp_path, *more)).code == 0
    args = main.parse(flags(tmp_path, *more))[0]
    truth, hidden, *_ = data.load_clips(args.data_path, "three", 12, (16, 16), "region", None, args.seed, 0, 1)
    frames = [sorted((tmp_path / f"three/recovered_mean_sequence/sequence_{k}").iterdir()) for k in range(3)]
    recovered = np.stack([[np.asarray(Image.open(path)) for path in clip] for clip in frames])
    rows = {row["name"]: row for row in json.loads((tmp_path / "three/recovery.json").read_text())["rows"]}
    error = np.abs(recovered.astype(float) - truth)[hidden].mean()
    assert rows["mean of samples"]["hidden_mae"] == pytest.approx(error, rel=1e-5)
    assert rows["one sample"]["visible_error"] == 0 and rows["MRF-l1"]["hidden_mae"] > 0


@pytest.mark.parametrize("preset", ["released", "quality"])
def test_recovered_clips_keep_visible_pixels_and_are_judged(preset, tmp_path, flags):
    assert call(flags(tmp_path, "-mask_type", "region", "-preset", preset, "-num_epochs", 3)).code == 0
    rows = json.loads((tmp_path / "clip/recovery.json").read_text())["rows"]
    assert [row["name"] for row in rows[:3]] == ["mean of samples", "one sample", "Gaussian field"]
    assert all(row["visible_error"] == 0 for row in rows)
    for name in ("mean", "sample"):
        assert (tmp_path / f"clip/recovered_{name}_sequence/sequence_0/000.png").exists()


@pytest.mark.parametrize("preset, kind, frames", [("quality", "every_second", 12), ("released", "region", 12),
                                                  ("quality", "future", 20)])
def test_a_learned_model_fills_in_another_clip(preset, kind, frames, tmp_path, flags):
    """Also frames that the clip, which has 16, does not have."""
    learned = flags(tmp_path, "-preset", preset, "-num_epochs", 1)
    assert call(learned).code == 0
    more = ["-test", "-ckpt", tmp_path / "clip/model/latest.pt", "-category", "other", "-mask_type", kind]
    done = call([*learned, *map(str, more), "-num_frames", str(frames), "-test_steps", "2"])
    assert done.code == 0, done.err
    folder = tmp_path / "other/test"
    assert len(list((folder / "recovered_sample_sequence/sequence_0").iterdir())) == frames
    rows = json.loads((folder / "recovery.json").read_text())["rows"]
    assert rows[0]["name"] == "mean of samples" and rows[1]["visible_error"] == 0 and rows[1]["hidden_mae"] > 0
