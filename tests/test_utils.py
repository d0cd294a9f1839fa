"""A program's surroundings: files that are whole or old, pictures as they are, noise by name, TensorFlow's Adam."""

import copy
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from types import SimpleNamespace

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from PIL import Image

import utils
from fast.device import multiplies_bfloat16
from run.adam import Adam, learning_rate
from run.flags import (
    ArgumentParser,
    RunError,
    add_flag,
    device_name,
    image_size,
    positive_float,
    positive_int,
    run_program,
)
from run.folder import SHARES, SNAPSHOT, Run, load_checkpoint
from run.loop import fit, uninterrupted


@pytest.fixture
def flags():
    parser = ArgumentParser(prog="some.py")
    add_flag(parser, "category", "fire", "what")
    add_flag(parser, "im_size image_size sz", "16", "side", type=image_size)
    add_flag(parser, "num_chain", 3, "chains", type=positive_int)
    add_flag(parser, "lr", 0.1, "rate", type=positive_float)
    add_flag(parser, "overwrite", help="delete", action="store_true")
    return parser


# ------------------------------------------------------------------------------------------------------ command line


def test_flags_take_one_dash_or_two_and_every_name(flags):
    for dash in ("-", "--"):
        for name in ("im_size", "image_size", "sz"):
            assert flags.parse_args([f"{dash}{name}", "24"]).im_size == (24, 24)
        assert flags.parse_args([f"{dash}num_chain=5"]).num_chain == 5
        assert flags.parse_args([f"{dash}overwrite"]).overwrite
    assert flags.parse_args(["-sz", "100x200"]).im_size == (100, 200)
    default = flags.parse_args([])
    assert (default.category, default.im_size, default.num_chain, default.lr) == ("fire", (16, 16), 3, 0.1)
    assert default.overwrite is False


@pytest.mark.parametrize(
    "given",
    ["-cat x", "--cat x", "-c x", "--im 3", "-num 3", "-l 3", "-over", "-nope 1", "x", "-category", "-lr -1",
     "-lr -1e-3", "-lr=-1e-3", "-lr 0", "-lr nan", "-lr inf", "-lr x", "-num_chain 0", "-num_chain -3",
     "-num_chain 1.5", "-num_chain 1e3", "-num_chain x", "-num_chain=", "-im_size 0", "-im_size 3x0",
     "-im_size 3x", "-im_size x", "-im_size 1x2x3", "-im_size -4"],
)
def test_bad_flags_are_one_line_and_exit_2(flags, given, capsys):
    with pytest.raises(SystemExit) as stop:
        flags.parse_args(given.split())
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1
    assert err.startswith("some.py: ")
    assert any(part.lstrip("-").split("=")[0] in err for part in given.split())


