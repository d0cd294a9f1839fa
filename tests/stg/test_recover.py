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
from judge import fillings
from recover import BLENDS, draw_probes, hide

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


@pytest.mark.parametrize("kind", ["region", "missing_frames", "salt_pepper"])
def test_probes_are_visible_pixels_of_a_few_frames(kind):
    hidden = np.stack([data.draw_mask(kind, 40, (30, 30), np.random.default_rng(k)) for k in range(2)])
    probes = draw_probes(hidden)
    assert not (probes & hidden).any()
    frames = probes.any(axis=(2, 3)).sum(axis=1)
    assert (frames >= 1).all() and (frames <= 5).all()
    assert not draw_probes(np.zeros_like(hidden)).any()
    lone = np.arange(8).reshape(1, 8, 1, 1) != 4  # one visible frame, which the moved mask hides
    assert not draw_probes(lone).any()


@pytest.fixture
def recovering(moving):
    """A learner of a clip with hidden pixels, at its start, and the clip in its units."""
    args = main.parse(["-im_size", "16", "-num_frames", "16", "-num_chain", "1", "-mask_type", "region"])[0]
    args.device, args.precision = torch.device("cpu"), "fp32"
    clip = moving(16, 16, 16)[None]
    hidden = data.draw_mask("region", 16, (16, 16), np.random.default_rng(0))[None]
    learner = main.make_learner(args, model.descriptor("FC_S_large", 16, 16), None, clip, hidden)
    return learner, data.to_tensor(clip) - learner.reference.mean


@pytest.mark.parametrize("share", [0, 0.35, 1])
def test_a_blend_goes_as_far_to_the_mean_of_samples_as_the_probes_advise(share, recovering):
    learner, truth = recovering
    recovery = learner.recovery
    [blind], [full], [hidden], [probes] = recovery.blind, recovery.full, recovery.hidden, recovery.probes
    step = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0)) * hidden
    at_probes = blind + (truth - blind) / share if share else 2 * blind - truth  # exact, or worse
    recovery.average = [torch.where(probes, at_probes, blind + step)]
    assert recovery.blend_share() == share
    [recovered] = learner.recovered("blend")
    assert torch.allclose(recovered, torch.where(hidden & ~probes, full + share * step, truth), atol=1e-3)
    assert torch.equal(recovered[(~hidden | probes).expand_as(truth)], truth[(~hidden | probes).expand_as(truth)])


@pytest.mark.parametrize("start, exact", [("field", False), ("linear", True), ("mean", True)])
def test_hidden_pixels_start_by_the_guess_that_is_asked_for(start, exact, moving):
    clip = moving(12, 16, 16)[None]
    hidden = data.draw_mask("region", 12, (16, 16), np.random.default_rng(0))[None]
    probes = draw_probes(hidden)
    blind, full = hide(clip, hidden, probes, start, "cpu")
    names = {"field": "interpolate_field", "linear": "interpolate_linear", "mean": "fill_flat"}
    fill = getattr(fillings, names[start])
    for found, mask in ((blind, hidden | probes), (full, hidden)):
        video = found[0].permute(1, 2, 3, 0).numpy()
        assert np.array_equal(video[~mask[0]], clip[0][~mask[0]].astype(np.float32))
        if exact or found is blind:
            assert np.array_equal(video, fill(clip[0], mask[0]))


@pytest.mark.parametrize("readout", ["blend", "last", "mean", "noise_free"])
def test_every_readout_keeps_visible_pixels_and_is_judged(readout, tmp_path, flags):
    more = ["-mask_type", "region", "-readout", readout, "-num_epochs", 3]
    assert call(flags(tmp_path, *more)).code == 0
    report = json.loads((tmp_path / "clip/recovery.json").read_text())
    assert report["settings"].get("blend_share") in (BLENDS if readout == "blend" else [None])
    judged = {row["name"]: row for row in report["rows"]}
    assert list(judged)[:3] == ["recovered", "Gaussian field", "mean of samples"]
    assert all(row["visible_error"] == 0 for row in judged.values())
    if readout == "mean":
        assert judged["recovered"] | {"name": ""} == judged["mean of samples"] | {"name": ""}


def test_recovered_pixels_of_all_clips_are_judged(tmp_path, flags):
    more = ["-category", "three", "-mask_type", "region", "-batch_size", 2, "-num_epochs", 2]
    assert call(flags(tmp_path, *more)).code == 0
    args = main.parse(flags(tmp_path, *more))[0]
    truth, hidden, *_ = main.load(args.data_path, "three", 12, (16, 16), "region", None, args.seed, 0, 1)
    frames = [sorted((tmp_path / f"three/recovered_sequence/sequence_{k}").iterdir()) for k in range(3)]
    recovered = np.stack([[np.asarray(Image.open(path)) for path in clip] for clip in frames])
    rows = {row["name"]: row for row in json.loads((tmp_path / "three/recovery.json").read_text())["rows"]}
    error = np.abs(recovered.astype(float) - truth)[hidden].mean()
    assert rows["recovered"]["hidden_mae"] == pytest.approx(error, rel=1e-5)
    assert rows["mean of samples"]["visible_error"] == 0 and rows["MRF-l1"]["hidden_mae"] > 0
