"""VideoGAN: its nets against the released sizes and a reference of their own, its losses, its data, and whole runs."""

import csv
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image
from torch import nn

import data
import main_videogan
import videogan.learn
import videogan.nets
from judge.tables import window_report
from run.adam import Adam
from videogan.clips import Strips, check_bad, first_of, load, order, split_strips
from videogan.generate import frames_of_clips
from videogan.learn import build_nets, discriminator_loss, generator_loss, make_learner
from videogan.nets import Discriminator, Generator, Scene, compose, down, up
from videogan.settings import parse, settings_of

ROOT = Path(__file__).parents[2]


NARROW = "import videogan.nets; videogan.nets.WIDTH = 16"  # for a run in a process of its own


@pytest.fixture(scope="module", autouse=True)
def small():
    """Nets of a quarter of the released width, and runs that draw and judge four videos instead of 16 and 64."""
    with pytest.MonkeyPatch.context() as patch:
        before = videogan.nets.WIDTH
        for name, value in {"nets.WIDTH": 16, "learn.SAMPLES": 4, "learn.JUDGED": 4}.items():
            patch.setattr(f"videogan.{name}", value)
        yield before


@pytest.fixture
def released_width(small, monkeypatch):
    monkeypatch.setattr("videogan.nets.WIDTH", small)


def count(net):
    return sum(p.numel() for p in net.parameters())


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
    return parse(["-device", "cpu", "-batch_size", "2", "-workers", "0", *flags])[0]


class Blind(nn.Module):
    """A discriminator that cannot tell: equal logits, whatever it sees."""

    def forward(self, video):
        return 0 * video.flatten(1)[:, :2]


# ------------------------------------------------------------------------------------------------------------ nets


def test_sizes_are_the_released_ones(released_width):
    G, C = Generator(), Generator(conditional=True)
    parts = [count(part) for part in (G.background, G.trunk, G.foreground, G.mask, G)]
    assert parts == [3_577_667, 12_651_328, 12_291, 4_097, 16_245_383]
    assert count(Generator(streams=1)) == 12_663_619
    assert count(Discriminator()) == 11_057_858
    parts = [count(part) for part in (C.encoder, C.background, C.trunk, C)]
    assert parts == [11_021_696, 11_018_883, 46_143_104, 68_216_455]
    assert count(C.foreground) + count(C.mask) == 32_772
    assert count(Discriminator(conditional=True)) == 44_135_810


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("n", [1, 2])
def test_a_scene_is_its_foreground_over_its_background(conditional, n):
    G = Generator(conditional=conditional)
    video, f, m, b = G(torch.randn(n, 3, 64, 64) if conditional else torch.randn(n, 100))
    assert video.shape == f.shape == (n, 3, 32, 64, 64) and m.shape == (n, 1, 32, 64, 64) and b.shape == (n, 3, 64, 64)
    for t in (0, 13, 31):
        assert torch.allclose(video[:, :, t], m[:, :, t] * f[:, :, t] + (1 - m[:, :, t]) * b, atol=1e-6)
    assert abs(m.mean() - 0.5) < 0.1  # by its initialisation
    assert f.abs().max() <= 1 and b.abs().max() <= 1 and 0 <= m.min() and m.max() <= 1


def test_compose_has_the_background_where_the_mask_is_0_and_the_foreground_where_it_is_1():
    f, b, m = torch.randn(2, 3, 32, 64, 64), torch.randn(2, 3, 64, 64), torch.zeros(2, 1, 32, 64, 64)
    assert torch.equal(compose(f, m, b), b[:, :, None].expand(-1, -1, 32, -1, -1))
    assert torch.equal(compose(f, m + 1, b), f)


def test_one_stream_is_the_foreground_alone():
    scene = Generator(streams=1)(torch.randn(1, 100))
    assert scene.video is scene.foreground and scene.mask is None and scene.background is None


def normalise(x, weight, bias, eps):
    """Batch norm with the batch's own statistics of x (N, C, ...)."""
    axes = (0, *range(2, x.ndim))
    shape = (1, -1, *[1] * (x.ndim - 2))
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps) * weight.reshape(shape) + (
        bias.reshape(shape))


def numbers(layer):
    return layer.weight.detach().numpy(), layer.bias.detach().numpy()