def test_help_shows_every_flag_with_its_default(flags, capsys):
    with pytest.raises(SystemExit) as stop:
        flags.parse_args(["-h"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for part in ("-category", "--category", "(default fire)", "-sz", "(default 16)", "(default 3)", "(default 0.1)"):
        assert part in text


def test_auto_is_a_device_that_works_and_others_must_exist():
    torch.empty(1, device=device_name("auto"))
    assert device_name("cpu") == torch.device("cpu")
    for name in ("cuda:77", "tpu", "", "cpu cpu"):
        with pytest.raises(Exception, match="there is no device"):
            device_name(name)


class BadInput(Exception):
    pass


@pytest.mark.parametrize(
    "error, code, part",
    [(BadInput("no such clip"), 2, "no such clip"), (RunError("diverged"), 1, "diverged"),
     (RunError("other settings", code=2), 2, "other settings"), (KeyboardInterrupt(), 130, "interrupted"),
     (KeyboardInterrupt("epoch 3 is saved"), 130, "epoch 3 is saved"),
     (OSError(28, "No space left on device"), 1, "No space left on device"),
     (PermissionError(13, "Permission denied", "/x/y"), 1, "/x/y"), (torch.OutOfMemoryError("x"), 1, "memory")],
    ids=repr,
)
def test_what_a_user_can_cause_is_one_line_and_an_exit_code(error, code, part, capsys):
    def program():
        raise error

    assert run_program(program, BadInput) == code
    [line] = capsys.readouterr().err.splitlines()
    assert part in line


def test_a_program_that_ends_well_is_exit_0_and_a_bug_is_a_traceback(capsys):
    assert run_program(lambda: None, BadInput) == 0
    assert capsys.readouterr().err == ""
    with pytest.raises(ZeroDivisionError):
        run_program(lambda: 1 / 0, BadInput)


def test_an_interrupt_waits_until_what_belongs_together_has_changed():
    done, handler = [], signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        with uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            done.append("first")
            done.append("second")
    assert done == ["first", "second"]
    assert signal.getsignal(signal.SIGINT) is handler
    with uninterrupted():  # nothing is left over
        pass
    with pytest.raises(KeyError):
        with uninterrupted():
            raise KeyError
    assert signal.getsignal(signal.SIGINT) is handler


# ------------------------------------------------------------------------------------------- randomness, optimiser


def test_a_generators_stream_depends_on_its_key_alone():
    def draw(*key):
        return torch.randn(1000, generator=utils.generator("cpu", *key))

    first = draw(0, 7, "J", 2)
    keys = [(0, 7, "J", 3), (0, 8, "J", 2), (1, 7, "J", 2), (0, 7, "I", 2), (0, 72, "J"), (-1, 7, "J", 2)]
    others = [draw(*key) for key in keys]
    assert torch.equal(draw(0, 7, "J", 2), first)
    correlations = torch.corrcoef(torch.stack([first, *others])) - torch.eye(len(others) + 1)
    assert correlations.abs().max() < 5 / 1000**0.5


def adam_steps(optimizer_of, start, gradients):
    p = torch.nn.Parameter(start.clone())
    optimizer = optimizer_of([p])
    for g in gradients:
        p.grad = g.clone()
        optimizer.step()
    return p.detach()


def tensorflows_adam(start, gradients, lr=0.001, beta1=0.5, beta2=0.999, eps=1e-8):
    p, m, v = start.double(), 0.0, 0.0
    for t, g in enumerate((g.double() for g in gradients), start=1):
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        p = p - lr * (1 - beta2**t) ** 0.5 / (1 - beta1**t) * m / (v**0.5 + eps)
    return p


def test_adam_is_tensorflows_whose_epsilon_counts_for_tiny_gradients():
    generator = torch.Generator().manual_seed(0)
    for scale in (1e-9, 1e-7, 1e-4, 1.0, 1e4):
        start, gradients = torch.zeros(50), torch.randn(6, 50, generator=generator) * scale
        ours = adam_steps(lambda p: Adam(p, lr=0.001, beta1=0.5), start, gradients)
        theirs = adam_steps(lambda p: torch.optim.Adam(p, lr=0.001, betas=(0.5, 0.999)), start, gradients)
        exact = tensorflows_adam(start, gradients)
        assert (ours - exact).abs().max() < 1e-5 * exact.abs().max()
        if scale > 1:
            assert (ours - theirs).abs().max() < 1e-5 * exact.abs().max()
        if scale <= 1e-7:
            assert (theirs - exact).abs().max() > 0.1 * exact.abs().max()


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last_3d])
def test_adam_goes_on_from_its_saved_state_whatever_order_the_weights_are_in(order):
    size = (4, 5, 2, 3, 2)
    gradients = torch.randn(5, *size, generator=torch.Generator().manual_seed(0)) * 1e-7
    p = torch.nn.Parameter(torch.zeros(size))
    q = torch.nn.Parameter(torch.zeros(size).to(memory_format=order))
    first = Adam([p], 0.01, 0.5)
    for g in gradients[:3]:
        p.grad = g.clone()
        first.step()
    second = Adam([q], 0.01, 0.5)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    with torch.no_grad():
        q.copy_(p)
    for g in gradients[3:]:
        for parameter, optimizer in ((p, first), (q, second)):
            parameter.grad = torch.empty_like(parameter).copy_(g)
            optimizer.step()
    assert torch.equal(p, q)
    assert (p - tensorflows_adam(torch.zeros(size), gradients, lr=0.01)).abs().max() < 1e-7


