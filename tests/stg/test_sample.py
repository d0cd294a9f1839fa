"""New videos of a learned model: main.py -test."""

import csv

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from small import LEARNED, call, new_videos, sample
from tools import assert_refused, contents, state_of

import data
import model
import utils
from judge.metrics import texture_metrics
from langevin import gaussian_, langevin
from reference import load_reference

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture
def copy_of_learned(runs, copy_of):
    """copy_of_learned(model) -> the output_dir of a copy of the run of one of LEARNED."""
    return lambda model: copy_of(runs(LEARNED[model]))


@pytest.mark.parametrize("net_type, more, shape", [
    ("FC_S_large", "", (3, 12, 16, 16, 3)),
    ("FC_S_large", "-num_frames 20 -sample_size 2 -start noise", (2, 20, 16, 16, 3)),
    ("FC_S_large", "-sample_size 1 -start chains", (1, 12, 16, 16, 3)),
    ("FC_S_large", "-loop -num_frames 13", (3, 18, 16, 16, 3)),  # a multiple of its strides in time, 3 * 2
    ("ST", "-im_size 24x18 -num_frames 10 -sample_size 2", (2, 10, 24, 18, 3)),
    ("FC", "-sample_size 4", (4, 12, 16, 16, 3)),
    ("FC_S_large field", "-num_frames 20 -sample_size 2", (2, 20, 16, 16, 3)),
    ("FC_S_large field", "-sample_size 3 -start chains", (3, 12, 16, 16, 3)),
    ("FC_S_large field", "-loop -num_frames 13", (3, 18, 16, 16, 3)),
    ("ST field", "-im_size 24x18 -num_frames 10 -sample_size 2", (2, 10, 24, 18, 3)),
])
def test_new_videos_have_the_size_that_is_asked_for(net_type, more, shape, copy_of_learned):
    output = copy_of_learned(net_type)
    before = contents(output)
    done = sample(output, *more.split(), steps=1)
    assert (done.code, done.err) == (0, "") and f"{shape[0]} new videos of {shape[1]} frames" in done.out
    assert ("not judged: data_path 'none'" in done.out) == (shape[2:4] == (16, 16))
    assert new_videos(output).shape == shape
    after = contents(output)
    page = ("index.html", "page_parts.js")  # which shows new videos, too
    assert all(after[name] == before[name] for name in before if name.name not in page)
    assert all("test" in name.parts for name in after.keys() - before.keys())
    assert iio.imread(output / "clip/test/final_results/sequence_0.gif").shape == shape[1:]


