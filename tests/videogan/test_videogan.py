"""VideoGAN: its nets against the released sizes and a reference of their own, its losses, its data, and whole runs."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from calls import call, frames_of, narrow, succeeds
from PIL import Image
from tools import assert_refused, leaves, rows_of, state_of
from torch import nn

import data
import main_videogan
import videogan.nets
from judge.tables import window_report
from run.adam import Adam
from videogan.clips import Strips, check_bad, first_of, load, order, split_strips
from videogan.generate import frames_of_clips
from videogan.learn import build_nets, discriminator_loss, generator_loss, make_learner
from videogan.nets import FAKE, REAL, Discriminator, Generator, Scene, compose
from videogan.settings import parse, settings_of

ROOT = Path(__file__).parents[2]
RELEASED = videogan.nets.WIDTH


@pytest.fixture(scope="module", autouse=True)
def small():
    with narrow(16, 4):
        yield


@pytest.fixture
def released_width(monkeypatch):
    monkeypatch.setattr("videogan.nets.WIDTH", RELEASED)


def count(*nets):
    return sum(p.numel() for net in nets for p in net.parameters())


def write_strips(folder, clips, side=64):
    """Clips uint8 (N, T, H, W, 3) as strips and their list."""
    folder.mkdir(parents=True)
    for k, clip in enumerate(clips):
        frames = [np.asarray(Image.fromarray(frame).resize((side, side))) for frame in clip]
        Image.fromarray(np.concatenate(frames)).save(folder / f"{k}.png")
    (folder / "list.txt").write_text("".join(f"{k}.png\n" for k in range(len(clips))))


def load_of(args):
    return load(data_path=args.data_path, data_list=args.data_list, category=args.category,
                window_step=args.window_step, share=args.held_out)[:2]


def settings(*flags):
    return parse(["-device", "cpu", "-batch_size", "2", "-workers", "0", *map(str, flags)])[0]


# ------------------------------------------------------------------------------------------------------------ nets


def test_sizes_and_weights_at_the_start_are_the_released_ones(released_width):
    G, C, D = Generator(), Generator(conditional=True), Discriminator()
    parts = [count(part) for part in (G.background, G.trunk, G.foreground, G.mask, G)]
    assert parts == [3_577_667, 12_651_328, 12_291, 4_097, 16_245_383]
    parts = [count(part) for part in (C.encoder, C.background, C.trunk, C)]
    assert parts == [11_021_696, 11_018_883, 46_143_104, 68_216_455] and count(C.foreground, C.mask) == 32_772
    assert (count(Generator(streams=1)), count(D)) == (12_663_619, 11_057_858)
    assert count(Discriminator(conditional=True)) == 44_135_810
    convolution, norm = D.features[3][0], D.features[3][1]
    assert abs(convolution.weight.std() - 0.01) < 1e-4 and abs(convolution.weight.mean()) < 1e-4
    assert abs(norm.weight.mean() - 1) < 0.01 and abs(norm.weight.std() - 0.02) < 0.005
    assert not convolution.bias.any() and not norm.bias.any()


@pytest.mark.parametrize("n, conditional", [(1, False), (2, False), (1, True)])
def test_a_scene_is_its_foreground_over_its_background(n, conditional):
    G = Generator(conditional=conditional)
    video, f, m, b = G(torch.randn(n, 3, 64, 64) if conditional else torch.randn(n, 100))
    assert video.shape == f.shape == (n, 3, 32, 64, 64) and m.shape == (n, 1, 32, 64, 64) and b.shape == (n, 3, 64, 64)
    for t in (0, 13, 31):
        assert torch.allclose(video[:, :, t], m[:, :, t] * f[:, :, t] + (1 - m[:, :, t]) * b, atol=1e-6)
    assert abs(m.mean() - 0.5) < 0.1  # by its initialisation
    assert f.abs().max() <= 1 and b.abs().max() <= 1 and 0 <= m.min() and m.max() <= 1
    assert torch.equal(compose(f, 0 * m, b), b[:, :, None].expand_as(f)) and torch.equal(compose(f, 0 * m + 1, b), f)


def test_one_stream_is_the_foreground_alone():
    scene = Generator(streams=1)(torch.randn(1, 100))
    assert scene.video is scene.foreground and scene.mask is None and scene.background is None


# ---------------------------------------------------------------------------------------------------------- losses


class Bright(nn.Module):
    """A discriminator whose log-odds of "real" are the mean of what it sees."""

    def forward(self, video):
        odds = video.flatten(1).mean(1)
        return torch.stack([odds if k == REAL else 0 * odds for k in sorted((FAKE, REAL))], 1)


def test_losses_have_their_closed_forms():
    video, mask = torch.ones(2, 3, 4, 5, 5), torch.rand(2, 1, 4, 5, 5, requires_grad=True)
    scene, frame, right = Scene(video, video, mask, None), video[:, :, 0] - 0.25, np.log1p(np.exp(-1))
    total, adversarial, mean, error = generator_loss(Bright(), scene, frame, 0.1, 10)
    assert adversarial.item() == pytest.approx(right) and error.item() == pytest.approx(0.25)
    assert total.item() == pytest.approx(right + 0.1 * mask.mean().item() + 2.5)
    total.backward()
    assert torch.allclose(mask.grad, torch.full_like(mask, 0.1 / mask.numel()))
    assert discriminator_loss(Bright(), video, -video)[0].item() == pytest.approx(2 * right)


def test_each_loss_reaches_only_its_own_net_and_a_step_goes_its_way():
    torch.manual_seed(0)
    args, G, D = settings(), Generator(), Discriminator()
    z, real = torch.randn(4, 100), torch.rand(4, 3, 32, 64, 64) * 2 - 1
    scene = G(z)
    loss_D, on_real, *_ = discriminator_loss(D, real, scene.video)
    assert on_real.shape == (4, 2)
    loss_D.backward()
    assert all(p.grad is None for p in G.parameters()) and all(p.grad.any() for p in D.parameters() if p.ndim > 1)
    Adam(D.parameters(), args.lr, args.beta1).step()
    assert discriminator_loss(D, real, scene.video)[0] < loss_D

    D.zero_grad()
    loss_G, before, *_ = generator_loss(D, scene, None, 0.1, 0)
    loss_G.backward()
    assert all(p.grad is None for p in D.parameters()) and all(p.grad.any() for p in G.parameters() if p.ndim > 1)
    assert all(p.requires_grad for p in D.parameters())
    Adam(G.parameters(), args.lr, args.beta1).step()
    assert generator_loss(D, G(z), None, 0.1, 0)[1] < before  # cross entropy of "real"


# ------------------------------------------------------------------------------------------------------------ data


def test_a_strip_repeats_its_last_frame_and_has_whole_ones(tmp_path, moving):
    clip, path = moving(20, 128, 128), tmp_path / "strip.png"
    Image.fromarray(clip.reshape(-1, 128, 3)).save(path)
    frames = data.read_strip(path, 32, 64)
    assert frames.shape == (32, 64, 64, 3) and np.array_equal(frames[7], data.resize_frame(clip[7], 64, 64))
    assert (frames[20:] == frames[19]).all()
    Image.new("RGB", (64, 64 * 5 + 1)).save(path)
    with pytest.raises(data.InputError, match="no whole number"):
        data.read_strip(path, 32, 64)


def test_a_list_may_have_classes(tmp_path):
    (tmp_path / "list.txt").write_text("golf/a 1.jpg 17\n\nb.jpg\n")
    assert data.list_strips(tmp_path / "list.txt", "root") == [Path("root/golf/a 1.jpg"), Path("root/b.jpg")]


def test_videos_become_windows_and_their_ends_are_held_out(tmp_path, moving, write_clip):
    write_clip(tmp_path / "sea/long.mp4", moving(150, 32, 48))
    write_clip(tmp_path / "sea/short.mp4", moving(20, 32, 48))
    train, held_out = load_of(settings("-category", "sea", "-data_path", tmp_path, "-window_step", 5))
    assert train.starts == [(0, t) for t in range(0, 150 - 32 - 32 + 1, 5)] + [(1, 0)]
    assert held_out.starts == [(0, 118)]
    last, _ = train[len(train) - 1]
    assert last.shape == (32, 64, 64, 3) and (last[20:] == last[19]).all()
    whole = data.read_clip(tmp_path / "sea/long.mp4", None, (64, 64))
    assert np.array_equal(train[3][0], whole[15:47]) and np.array_equal(held_out[0][0], whole[118:])


def test_strips_are_held_out_evenly():
    train, held_out = split_strips(list(range(20)), 0.2)
    assert held_out.paths == [2, 8, 12, 18] and sorted(train.paths + held_out.paths) == list(range(20))


def test_the_shipped_beach_moves_under_a_camera_that_does_not():
    folder = ROOT / "trainingVideo/beach"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2e6
    train, held_out = load_of(settings("-category", "beach", "-data_path", folder.parent))
    assert len(train) + len(held_out) >= 24 and len(held_out) >= 2
    for path in (*train.paths, *held_out.paths):
        assert Image.open(path).size == (128, 32 * 128)
        clip = data.read_strip(path, 32, 64).astype(float)
        change = np.abs(clip[16] - clip[0]).mean(axis=(1, 2))  # by rows
        assert change.max() > 5 and change[:8].max() < 5, path  # waves, and a sky that stands still


def test_every_epoch_has_each_clip_once_and_resuming_changes_nothing():
    batches = order(10, 4, 0, 0)
    first = [next(batches) for _ in range(10)]
    stream = sum(first, [])
    assert sorted(stream[:10]) == sorted(stream[10:20]) == list(range(10)) and stream[:10] != stream[10:20]
    for k in range(1, 9):
        assert next(order(10, 4, 0, k)) == first[k]
    few = next(order(3, 8, 0, 0))
    assert sorted(few[:3]) == [0, 1, 2] and len(few) == 8


def test_what_cannot_be_read_is_named_and_its_neighbour_taken(tmp_path, moving):
    write_strips(tmp_path / "sea", moving(8)[None].repeat(3, axis=0))
    (tmp_path / "sea/1.png").write_bytes(b"no picture")
    strips = Strips(data.list_strips(tmp_path / "sea/list.txt", tmp_path / "sea"))
    clip, bad = strips[1]
    assert np.array_equal(clip, strips[2][0]) and list(bad) == [1] and "1.png" in bad[1]
    with pytest.raises(data.InputError, match="4 of 39"):
        check_bad(4, 39)
    check_bad(4, 40)


def test_the_table_of_windows(moving):
    held_out = np.stack([moving(6, 16, 16, phase) for phase in (0, 1, 2)])
    rows = {row["name"]: row for row in window_report(held_out.copy(), held_out, held_out[::-1])}
    for name in ("generated", "training"):
        assert rows[name]["nearest"] < 0.1 and rows[name]["held_out_nearest"] < 0.1
        assert rows[name]["std_ratio"] == pytest.approx(1) and rows[name]["w1"] == 0
    apart = [[np.sqrt(np.square(a.astype(float) - b).mean()) for b in held_out] for a in held_out]
    expected = np.mean([sorted(distances)[1] for distances in apart])
    assert rows["held out"]["nearest"] == pytest.approx(expected, rel=1e-3)
    assert rows["noise"]["nearest"] > rows["average clip"]["nearest"] > 10


# ------------------------------------------------------------------------------------------------------------ runs


@pytest.fixture(scope="module")
def sea(tmp_path_factory):
    """A folder with the category 'sea' of a few strips."""
    root = tmp_path_factory.mktemp("videos")
    t, y, x, c = np.ogrid[0:8, 0:16, 0:16, 0:3]
    write_strips(root / "sea", np.uint8([128 + 90 * np.sin(phase + 0.5 * t + 0.3 * y + 0.2 * x + c)
                                         for phase in range(6)]))
    return root


def flags(root, out, *more):
    return "-category sea -device cpu -batch_size 2 -held_out 0.2 -data_path", root, "-output_dir", out, *more


@pytest.fixture(scope="module")
def run(sea, tmp_path_factory):
    """The output folder of a run of three iterations without a break."""
    out = tmp_path_factory.mktemp("out")
    succeeds(main_videogan, *flags(sea, out, "-num_iterations 3"))
    return out / "sea"


def test_a_run_leaves_its_outputs(run):
    for name in ("gen", "video", "videomask", "mask"):
        assert data.read_clip(run / f"final_results/{name}.mp4").shape == (32, 2 * 66 - 2, 2 * 66 - 2, 3)
        assert data.read_clip(run / f"final_results/{name}.gif").shape[1:] == (2 * 66 - 2, 2 * 66 - 2, 3)
    assert Image.open(run / "final_results/static.png").size == (130, 130)
    assert frames_of(run / "observed_sequence")[0] == 32
    page = (run / "index.html").read_text()
    assert all(f'data-name="{name}"' in page for name in ("gen", "video", "videomask", "mask", "static"))
    assert Image.open(run / "progress/iteration_0003.png").size[1] == 12 * 66 - 2
    assert len(list(run.glob("log/events*"))) == 1
    assert [row["iteration"] for row in rows_of(run)] == ["3"]
    assert [row["name"] for row in csv.DictReader(open(run / "evaluation.csv"))] == [
        "held out", "generated", "training", "average clip", "noise"]


def test_resuming_changes_nothing(sea, run, tmp_path):
    for total in (2, 3):
        succeeds(main_videogan, *flags(sea, tmp_path, "-workers 2 -num_iterations", total))
    once, twice = ({k: v for k, v in leaves(state_of(folder)).items() if "/settings" not in k}
                   for folder in (run, tmp_path / "sea"))
    assert once.keys() == twice.keys() and once["/iteration"] == 3
    assert all(torch.equal(v, twice[k]) if isinstance(v, torch.Tensor) else v == twice[k] for k, v in once.items())


def test_generating_from_a_checkpoint(sea, run):
    succeeds(main_videogan, *flags(sea, run.parent, "-generate -sample_size 5 -seed 1"))
    assert data.read_clip(run / "test/final_results/gen.mp4").shape == (32, 2 * 66 - 2, 3 * 66 - 2, 3)
    assert frames_of(run / "test/synthesized_sequence") == [32] * 5
    assert "New videos of the learned model" in (run / "index.html").read_text()
    assert_refused(call(main_videogan, *flags(sea, run.parent, "-generate -image x.png")), "-conditional")


def test_a_run_starts_from_the_weights_of_a_checkpoint(sea, run, tmp_path):
    ckpt = run / "model/iteration_0003.pt"
    new = ("-num_iterations 1 -ckpt", ckpt)
    out = succeeds(main_videogan, *flags(sea, tmp_path / "new", *new, "-lr 1e-7"))
    then, now = torch.load(ckpt), state_of(tmp_path / "new/sea")
    assert f"starting from the weights in '{ckpt}'" in out and now["iteration"] == 1
    for net in ("G", "D"):
        for name, weight in then[net].items():
            assert "running" in name or "num_b" in name or (now[net][name] - weight).abs().max() < 1e-6, name
    assert_refused(call(main_videogan, *flags(sea, tmp_path / "other", *new, "-streams 1")), "the net in")
    assert not (tmp_path / "other").exists()


def test_the_conditional_net_learns_from_first_frames_and_takes_pictures(sea, tmp_path):
    args = settings("-conditional", "-category", "sea", "-data_path", sea, "-held_out", 0)
    train, held_out = load_of(args)
    assert len(held_out) == 0
    G, D = build_nets(2, True, False, args.device)
    learner = make_learner(args, (G, D), None, train, first_of(held_out, 4))
    for _ in range(2):
        learner.learn()
        assert learner.commit() is None
    metrics = learner.metrics()
    assert learner.fixed.shape == (4, 3, 64, 64)
    assert 0 < metrics["first_frame_error"] < 2 and metrics["mask_mean"] > 0
    state = {"G": G.state_dict(), "settings": settings_of(args), "fixed": learner.fixed}
    torch.save(state, tmp_path / "model.pt")
    more, picture, empty = tmp_path / "more", tmp_path / "picture.jpg", tmp_path / "empty"
    more.mkdir()
    empty.mkdir()
    for path in (picture, more / "10.jpg", more / "other.jpg"):
        Image.new("RGB", (90, 50), "teal").save(path)
    test = flags(sea, tmp_path, "-generate -held_out 0 -ckpt", tmp_path / "model.pt")
    for given, videos in (((), 4), (("-sample_size 9",), 9), (("-image", picture, more), 3)):  # of 6 clips
        succeeds(main_videogan, *test, *given)
        assert len(frames_of(tmp_path / "sea/test/synthesized_sequence")) == videos
    for given, said in ((("-sample_size 19",), "18 first frames"), (("-image", tmp_path / "none"), "none"),
                        (("-sample_size 5 -image", picture), "1 first"), (("-image", empty), "no picture")):
        assert_refused(call(main_videogan, *test, *given), said)


def test_first_frames_are_those_of_clips_held_out_and_of_others_then_later_ones(sea):
    args = settings("-category", "sea", "-data_path", sea, "-held_out", 0.2)
    seen, unseen = (part.paths for part in load_of(args))
    clips = [data.read_strip(path, 32, 64) for path in unseen + seen]
    frames = frames_of_clips(9, vars(args))
    assert len(clips) == 6 and np.array_equal(frames[:6], [clip[0] for clip in clips])
    assert len(np.unique(frames, axis=0)) == 9 and np.array_equal(frames[6:], [clip[8] for clip in clips[:3]])


@pytest.mark.parametrize("given, message", [
    ("-category none", "no category 'none'"), ("-data_list missing.txt", "cannot read list 'missing.txt'"),
    ("-test", "there is no checkpoint"), ("-generate -ckpt README.md", "cannot load checkpoint"),
    ("-held_out 1", "-held_out"), ("-image x.png", "-image"), ("-streams 3", "-streams"), ("-beta1 nan", "-beta1")])
def test_bad_input_is_one_line_and_exit_code_2(sea, tmp_path, given, message):
    assert_refused(call(main_videogan, *flags(sea, tmp_path, given)), message)


def test_an_unreadable_clip_is_named_skipped_and_counted_and_too_many_stop_the_run(tmp_path, moving):
    strips = tmp_path / "data/sea"
    write_strips(strips, moving(8)[None].repeat(6, axis=0))
    (strips / "2.png").write_bytes(b"no picture")
    given = flags(tmp_path / "data", tmp_path / "out", "-held_out 0 -num_iterations 3")
    done = call(main_videogan, *given)
    assert done.code == 0 and done.err.count("2.png") == 1 and "1 of 6 clips could not be read" in done.out
    assert state_of(tmp_path / "out/sea")["bad"].keys() == {2}
    for k in range(1, 6):
        (strips / f"{k}.png").write_bytes(b"no picture")
    stopped = call(main_videogan, *given, "-overwrite -workers 0")
    assert stopped.code == 2 and "clips cannot be read" in stopped.err


@pytest.mark.usefixtures("gpu")
@pytest.mark.filterwarnings("ignore:'pin_memory'")  # of a pretended one
def test_a_gpu_learns_goes_on_and_generates(sea, tmp_path):
    for given in ("-num_iterations 1", "-num_iterations 2", "-generate -sample_size 2"):
        with narrow():
            assert call(main_videogan, *flags(sea, tmp_path, "-workers 0 -held_out 0 -device cuda", given)).code == 0
    assert rows_of(tmp_path / "sea")[-1]["iteration"] == "2"
    assert (tmp_path / "sea/test/final_results/gen.mp4").exists()