def test_adam_copies_no_gradient():
    p = torch.nn.Parameter(torch.zeros(4, 5, 2, 3, 2).to(memory_format=torch.channels_last_3d))
    optimizer, p.grad = Adam([p], 0.01, 0.5), torch.ones_like(p)
    with torch.profiler.profile() as profile:
        optimizer.step()
    names = {event.name for event in profile.events()}
    assert "aten::_fused_adam_" in names and "aten::contiguous" not in names


def test_a_step_of_adam_tells_that_the_parameters_have_changed():
    p = torch.nn.Parameter(torch.zeros(3))
    optimizer = Adam([p], 0.1, 0.5)
    for _ in range(2):
        version, p.grad = p._version, torch.ones(3)
        optimizer.step()
        assert p._version > version


def test_adam_does_not_import_the_compiler_which_takes_two_seconds():
    use = "w = torch.nn.Parameter(torch.ones(2)); a = run.adam.Adam([w], 0.1, 0.5); w.grad = torch.ones(2); a.step()"
    save = "a.load_state_dict(a.state_dict()); a.zero_grad(); assert w.grad is None"
    program = f"import sys, torch, run.adam; {use}; {save}; print('torch._dynamo' in sys.modules, w[0].item() < 1)"
    root = Path(utils.__file__).parent
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root)
    assert done.stdout.split() == ["False", "True"], done.stderr


# ----------------------------------------------------------------------------------------------------------- pictures


def test_pixels_are_clipped_and_rounded_and_nothing_else():
    values = torch.tensor([-300.0, -0.6, 0.4, 0.6, 99.4, 100.6, 254.6, 255.4, 900.0])
    video = values.view(1, 1, 1, 1, 9).expand(2, 3, 4, 5, 9).clone().requires_grad_()
    pixels = utils.to_uint8(video)
    assert pixels.shape == (2, 4, 5, 9, 3) and pixels.dtype == np.uint8
    assert (pixels == np.array([0, 0, 0, 1, 99, 101, 255, 255, 255])[:, None]).all()
    constant = utils.to_uint8(torch.full((1, 3, 2, 4, 4), 77.0))
    assert (constant == 77).all()


def test_axes_of_pixels_keep_their_meaning():
    x = torch.arange(2 * 3 * 2 * 4 * 5).view(2, 3, 2, 4, 5).float()
    pixels = utils.to_uint8(x)
    for n, c, t, h, w in np.ndindex(*x.shape):
        assert pixels[n, t, h, w, c] == x[n, c, t, h, w]


def test_side_by_side_is_a_grid_on_white(moving):
    videos = [moving(3, 8, 6, phase) for phase in range(5)]
    row = utils.side_by_side(videos)
    assert row.shape == (3, 8, 5 * 6 + 4 * 10, 3)
    grid = utils.side_by_side(videos, columns=3)
    assert grid.shape == (3, 2 * 8 + 10, 3 * 6 + 2 * 10, 3)
    for k, video in enumerate(videos):
        top, left = k // 3 * 18, k % 3 * 16
        assert np.array_equal(row[:, :, k * 16 : k * 16 + 6], video)
        assert np.array_equal(grid[:, top : top + 8, left : left + 6], video)
    assert (grid[:, 8:18] == 255).all() and (grid[:, :, 6:16] == 255).all() and (grid[:, 18:, 32:] == 255).all()