def test_new_videos_are_judged_in_pieces_as_long_as_the_clip(copy_of_learned, data_path):
    output = copy_of_learned("FC_S_large")
    done = sample(output, "-data_path", data_path, *"-loop -num_frames 25 -sample_size 2".split())
    assert (done.code, done.err) == (0, "")
    videos = new_videos(output)
    assert videos.shape == (2, 30, 16, 16, 3)
    for k, video in enumerate(videos.astype(float)):
        steps = [np.abs(video[t] - video[t - 1]).mean() for t in range(30)]
        assert (f"video {k}: frames differ by {steps[0]:.1f} across the seam, by {min(steps[1:]):.1f} to "
                f"{max(steps[1:]):.1f} elsewhere") in done.out
    with open(output / "clip/test/evaluation.csv", newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    clip = data.read_clip(data_path / "clip/clip.mp4", 12, (16, 16))
    for k, t in ((0, 0), (0, 12), (1, 0), (1, 12)):
        expected = texture_metrics(videos[k, t : t + 12], clip, 3)
        assert float(rows[f"new {k} from frame {t}"]["imprint"]) == pytest.approx(expected["imprint"], rel=1e-5)
    assert (output / "clip/test/evaluation.png").exists() and sum(name.startswith("new") for name in rows) == 4


@pytest.mark.parametrize("net, more", [("ST", []), ("ST field", []), ("ST field", ["-start", "chains"])])
def test_new_videos_are_langevin_dynamics_of_the_learned_model(net, more, copy_of_learned, monkeypatch):
    """Two steps from the reference's noise or from the chains, beside the same steps by autograd."""
    seen, to_uint8 = [], utils.to_uint8
    monkeypatch.setattr(utils, "to_uint8", lambda videos: seen.append(videos.clone()) or to_uint8(videos))
    output, delta = copy_of_learned(net), 0.5
    state = state_of(output / "clip")
    if "field" in net:  # that the drift soon matters
        state["net"]["layers.2.weight"] *= 1000
        torch.save(state, output / "clip/model/latest.pt")
    assert sample(output, "-seed", 5, "-sample_size", 2, *more, steps=2).code == 0
    f = model.descriptor("ST", 12, 16)
    f.load_state_dict(state["net"])
    q = load_reference(state)
    y = torch.cat(state["chains"]) if more else q.noise([utils.generator("cpu", 5, "start", k) for k in (0, 1)])
    draws, drifts = [utils.generator("cpu", 5, "test", k) for k in (0, 1)], []
    for _ in range(2):
        Z = gaussian_(torch.empty_like(y), draws)
        y.requires_grad_()
        drifts.append(delta**2 / 2 * torch.autograd.grad(f(q.video(y)).sum(), y)[0])
        y = (y * (1 - delta**2 / 2) + drifts[-1] + delta * Z).detach()
    assert max(drift.abs().max() for drift in drifts) > 0.1
    off = (seen[-1] - q.mean - q.video(y)).abs()  # colours of a field may change fast with its noise
    assert off.mean() < 1e-3 and off.max() < 0.05


def test_the_seed_decides_new_videos_and_no_two_are_alike(copy_of_learned):
    output, videos = copy_of_learned("FC_S_large field"), []
    for seed in (1, 1, 2):
        assert sample(output, "-seed", seed, steps=1).code == 0
        videos.append(new_videos(output).astype(float))
    assert np.array_equal(videos[0], videos[1])
    everything = np.concatenate([videos[0], videos[2]]).reshape(6, -1)
    apart = np.abs(everything[:, None] - everything[None]).mean(2)
    assert (apart + 99 * np.eye(6)).min() > 0.5 * np.abs(np.diff(everything, axis=1)).mean()


def test_the_chunk_changes_no_new_video(copy_of_learned):
    output, videos = copy_of_learned("ST"), []
    for chunk in (0, 1, 2):
        assert sample(output, "-num_frames", 15, "-chunk", chunk, steps=1).code == 0
        videos.append(new_videos(output).astype(int))
    assert np.abs(videos[0] - videos[1]).max() <= 1 and np.abs(videos[0] - videos[2]).max() <= 1
    assert videos[0].std() > 0


def test_new_videos_replace_those_of_before(copy_of_learned, data_path):
    output = copy_of_learned("FC_S_large")
    assert sample(output, "-data_path", data_path, "-sample_size", 3).code == 0
    assert (output / "clip/test/evaluation.csv").exists()
    assert sample(output, "-num_frames", 5, "-sample_size", 1).code == 0
    assert new_videos(output).shape == (1, 5, 16, 16, 3)
    assert not list((output / "clip/test").glob("evaluation.*"))


@pytest.mark.parametrize("net_type, more, message", [
    ("FC", "-num_frames 20", "FC not at all"),
    ("FC_S_large", "-im_size 24", "in time"),
    ("ST", "-im_size 24 -start chains", "-start noise"),
    ("ST", f"-ckpt {__file__}", "cannot load checkpoint"),
    ("ST", "-category none", "there is no checkpoint"),
])
def test_new_videos_that_cannot_be_are_refused(net_type, more, message, copy_of_learned):
    output = copy_of_learned(net_type)
    before = contents(output)
    assert_refused(sample(output, *more.split()), message)
    assert contents(output) == before


@pytest.mark.parametrize("reference, falls", [("white", 0.1), ("field", 1)])
def test_chains_move_by_the_step_size_of_their_epoch(reference, falls, tmp_path, flags, monkeypatch):
    seen = []
    for module in ("fast.graph", "sample"):
        monkeypatch.setattr(f"{module}.langevin", lambda x, score, steps, delta, *more: (
            seen.append(delta), langevin(x, score, steps, delta, *more))[1])
    done = call(flags(tmp_path, "-num_epochs", 4, "-anneal", 0.5, "-step_size", 0.4, "-reference", reference))
    assert done.code == 0 and seen == pytest.approx([0.4 * fall**0.5 for fall in (1, 1, 1, falls**0.5)])
    assert sample(tmp_path, steps=1).code == 0
    assert seen[4:] == pytest.approx([0.4 * falls**0.5])


@pytest.mark.usefixtures("gpu")
def test_a_gpu_picks_its_precision_and_samples_what_it_has_learned(tmp_path, flags):
    done = call([*flags(tmp_path, "-num_epochs", 1), "-precision", "auto", "-device", "cuda", "-net_type", "ST"])
    assert done.code == 0 and "device cuda" in done.out, done.err
    done = sample(tmp_path, "-loop", "-num_frames", "20", "-device", "cuda")
    assert done.code == 0, done.err
    assert new_videos(tmp_path).shape == (3, 21, 16, 16, 3)