def excited(block):
    """A block in float64 with weights large enough to matter."""
    for p in block.double().parameters():
        nn.init.normal_(p)
    return block


def test_an_upward_block_is_transposed_convolution_batch_norm_and_relu():
    block, x = excited(up(3, 4, 5)), np.random.default_rng(0).normal(size=(2, 4, 2, 3, 3))
    (weight, bias), (gamma, beta) = numbers(block[0]), numbers(block[1])
    spread = np.zeros((2, 4, 4 + 5, 6 + 5, 6 + 5))  # kernel 4, padding 1: 2 zeros before, and after the last a 0 and 2
    spread[:, :, 2:-2:2, 2:-2:2, 2:-2:2][:, :, : x.shape[2], : x.shape[3], : x.shape[4]] = x
    windows = sliding_window_view(spread, (4, 4, 4), axis=(2, 3, 4))[:, :, :4, :6, :6]
    y = np.einsum("nitxyabc,ioabc->notxy", windows, weight[:, :, ::-1, ::-1, ::-1]) + bias[:, None, None, None]
    expected = np.maximum(normalise(y, gamma, beta, 1e-5), 0)
    np.testing.assert_allclose(block(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-9, atol=1e-9)


def test_a_downward_block_is_convolution_batch_norm_and_leaky_relu():
    block = excited(down(3, 3, 4, nn.LeakyReLU(0.2)))
    x = np.random.default_rng(1).normal(size=(2, 3, 4, 6, 6))
    (weight, bias), (gamma, beta) = numbers(block[0]), numbers(block[1])
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1), (1, 1)))
    windows = sliding_window_view(padded, (4, 4, 4), axis=(2, 3, 4))[:, :, ::2, ::2, ::2]
    y = np.einsum("nitxyabc,oiabc->notxy", windows, weight) + bias[:, None, None, None]
    expected = normalise(y, gamma, beta, 1e-3)
    expected = np.where(expected > 0, expected, 0.2 * expected)
    np.testing.assert_allclose(block(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-9, atol=1e-9)


def test_weights_start_as_released(released_width):
    D = Discriminator()
    convolution, norm = D.features[3][0], D.features[3][1]
    assert abs(convolution.weight.std() - 0.01) < 1e-4 and abs(convolution.weight.mean()) < 1e-4
    assert abs(norm.weight.mean() - 1) < 0.01 and abs(norm.weight.std() - 0.02) < 0.005
    assert not convolution.bias.any() and not norm.bias.any()


# ---------------------------------------------------------------------------------------------------------- losses


def test_each_loss_reaches_only_its_own_net():
    G, D = Generator(), Discriminator()
    scene, real = G(torch.randn(2, 100)), torch.rand(2, 3, 32, 64, 64) * 2 - 1
    discriminator_loss(D, real, scene.video)[0].backward()
    assert all(p.grad is None for p in G.parameters()) and all(p.grad.any() for p in D.parameters() if p.ndim > 1)
    D.zero_grad()
    generator_loss(D, scene, None, 0.1, 0)[0].backward()
    assert all(p.grad is None for p in D.parameters()) and all(p.grad.any() for p in G.parameters() if p.ndim > 1)
    assert all(p.requires_grad for p in D.parameters())


def test_a_step_of_each_net_goes_its_way():
    torch.manual_seed(0)
    args = settings()
    G, D = Generator(), Discriminator()
    z, real = torch.randn(4, 100), torch.rand(4, 3, 32, 64, 64) * 2 - 1
    video = G(z).video.detach()
    first, on_real, *_ = discriminator_loss(D, real, video)
    assert on_real.shape == (4, 2)
    first.backward()
    Adam(D.parameters(), args.lr, args.beta1).step()
    assert discriminator_loss(D, real, video)[0] < first

    loss, before, *_ = generator_loss(D, G(z), None, 0, 0)
    loss.backward()
    Adam(G.parameters(), args.lr, args.beta1).step()
    assert generator_loss(D, G(z), None, 0, 0)[1] < before  # cross entropy of "real"


def test_losses_have_their_closed_forms():
    video, mask = torch.rand(2, 3, 4, 5, 5), torch.rand(2, 1, 4, 5, 5, requires_grad=True)
    scene, frame = Scene(video, video, mask, None), video[:, :, 0] - 0.25
    total, adversarial, mean, error = generator_loss(Blind(), scene, frame, 0.1, 10)
    assert adversarial.item() == pytest.approx(np.log(2)) and error.item() == pytest.approx(0.25)
    assert total.item() == pytest.approx(np.log(2) + 0.1 * mask.mean().item() + 2.5)
    total.backward()
    assert torch.allclose(mask.grad, torch.full_like(mask, 0.1 / mask.numel()))
    assert discriminator_loss(Blind(), video, video)[0].item() == pytest.approx(2 * np.log(2))


# ------------------------------------------------------------------------------------------------------------ data


def test_a_short_strip_repeats_its_last_frame(tmp_path, moving):
    clip = moving(20, 128, 128)
    Image.fromarray(clip.reshape(-1, 128, 3)).save(tmp_path / "strip.png")
    frames = data.read_strip(tmp_path / "strip.png", 32, 64)
    assert frames.shape == (32, 64, 64, 3)
    assert np.array_equal(frames[7], data.resize_frame(clip[7], 64, 64))
    assert all(np.array_equal(frame, frames[19]) for frame in frames[20:])


def test_a_strip_of_broken_frames_is_refused(tmp_path):
    Image.new("RGB", (64, 64 * 5 + 1)).save(tmp_path / "strip.png")
    with pytest.raises(data.InputError, match="no whole number"):
        data.read_strip(tmp_path / "strip.png", 32, 64)


def test_a_list_may_have_classes(tmp_path):
    (tmp_path / "list.txt").write_text("golf/a 1.jpg 17\n\nb.jpg\n")
    assert data.list_strips(tmp_path / "list.txt", "root") == [data.Path("root/golf/a 1.jpg"), data.Path("root/b.jpg")]


def test_videos_become_windows_and_their_ends_are_held_out(tmp_path, moving, write_clip):
    write_clip(tmp_path / "sea/long.mp4", moving(150, 32, 48))
    write_clip(tmp_path / "sea/short.mp4", moving(20, 32, 48))
    args = settings("-category", "sea", "-data_path", str(tmp_path), "-window_step", "5")
    train, held_out = load_of(args)
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
    train, held_out = load_of(settings("-category", "beach", "-data_path", str(ROOT / "trainingVideo")))
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
    clips = [128 + 90 * np.sin(phase + 0.5 * t + 0.3 * y + 0.2 * x + c) for phase in range(6)]
    write_strips(root / "sea", np.uint8(clips))
    return root


def program(root, out, *flags):
    common = ["-category", "sea", "-data_path", str(root), "-output_dir", str(out), "-device", "cpu"]
    return main_videogan.main([*common, "-batch_size", "2", *flags])


@pytest.fixture(scope="module")
def run(sea, tmp_path_factory):
    """The output folder of a run of three iterations without a break."""
    out = tmp_path_factory.mktemp("out")
    assert program(sea, out, "-num_iterations", "3", "-held_out", "0.2") == 0
    yield out / "sea"
    shutil.rmtree(out)


def rows_of(path):
    with open(path, newline="") as file:
        return [{k: v for k, v in row.items() if k not in ("seconds_per_iteration", "data_wait")}
                for row in csv.DictReader(file)]


def test_a_run_leaves_its_outputs(run):
    for name in ("gen", "video", "videomask", "mask"):
        assert data.read_clip(run / f"final_results/{name}.mp4").shape == (32, 2 * 66 - 2, 2 * 66 - 2, 3)
        assert data.read_clip(run / f"final_results/{name}.gif").shape[1:] == (2 * 66 - 2, 2 * 66 - 2, 3)
    assert Image.open(run / "final_results/static.png").size == (130, 130)
    assert len(list((run / "observed_sequence/sequence_0").iterdir())) == 32
    page = (run / "index.html").read_text()
    assert all(f'data-name="{name}"' in page for name in ("gen", "video", "videomask", "mask", "static"))
    assert Image.open(run / "progress/iteration_0003.png").size[1] == 12 * 66 - 2
    assert len(list(run.glob("log/events*"))) == 1
    assert [row["iteration"] for row in rows_of(run / "metrics.csv")] == ["3"]
    assert [row["name"] for row in csv.DictReader(open(run / "evaluation.csv"))] == [
        "held out", "generated", "training", "average clip", "noise"]


def test_resuming_changes_nothing(sea, run, tmp_path):
    flags = ("-held_out", "0.2", "-workers", "2")
    assert program(sea, tmp_path, "-num_iterations", "2", *flags) == 0
    assert program(sea, tmp_path, "-num_iterations", "3", *flags) == 0
    once, twice = (torch.load(folder / "model/latest.pt") for folder in (run, tmp_path / "sea"))
    assert twice["iteration"] == 3
    for net in ("G", "D"):
        assert all(torch.equal(v, twice[net][k]) for k, v in once[net].items())
    for a, b in zip(once["optimizers"], twice["optimizers"], strict=True):
        assert all(torch.equal(v["exp_avg_sq"], b["state"][k]["exp_avg_sq"]) for k, v in a["state"].items())
    shutil.rmtree(tmp_path / "sea/model")


def test_generating_from_a_checkpoint(sea, run, capsys):
    out = run.parent
    assert program(sea, out, "-generate", "-sample_size", "5", "-seed", "1") == 0
    assert data.read_clip(run / "test/final_results/gen.mp4").shape == (32, 2 * 66 - 2, 3 * 66 - 2, 3)
    assert len(list((run / "test/synthesized_sequence/sequence_4").iterdir())) == 32
    assert "New videos of the learned model" in (run / "index.html").read_text()
    assert program(sea, out, "-generate", "-image", "x.png") == 2
    assert "-conditional" in capsys.readouterr().err


def test_a_run_starts_from_the_weights_of_a_checkpoint(sea, run, tmp_path, capsys):
    ckpt = run / "model/iteration_0003.pt"
    flags = ("-ckpt", str(ckpt), "-num_iterations", "1", "-held_out", "0.2")
    assert program(sea, tmp_path, *flags, "-lr", "1e-7") == 0
    assert f"starting from the weights in '{ckpt}'" in capsys.readouterr().out
    then, now = (torch.load(path) for path in (ckpt, tmp_path / "sea/model/latest.pt"))
    for net in ("G", "D"):
        for name, weight in then[net].items():
            assert "running" in name or "num_b" in name or (now[net][name] - weight).abs().max() < 1e-6, name
    assert now["iteration"] == 1
    shutil.rmtree(tmp_path / "sea")
    assert program(sea, tmp_path, *flags, "-streams", "1") == 2
    error = capsys.readouterr().err
    assert "the net in" in error and error.count("\n") == 1 and not (tmp_path / "sea").exists()


def test_ctrl_c_saves_and_the_same_command_goes_on(sea, tmp_path, run_script):
    flags = ["-category", "sea", "-data_path", str(sea), "-output_dir", str(tmp_path), "-device", "cpu", "-batch_size",
             "1", "-workers", "1", "-log_step", "1000", "-held_out", "0"]
    process = run_script([*flags, "-num_iterations", "5000"], "main_videogan.py", NARROW, start=True)
    deadline = time.time() + 60
    while time.time() < deadline and not list((tmp_path / "sea").glob("log/events*")):
        time.sleep(0.1)
    time.sleep(2)  # well into the first iterations
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130 and "goes on from there" in error and "Traceback" not in error
    reached = torch.load(tmp_path / "sea/model/latest.pt")["iteration"]
    result = run_script([*flags, "-num_iterations", str(reached + 1)], "main_videogan.py", NARROW)
    assert result.returncode == 0 and f"iterations {reached + 1} to" in result.stdout, result.stderr
    shutil.rmtree(tmp_path / "sea/model")


def test_the_conditional_net_learns_from_first_frames_and_takes_pictures(sea, tmp_path, capsys):
    args = settings("-conditional", "-category", "sea", "-data_path", str(sea), "-held_out", "0")
    train, held_out = load_of(args)
    assert len(held_out) == 0
    G, D = build_nets(2, True, False, args.device)
    learner = make_learner(args, (G, D), None, train, first_of(held_out, 4))
    for _ in range(2):
        learner.learn()
        assert learner.commit() is None
    assert learner.fixed.shape == (4, 3, 64, 64)
    metrics = learner.metrics()
    assert 0 < metrics["first_frame_error"] < 2 and metrics["mask_mean"] > 0
    state = {"G": G.state_dict(), "settings": settings_of(args), "fixed": learner.fixed}
    torch.save(state, tmp_path / "model.pt")
    del learner, G, D
    (tmp_path / "empty").mkdir()
    (tmp_path / "more").mkdir()
    for name in ("picture", "more/10", "more/other"):
        Image.new("RGB", (90, 50), "teal").save(tmp_path / f"{name}.jpg")
    test, picture = ("-generate", "-ckpt", str(tmp_path / "model.pt")), str(tmp_path / "picture.jpg")
    made = tmp_path / "sea/test/synthesized_sequence"
    more, none, empty = (str(tmp_path / name) for name in ("more", "none", "empty"))
    for flags, count in (((), 4), (("-sample_size", "9"), 9), (("-image", picture, more), 3)):  # of 6 clips
        assert program(sea, tmp_path, *test, *flags) == 0
        assert len(list(made.iterdir())) == count
    for flags, said in ((("-sample_size", "19"), "18 first frames"), (("-image", none), "none"),
                        (("-image", picture, "-sample_size", "5"), "1 first"), (("-image", empty), "no picture")):
        assert program(sea, tmp_path, *test, *flags) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
    (tmp_path / "model.pt").unlink()


def test_first_frames_are_those_of_clips_held_out_and_of_others_then_later_ones(sea):
    args = settings("-category", "sea", "-data_path", str(sea), "-held_out", "0.2")
    seen, unseen = (part.paths for part in load_of(args))
    clips = [data.read_strip(path, 32, 64) for path in unseen + seen]
    frames = frames_of_clips(9, vars(args))
    assert len(clips) == 6 and np.array_equal(frames[:6], [clip[0] for clip in clips])
    assert len(np.unique(frames, axis=0)) == 9 and np.array_equal(frames[6:], [clip[8] for clip in clips[:3]])


@pytest.mark.parametrize("flags, message", [
    (("-category", "none"), "no category 'none'"),
    (("-data_list", "missing.txt"), "cannot read list 'missing.txt'"),
    (("-test",), "there is no checkpoint"),
    (("-generate", "-ckpt", "README.md"), "cannot load checkpoint"),
])
def test_bad_input_is_one_line_and_exit_code_2(sea, tmp_path, capsys, flags, message):
    assert program(sea, tmp_path, *flags) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize("flags", [("-held_out", "1"), ("-image", "x.png"), ("-streams", "3"), ("-beta1", "nan")])
def test_flags_that_make_no_sense(flags, capsys):
    with pytest.raises(SystemExit) as stop:
        settings(*flags)
    assert stop.value.code == 2 and capsys.readouterr().err.count("\n") == 1


def test_an_unreadable_clip_is_named_skipped_and_counted(tmp_path, moving, capsys):
    write_strips(tmp_path / "sea", moving(8)[None].repeat(4, axis=0))
    (tmp_path / "sea/2.png").write_bytes(b"no picture")
    assert program(tmp_path, tmp_path / "out", "-num_iterations", "2", "-held_out", "0", "-workers", "1") == 0
    printed = capsys.readouterr()
    assert printed.err.count("2.png") == 1 and "1 of 4 clips could not be read" in printed.out
    assert torch.load(tmp_path / "out/sea/model/latest.pt")["bad"].keys() == {2}
    shutil.rmtree(tmp_path / "out")


def test_too_many_unreadable_clips_stop_the_run(tmp_path, moving, capsys):
    write_strips(tmp_path / "sea", moving(8)[None].repeat(6, axis=0))
    for k in range(1, 6):
        (tmp_path / f"sea/{k}.png").write_bytes(b"no picture")
    assert program(tmp_path, tmp_path / "out", "-num_iterations", "2", "-held_out", "0", "-workers", "0") == 2
    assert "clips cannot be read" in capsys.readouterr().err


@pytest.mark.usefixtures("gpu")
@pytest.mark.filterwarnings("ignore:'pin_memory'")  # of a pretended one
def test_a_gpu_learns_goes_on_and_generates(sea, tmp_path):
    for flags in (("-num_iterations", "1"), ("-num_iterations", "2"), ("-generate", "-sample_size", "2")):
        assert program(sea, tmp_path, *flags, "-device", "cuda", "-workers", "0", "-held_out", "0") == 0
    assert rows_of(tmp_path / "sea/metrics.csv")[-1]["iteration"] == "2"
    assert (tmp_path / "sea/test/final_results/gen.mp4").exists()
    shutil.rmtree(tmp_path / "sea/model")