def test_contact_sheet_has_a_row_of_eight_moments_for_each_video(moving):
    videos = [moving(22, 10, 14, phase) for phase in (0, 2)]
    sheet = utils.contact_sheet(videos, ["observed 0", "chain 0"])
    strip = 8 * 14 + 7 * 2
    assert sheet.shape[0] == 10 + 2 + 10 and sheet.shape[1] > strip and sheet.dtype == np.uint8
    for top, video in ((0, videos[0]), (12, videos[1])):
        for k in range(8):  # evenly spread from the first frame to the last
            left = sheet.shape[1] - strip + k * 16
            assert np.array_equal(sheet[top : top + 10, left : left + 14], video[3 * k])
        assert (sheet[top : top + 10, : sheet.shape[1] - strip] < 100).any()  # its name
    assert utils.contact_sheet([moving(3, 10, 14)], ["short"]).shape[0] == 10


def test_png_is_lossless(moving):
    picture = moving(1, 9, 13)[0]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(utils.png_bytes(picture)))), picture)


def test_gif_has_every_frame_at_25_fps_and_loops(moving):
    video = moving(12, 20, 30)
    gif = Image.open(io.BytesIO(utils.gif_bytes(video)))
    assert (gif.n_frames, gif.size, gif.info["loop"]) == (12, (30, 20), 0)
    for t, frame in enumerate(video):
        gif.seek(t)
        assert gif.info["duration"] == 40
        assert np.abs(np.asarray(gif.convert("RGB")).astype(int) - frame).mean() < 6


def test_gif_of_a_still_video_lasts_as_long_as_the_video(moving):
    gif = Image.open(io.BytesIO(utils.gif_bytes(np.repeat(moving(1), 12, axis=0))))
    durations = []
    for t in range(gif.n_frames):
        gif.seek(t)
        durations.append(gif.info["duration"])
    assert sum(durations) == 12 * 40


def test_gif_of_one_grey_does_not_flicker():
    video = np.full((6, 12, 12, 3), 90, np.uint8)
    video[:, 4:8, 4:8] += np.arange(0, 60, 10, dtype=np.uint8)[:, None, None, None]
    frames = iio.imread(utils.gif_bytes(video), plugin="pillow", extension=".gif", mode="RGB")
    assert (frames[:, 0, 0] == frames[0, 0, 0]).all()
    assert np.abs(frames.astype(int) - video).max() <= 6


