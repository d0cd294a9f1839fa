"""Many chains: what a run holds beside them, how an epoch that is interrupted goes on, and which of them are shown."""

import gc
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from pretend_gpu import OnGpu
from small import call, new_videos, sample
from tools import assert_same_run, rows_of, state_of

import stg.chains
from fast.gradient import FastGradient
from fast.graph import FastLangevin
from model import Descriptor
from run import ranks

pytestmark = pytest.mark.usefixtures("undrawn")


def storage(x):
    x = (x.inner if isinstance(x, OnGpu) else x).untyped_storage()
    return x.data_ptr(), x.nbytes()


def held(device):
    """Bytes of all tensors on a device that Python can see."""
    tensors = [x for x in gc.get_objects() if issubclass(type(x), torch.Tensor) and x.device.type == device]
    return sum(dict(map(storage, tensors)).values())


def watched(function, watch):
    """The function, but it calls watch() after each call."""

    def call_it(*args, **kwargs):
        result = function(*args, **kwargs)
        watch()
        return result

    return call_it


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_beside_the_chains_there_is_no_more_than_a_chunk_of_them(device, tmp_path, flags, monkeypatch):
    """On a GPU they are in the host's memory, and visit it."""
    monkeypatch.setattr(stg.chains, "holds", lambda *_: device == "cpu")
    seen, most, video = [], {}, 12 * 12 * 16 * 16  # bytes
    for owner, name in ((FastLangevin, "__call__"), (Descriptor, "features")):
        monkeypatch.setattr(owner, name, watched(getattr(owner, name), lambda: seen.append(held(device))))
    for chains in (4, 10):
        seen.clear()
        gc.collect()  # what the run before has left
        more = ("-num_chain", chains, "-chunk", 2, "-num_epochs", 2, "-sample_steps", 1)
        done = call([*flags(tmp_path / f"{chains}", *more), "-device", device])
        assert done.code == 0, done.err
        most[chains] = max(seen)
    assert most[10] - most[4] <= (6 * video if device == "cpu" else 0) + 2 * video


def test_an_interrupted_epoch_goes_on_with_the_chains_that_have_yet_to_move(tmp_path, flags, monkeypatch):
    """Stopped in epoch 2, in the second of three mini-batches, in the second of its two chunks."""
    more, call_it, calls = "-category three -num_chain 3 -chunk 2 -num_epochs 4".split(), FastGradient.__call__, []

    def stopping(gradient, x):
        calls.append(len(x))
        if len(calls) == 18 + 6 + 3 + 2:
            raise KeyboardInterrupt
        return call_it(gradient, x)

    assert call(flags(tmp_path / "straight", *more)).code == 0
    with monkeypatch.context() as patch:
        patch.setattr(FastGradient, "__call__", stopping)
        assert call(flags(tmp_path / "stopped", *more)).code == 130
    state = state_of(tmp_path / "stopped/three")
    moved = [(pulls != stg.chains.STAYS).tolist() for pulls in state["pulls"]]
    assert state["epoch"] == 1 and moved == [[True] * 3, [True, True, False], [False] * 3]
    calls.clear()
    monkeypatch.setattr(FastGradient, "__call__", lambda gradient, x: calls.append(1) or call_it(gradient, x))
    assert call(flags(tmp_path / "stopped", *more)).code == 0
    assert len(calls) == 18 * 3 - 9
    assert_same_run(tmp_path / "stopped/three", tmp_path / "straight/three")
    timed = [row["seconds_per_step"] != "" for row in rows_of(tmp_path / "stopped/three")]
    assert timed == [True, False, True, True]  # an epoch that went on has not moved all chains in its time


def test_chains_that_are_no_numbers_any_more_are_not_taken(tmp_path, flags, monkeypatch):
    """In epoch 3 the second chunk of two diverges."""
    call_it, calls = FastGradient.__call__, []

    def diverging(gradient, x):
        calls.append(1)
        return call_it(gradient, x) * (float("nan") if len(calls) > 12 + 3 else 1)

    monkeypatch.setattr(FastGradient, "__call__", diverging)
    done = call(flags(tmp_path, "-chunk", 1, "-num_epochs", 4))
    assert done.code == 1 and "diverged in epoch 3: chain_mean is nan" in done.err
    state = state_of(tmp_path / "clip")
    assert state["chains"][0].isfinite().all() and (state["pulls"][0] != stg.chains.STAYS).tolist() == [True, False]


def test_of_many_chains_the_first_are_filmed_and_all_are_kept(tmp_path, flags, monkeypatch):
    for module in ("main", "stg.outputs"):
        monkeypatch.setattr(f"{module}.FILMS", 4)
    done = call(flags(tmp_path, *"-category three -num_chain 3 -num_epochs 2".split()))
    assert (done.code, done.err) == (0, "") and "of 9 chains the first 4 are filmed and judged" in done.out
    run, names = tmp_path / "three", {f"sequence_{k}" for k in range(4)}
    assert {p.name for p in (run / "synthesized_sequence").iterdir()} == names
    assert {p.stem for p in (run / "final_results").glob("*.gif")} == names | {"all"}
    assert "mean of 4" in (run / "evaluation.csv").read_text()
    state = state_of(run)
    chains = torch.cat(state["chains"])
    levels = (chains + state["reference"]["mean"]).clamp(0, 255).round().permute(0, 2, 3, 4, 1).byte().numpy()
    frames = [np.stack([np.asarray(Image.open(run / f"synthesized_sequence/sequence_{k}/{t:03d}.png"))
                        for t in range(12)]) for k in range(4)]
    assert len(chains) == 9 and np.array_equal(frames, levels[:4])
    assert float(rows_of(run)[-1]["chain_mean"]) == pytest.approx((chains + state["reference"]["mean"]).mean().item(),
                                                                  rel=1e-5)
    shutil.move(run, tmp_path / "clip")
    assert sample(tmp_path, "-start", "chains", "-sample_size", 9, "-chunk", 4, steps=0).code == 0
    assert np.array_equal(new_videos(tmp_path), levels)


def test_only_the_first_process_makes_films_of_chains_that_it_has(monkeypatch):
    for name, value in {"world": 2, "rank": 1}.items():
        monkeypatch.setattr(ranks, name, lambda value=value: value)
    chains = object.__new__(stg.chains.Chains)  # the second's: they can make none
    chains.counts = [3]
    assert not len(chains.shown(2))


@pytest.mark.parametrize("reference", ["white", "field"])
def test_the_gradient_of_hidden_pixels_is_taken_a_chunk_at_a_time(reference, tmp_path, flags, monkeypatch):
    most, call_it, runs = [], FastGradient.__call__, []
    monkeypatch.setattr(FastGradient, "__call__", lambda gradient, x: most.append(len(x)) or call_it(gradient, x))
    for chunk in (1, 4):
        more = "-category three -batch_size 3 -num_chain 1 -num_epochs 1 -mask_type region".split()
        assert call(flags(tmp_path / f"{chunk}", *more, "-reference", reference, "-chunk", chunk)).code == 0
        runs.append(torch.cat(state_of(tmp_path / f"{chunk}/three")["recovered"]["I"]))
        assert max(most) == min(chunk, 3)
    assert (runs[0] - runs[1]).abs().max() < 0.1  # grey levels