@pytest.mark.parametrize("size", [(23, 17), (24, 17), (23, 16), (24, 16), (1, 1)])
def test_mp4_of_any_size_has_every_frame_at_25_fps(size, moving, tmp_path):
    video = moving(12, *size)
    path = tmp_path / "a.mp4"
    path.write_bytes(utils.mp4_bytes(video))
    read = iio.imread(path, plugin="pyav")
    padded = (12, size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
    assert read.shape == padded
    difference = np.abs(read[:, : size[0], : size[1]].astype(int) - video).mean((1, 2, 3))
    assert difference.max() < 10 and (size == (1, 1) or np.abs(np.diff(video.astype(int), axis=0)).mean() > 20)
    assert iio.immeta(path, plugin="pyav")["fps"] == 25


# -------------------------------------------------------------------------------------------------------------- files


def test_a_file_is_written_whole_or_stays_as_it_was(tmp_path):
    path = tmp_path / "deep" / "state.bin"
    utils.write_atomically(path, b"old")
    assert path.read_bytes() == b"old"
    for stop in (ValueError, KeyboardInterrupt, OSError):

        def half(file, stop=stop):
            file.write(b"half of the new")
            file.flush()
            assert path.read_bytes() == b"old"
            raise stop

        with pytest.raises(stop):
            utils.write_atomically(path, half)
        assert path.read_bytes() == b"old"
        assert list(path.parent.iterdir()) == [path]  # nothing is left behind
    utils.write_atomically(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def new_run(folder, **settings):
    return Run(folder, {"lr": 0.1, "num_epochs": 5, "size": [3, 4], **settings}, ("num_epochs",))


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null"])
def test_a_damaged_config_is_an_error_of_one_line(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(RunError, match="config.json' is damaged") as caught:
        new_run(tmp_path)
    assert caught.value.code == 2


def test_the_same_video_is_the_same_mp4(moving):
    film = utils.mp4_bytes(moving(30, 64, 64))
    assert film == utils.mp4_bytes(moving(30, 64, 64))
    assert 0 < film.index(b"moov") < film.index(b"mdat")  # what a browser needs first stands first


def test_a_run_takes_other_settings_only_where_they_may_change(tmp_path):
    new_run(tmp_path / "run")
    new_run(tmp_path / "run", num_epochs=9)
    with pytest.raises(RunError) as caught:
        new_run(tmp_path / "run", lr=0.2, size=[3, 5])
    message = str(caught.value)
    assert caught.value.code == 2 and "\n" not in message
    assert all(part in message for part in ("lr was 0.1, now 0.2", "size was [3, 4], now [3, 5]", "-overwrite"))
    assert "num_epochs" not in message


def test_a_folder_has_one_run_at_a_time(tmp_path):
    settings = {"lr": 0.1}
    run = Run(tmp_path, settings, ())
    before = (tmp_path / "config.json").read_bytes()
    for overwrite in (False, True):
        with pytest.raises(RunError, match="another program is at work") as caught:
            Run(tmp_path, {"lr": 0.2}, (), overwrite)
        assert caught.value.code == 2 and (tmp_path / "config.json").read_bytes() == before
    run.open_logs(0)
    run.close()
    Run(tmp_path, settings, ())


def test_the_newest_checkpoints_are_kept_and_each_is_whole(tmp_path):
    run = new_run(tmp_path / "run")
    for epoch in (2, 998, 1000, 9998, 10000):
        run.save_checkpoint({"epoch": epoch, "w": torch.full((3,), float(epoch))}, epoch)
    kept = sorted(p.name for p in (tmp_path / "run/model").iterdir())
    assert kept == ["epoch_1000.pt", "epoch_10000.pt", "epoch_9998.pt", "latest.pt"]
    for name, epoch in (("latest", 10000), ("epoch_10000", 10000), ("epoch_9998", 9998), ("epoch_1000", 1000)):
        state = load_checkpoint(tmp_path / f"run/model/{name}.pt", "cpu")
        assert state["epoch"] == epoch and torch.equal(state["w"], torch.full((3,), float(epoch)))
    assert run.load_checkpoint("cpu")["epoch"] == 10000


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, capsys):
    run = new_run(tmp_path / "run")
    assert run.load_checkpoint("cpu") is None
    for epoch in (1, 2, 3):
        run.save_checkpoint({"epoch": epoch, "w": torch.zeros(1000)}, epoch)
    model = tmp_path / "run/model"
    whole = (model / "latest.pt").read_bytes()
    damaged = [whole[:n] for n in (0, 1, 10, 100, len(whole) // 2, len(whole) - 1)] + [b"text", bytes(len(whole))]
    for content in damaged:
        for name in ("latest.pt", "epoch_0003.pt"):
            (model / name).unlink()
            (model / name).write_bytes(content)
        assert run.load_checkpoint("cpu")["epoch"] == 2
        assert "latest.pt" in capsys.readouterr().err
    for epoch in (1, 2):
        (model / f"epoch_{epoch:04d}.pt").unlink()
    assert run.load_checkpoint("cpu") is None


def test_a_disk_that_is_full_while_saving_is_named_and_the_checkpoint_before_is_intact(tmp_path, monkeypatch):
    run, save = new_run(tmp_path / "run"), torch.save
    run.save_checkpoint({"epoch": 1}, 1)

    class Full:
        def write(self, content):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", lambda state, file: save(state, Full()))
    with pytest.raises(RunError) as caught:
        run.save_checkpoint({"epoch": 2, "w": torch.zeros(100)}, 2)
    assert caught.value.code == 1
    assert "latest.pt" in str(caught.value) and "No space left on device" in str(caught.value)
    assert sorted(p.name for p in (tmp_path / "run/model").iterdir()) == ["epoch_0001.pt", "latest.pt"]
    assert run.load_checkpoint("cpu") == {"epoch": 1}


def test_a_job_in_the_background_is_waited_for_and_what_it_raises_arrives(tmp_path):
    run, done = new_run(tmp_path / "run"), []

    def slow():
        time.sleep(0.05)
        done.append("first")

    def fails():
        assert done == ["first"]  # one at a time, in their order
        raise RunError("no room")

    run.in_background(slow)
    run.in_background(fails)
    with pytest.raises(RunError, match="no room"):
        run.wait()
    run.wait()  # told once


def test_a_few_jobs_may_wait_for_their_turn_and_none_is_heard_of_after_one_that_failed(tmp_path, monkeypatch):
    monkeypatch.setattr("run.folder.BACKLOG", 3)
    run, gate, done = new_run(tmp_path / "run"), threading.Event(), []
    run.in_background(gate.wait)
    run.in_background(lambda: done.append(1))
    run.in_background(lambda: done.append(2))
    assert not done  # learning goes on meanwhile
    threading.Timer(0.05, gate.set).start()
    run.in_background(lambda: done.append(3))  # one too many: waits for the first
    assert gate.is_set()
    run.wait()
    assert done == [1, 2, 3]
    gate.clear()
    for job in (gate.wait, lambda: 1 / 0, lambda: [][0]):
        run.in_background(job)
    gate.set()
    with pytest.raises(ZeroDivisionError):
        run.wait()
    run.wait()


@pytest.mark.parametrize("device, waits", [("cpu", True), ("cuda:0", False)])
def test_a_gpu_learns_on_while_its_state_is_saved_and_a_cpu_while_a_small_one_is(device, waits, tmp_path, monkeypatch):
    monkeypatch.setattr("run.folder.CHEAP", 0)
    run, gate, large = new_run(tmp_path / "run", device=device), threading.Event(), SNAPSHOT // 4
    state = {"w": torch.zeros(1).expand(large)}  # takes no memory
    monkeypatch.setattr("run.folder.snapshot", lambda state: {"copied": True})
    saved = []
    monkeypatch.setattr(run, "save_checkpoint", lambda state, epoch: saved.append((epoch, *sorted(state))))
    if waits:
        threading.Timer(0.05, gate.set).start()
    run.save(dict(state), 1, False, gate.wait)
    assert gate.is_set() == waits
    if not waits:
        run.save(dict(state), 2, False, lambda: None)  # not due before anybody knows what the first took
        gate.set()
    run.wait()
    run.save(dict(state), 3, True, lambda: None)  # nothing changes after the last
    run.wait()
    assert saved == [(1, "w") if waits else (1, "copied", "w"), (3, "w")]


def test_a_second_interruption_while_the_first_is_answered_changes_nothing(tmp_path, monkeypatch, capsys):
    run, gate = new_run(tmp_path / "run"), threading.Event()
    run.open_logs(0)
    run.in_background(gate.wait)

    def interrupted():
        threading.Timer(0.05, lambda: (os.kill(os.getpid(), signal.SIGINT), gate.set())).start()
        raise KeyboardInterrupt

    learner = SimpleNamespace(done=4, learn=interrupted, undo=lambda: None, state=dict)
    with pytest.raises(KeyboardInterrupt, match="epoch 4 is saved in"):
        fit(learner, run, None, total=9, log_step=1, shown=())
    assert (tmp_path / "run/model/epoch_0004.pt").exists()
    assert "what is left is being written" in capsys.readouterr().out


def test_log_steps_that_wait_keep_no_state_that_is_not_saved(tmp_path, monkeypatch):
    monkeypatch.setattr("run.folder.CHEAP", 0)
    monkeypatch.setattr("run.folder.SHARES", dict.fromkeys(SHARES, -1.0))
    run, gate, chains = new_run(tmp_path / "run"), threading.Event(), torch.zeros(5)
    held = weakref.ref(chains)
    run.save({"chains": [chains]}, 1, False, gate.wait)
    del chains
    assert held() is None
    gate.set()
    run.wait()


def test_a_checkpoint_may_hold_only_plain_types_and_tensors(tmp_path):
    torch.save({"path": tmp_path}, tmp_path / "a.pt")
    with pytest.raises(RunError, match="a.pt"):
        load_checkpoint(tmp_path / "a.pt", "cpu")
    with pytest.raises(RunError, match="there is no checkpoint"):
        load_checkpoint(tmp_path / "b.pt", "cpu")


@pytest.mark.parametrize("state", [torch.zeros(2), {"latents": 1}, [1]])
def test_another_programs_checkpoint_is_told_apart(state, tmp_path):
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(RunError, match="not a checkpoint of this program") as caught:
        load_checkpoint(tmp_path / "a.pt", "cpu", "chains")
    assert caught.value.code == 2


def test_log_rows_after_the_resumed_epoch_are_dropped(tmp_path):
    run = new_run(tmp_path / "run")
    run.open_logs(0)
    for epoch in (1, 2, 3):
        run.log(epoch, {"gap": epoch / 3})
    run.close()
    path = tmp_path / "run/metrics.csv"
    with open(path, "a") as file:
        file.write("4,1.2")  # a row that was cut off
    run.open_logs(2)
    run.log(3, {"gap": 7.0})
    run.close()
    assert path.read_text().split() == ["epoch,gap", "1,0.3333333", "2,0.6666667", "3,7"]


def test_outputs_keep_to_their_share_of_the_time(tmp_path, moving, monkeypatch):
    """What has taken more than its share waits; first and last results, and every sheet, are written all the same."""
    monkeypatch.setattr("run.folder.SHARES", dict.fromkeys(SHARES, 0.0))
    run, video = new_run(tmp_path), moving(4, 24, 24)
    run.open_logs(0)
    written = []
    for epoch in (1, 2, 3):
        run.log_pictures(epoch, [video], ["clip"], last=epoch == 3)
        run.renew("films", epoch == 3, lambda epoch=epoch: utils.save_videos(
            tmp_path, "synthesized", video[None] // epoch))
        written.append(iio.imread(tmp_path / "synthesized_sequence/sequence_0/000.png"))
        assert (tmp_path / f"progress/epoch_000{epoch}.png").exists()
    assert np.array_equal(written[0], video[0]) and np.array_equal(written[1], video[0])
    assert np.array_equal(written[2], video[0] // 3)
    assert not run.affords("films") and run.affords("checkpoints")
    run.close()
    events = b"".join(path.read_bytes() for path in (tmp_path / "log").iterdir())
    assert events.count(b"GIF89a") == 2 and events.count(b"JFIF") == 3


def test_the_rate_falls_to_a_tenth_over_the_last_part():
    rates = [learning_rate(0.01, 0.4, epoch, 10) for epoch in range(11)]
    assert rates[:7] == [0.01] * 7
    assert rates[6:] == pytest.approx([0.01 * 0.1 ** (k / 4) for k in range(5)])
    assert {learning_rate(0.01, 0.0, epoch, 10) for epoch in range(11)} == {0.01}


def test_adam_steps_at_the_rate_that_it_is_given():
    w = torch.nn.Parameter(torch.zeros(3))
    optimizer, moves = Adam([w], lr=0.1, beta1=0.5), []
    for rate in (None, 0.01, 0.02):
        before, w.grad = w.detach().clone(), torch.ones(3)
        optimizer.step(rate)
        moves.append((before - w.detach()).tolist())
    assert moves[0] == pytest.approx([0.1] * 3, rel=1e-3)  # a constant gradient moves each weight by the rate
    assert moves[1] == pytest.approx([0.01] * 3, rel=1e-3) and moves[2] == pytest.approx([0.02] * 3, rel=1e-3)


def test_instructions_for_bfloat16_are_found():
    info = Path("/proc/cpuinfo")
    flags = re.findall(r"^flags\s*:(.*)$", info.read_text(), re.M) if info.exists() else []
    if not flags:
        pytest.skip("this system does not list its processor's instructions")
    flags = flags[0].split()
    if "avx512f" in flags and "avx512_bf16" not in flags:
        pytest.skip("this processor emulates them")
    assert multiplies_bfloat16(torch.device("cpu")) == ("avx512_bf16" in flags)
