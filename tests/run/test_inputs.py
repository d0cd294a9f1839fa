"""Programs and what they read: the part and the time of clips, the identity of inputs, memory, names."""

import io
import json
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from calls import PROGRAMS, call, narrow, succeeds, write_film
from PIL import Image
from tools import assert_refused

import evaluate
import main
import reader.clips
import stabilize
import utils
from judge.pictures import texture_png

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module", autouse=True)
def small():
    with narrow():
        yield


@pytest.fixture
def run(tmp_path):
    """run(program, steps, *flags): a tiny run of category fire below tmp_path/data, in tmp_path/out."""

    def start(name, steps, *more):
        program, small, unit = PROGRAMS[name]
        return call(program, "-category fire -data_path", tmp_path / "data", "-output_dir", tmp_path / "out", small,
                    f"-num_{unit}s", steps, *more)

    return start


def config(folder):
    return json.loads((folder / "config.json").read_text())


def film(path):
    """Frames a second of an MP4, and whether its index comes first."""
    content = path.read_bytes()
    with av.open(str(path)) as container:
        return container.streams.video[0].average_rate, content.find(b"moov") < content.find(b"mdat")


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_run_learns_its_part_of_its_own_clip_in_its_time_wherever_that_lies(name, run, tmp_path, moving):
    clip, folder = write_film(tmp_path / "data/fire/fire.mp4", moving(90, 32, 32), 60), tmp_path / "out/fire"
    program, small, unit = PROGRAMS[name]
    part = "-start_frame 10 -frame_step 2"
    done = run(name, 1, part, "-category fire/")
    assert (done.code, done.err) == (0, "")
    last = {"main.py": 41, "main_dyn_G.py": 21, "main_videogan.py": 89}[name]
    line = f"fire.mp4: 32x32, 60 fps, 90 frames, used 11-{last}, every 2nd"
    assert line in done.out and config(folder)["inputs"] == [line]
    films = list((folder / "final_results").glob("*.mp4"))
    assert films and all(film(path) == (30, True) for path in films)

    moved = (tmp_path / "data").rename(tmp_path / "moved")
    there = ("-data_path", moved, "-category ./fire//")
    again = run(name, 2, part, *there, "-fps 12")  # where it lies and how it is shown may change
    assert again.code == 0 and f"{unit}s 2 to 2" in again.out and film(films[0])[0] == 12
    more = "-burn_in 1" if name == "main_dyn_G.py" else "-sample_size 1"
    succeeds(program, "-test -category fire -data_path", moved, "-output_dir", tmp_path / "out", small, more)
    assert [film(path)[0] for path in (folder / "test/final_results").glob("*.mp4")][0] == 12
    assert_refused(run(name, 2, *there), "start_frame was 10, now 0")

    clip = write_film(moved / "fire/fire.mp4", 255 - moving(90, 32, 32)[:, ::-1] // 3)
    for _ in range(2):
        assert_refused(run(name, 3, part, *there), "'fire.mp4' is not what it learned from", "-overwrite")
        (folder / "config.json").unlink(missing_ok=True)  # the checkpoint knows it, too
    named = (small, f"-num_{unit}s 1 -output_dir", tmp_path / "out", "-data_path")
    assert f"{unit}s 1 to 1" in succeeds(program, *named, clip, "-overwrite")
    assert "is finished" in succeeds(program, *named, clip.parent, "-category fire.mp4")
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["fire"]


def test_the_observed_frames_are_those_of_the_part(run, tmp_path, moving):
    path = write_film(tmp_path / "data/fire/a.mp4", moving(60, 24, 24))
    assert run("main.py", 1, "-start_frame 0.4s").code == 0
    seen = [np.asarray(Image.open(tmp_path / f"out/fire/observed_sequence/sequence_0/{t:03d}.png")) for t in range(16)]
    assert np.array_equal(np.stack(seen), reader.clips.read_clip(path)[10:26])


def test_a_run_of_before_fingerprints_goes_on(run, tmp_path, moving):
    write_film(tmp_path / "data/fire/a.mp4", moving(40, 24, 24))
    assert run("main.py", 1).code == 0
    folder, new = tmp_path / "out/fire", ("inputs", "fingerprints", "rate", "start_frame", "frame_step", "fps")
    old = {name: value for name, value in config(folder).items() if name not in new}
    old["settings"] = {name: value for name, value in old["settings"].items() if name not in new}
    (folder / "config.json").write_text(json.dumps(old))
    state = torch.load(folder / "model/latest.pt", weights_only=True)
    torch.save({name: value for name, value in state.items() if name not in new}, folder / "model/latest.pt")
    assert run("main.py", 2).code == 0 and config(folder)["fingerprints"]


@pytest.mark.parametrize("name", ["main.py", "main_dyn_G.py"])
def test_a_run_goes_on_with_its_own_mask_only(name, run, tmp_path, moving):
    side, path = {"main.py": 24, "main_dyn_G.py": 8}[name], tmp_path / "mask.png"
    write_film(tmp_path / "data/fire/a.mp4", moving(40, 64, 64))
    mask = np.zeros((side, side), np.uint8)
    mask[:4, :4] = 1
    external = ("-mask_type external -mask_file", path)
    Image.fromarray(mask).save(path)
    done = run(name, 1, *external)
    assert done.code == 0 and "mask.png" in done.out and f"hides {16 / side**2:.1%}" in done.out
    Image.fromarray(np.roll(mask, 3)).save(path)
    assert_refused(run(name, 2, *external), "'mask.png' is not what it learned from")
    Image.fromarray(mask * 0).save(path)
    assert "hides no pixel" in run(name, 2, *external, "-overwrite").err


def test_a_strip_that_was_replaced_is_named(run, tmp_path, moving):
    folder = tmp_path / "data/fire"
    folder.mkdir(parents=True)
    for k in range(4):
        Image.fromarray(moving(32, 64, 64, k).reshape(-1, 64, 3)).save(folder / f"{k}.png")
    (folder / "list.txt").write_bytes(b"\xef\xbb\xbf# mine\r\n" + b"".join(b"%d.png\r\n" % k for k in range(4)))
    done = run("main_videogan.py", 1)
    assert done.code == 0 and "4 strips" in done.out
    Image.fromarray(moving(32, 64, 64, 9).reshape(-1, 64, 3)).save(folder / "2.png")
    assert_refused(run("main_videogan.py", 2), "'2.png' is not what it learned from")


def test_a_video_that_was_replaced_is_not_taken_for_its_strips(tmp_path):
    def scene(seed):
        picture = np.random.default_rng(seed).integers(0, 255, (40, 60, 3)).astype(np.uint8)
        picture = np.asarray(Image.fromarray(picture).resize((240, 160)))
        write_film(tmp_path / "in/clip.mp4", np.stack([np.roll(picture, k, 1) for k in range(17)]))

    flags = ("-workers 1 -start_frame 0 -videos", tmp_path / "in", "-output", tmp_path / "out")
    scene(1)
    succeeds(stabilize, *flags)
    succeeds(stabilize, *flags)
    before = (tmp_path / "out/clip/0000.jpg").read_bytes()
    scene(2)
    assert_refused(call(stabilize, *flags), "clip.mp4", "-overwrite")
    succeeds(stabilize, *flags, "-overwrite")
    assert (tmp_path / "out/clip/0000.jpg").read_bytes() != before


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_clip_that_stands_still_or_is_black_is_said(name, run, tmp_path):
    write_film(tmp_path / "data/fire/a.mp4", np.zeros((40, 32, 32, 3), np.uint8))
    done = run(name, 1, "-dry_run")
    assert done.code == 0 and "does not move" in done.out and "black" in done.out


@pytest.mark.parametrize("more", ["", "-dry_run"])
@pytest.mark.parametrize("name, flags, free, where, reads", [
    ("main.py", "-im_size 1080x1920 -num_frames 40", 1, "stg.outputs", "data.read_category"),
    ("main.py", "-im_size 224 -num_frames 70 -net_type ST -mask_type region", 1, "stg.outputs", "data.read_category"),
    ("main_dyn_G.py", "-im_size 64 -truncated_backprop_length 40 -num_frames 10000", 1, "dyngen.learn",
     "dyngen.learn.load"),
    ("main_videogan.py", "-batch_size 999", 1, "videogan.learn", "videogan.learn.load"),
])
def test_a_run_that_cannot_fit_is_refused_before_it_reads_a_clip(name, flags, free, where, reads, more, run, tmp_path,
                                                                 moving, monkeypatch):
    write_film(tmp_path / "data/fire/a.mp4", moving(40, 32, 32))
    monkeypatch.setattr(f"{where}.available_memory", lambda device: free * 2**30)
    monkeypatch.setattr(reads, lambda *_, **__: pytest.fail("clips are read"))
    assert_refused(run(name, 1, flags, more), "GiB", flags.split()[0])
    assert not (tmp_path / "out").exists()


def test_a_judgement_that_cannot_fit_is_refused(tmp_path, moving, monkeypatch):
    path = write_film(tmp_path / "a.mp4", moving(40, 32, 32))
    monkeypatch.setattr("evaluate.available_memory", lambda device: 2**30)
    assert_refused(call(evaluate, "-im_size 2160x3840 -observed", path, "-synthesized", path), "GiB")


# ------------------------------------------------------------------------------------------------------- GIFs


def read_gif(content):
    """How long each frame of a GIF is shown, in ms, and the frames, int (T, H, W, 3)."""
    with Image.open(io.BytesIO(content)) as gif:
        shown = []
        for k in range(gif.n_frames):
            gif.seek(k)
            shown.append((gif.info["duration"], np.asarray(gif.convert("RGB")).astype(int)))
    return [each for each, _ in shown], np.stack([frame for _, frame in shown])


@pytest.mark.parametrize("rate, durations", [
    (25, {40}), (10, {100}), (30, {30, 40}), (Fraction(60000, 1001), {30, 40})])
def test_a_gif_lasts_as_long_as_its_video(rate, durations, moving):
    each, _ = read_gif(utils.gif_bytes(moving(60), rate))
    assert set(each) == durations and abs(sum(each) - 60_000 / rate) <= 20


def test_a_gif_of_held_frames_is_read_back_whole(tmp_path, moving):
    video = np.repeat(moving(5), 6, axis=0)
    (tmp_path / "a.gif").write_bytes(utils.gif_bytes(video))
    read = reader.clips.read_clip(tmp_path / "a.gif")
    assert read.shape == video.shape and np.abs(read.astype(int) - video).mean() < 6


def test_a_colour_of_one_moment_is_kept():
    video = np.random.default_rng(0).integers(10, 60, (30, 48, 64, 3)).astype(np.uint8)
    video[7] = 255, 120, 0
    video[12, :6, :6] = 0, 200, 0
    _, frames = read_gif(utils.gif_bytes(video))
    assert np.abs(frames[7] - (255, 120, 0)).max() <= 6 and np.abs(frames[12][:6, :6] - (0, 200, 0)).max() <= 8
    assert np.abs(frames - video).mean() < 6


# ------------------------------------------------------------------------------------------------------- names


def test_clips_of_any_name_are_judged_and_drawn_in_any_locale(tmp_path, moving, monkeypatch):
    monkeypatch.setattr("judge.pictures.texture_png", texture_png)
    paths, film = [], write_film(tmp_path / "a.mp4", moving(24, 24, 24)).read_bytes()
    for name in ("fire $5_{ to $9.mp4", "_fire^.mp4", "火 fire.mp4", os.fsdecode(b"caf\xe9.mp4")):
        try:
            (tmp_path / name).write_bytes(film)
            paths.append(tmp_path / name)
        except OSError:  # the file system does not take this name
            continue
    succeeds(evaluate, "-num_frames 12 -im_size 16 -lds 4 -out", tmp_path / "out", "-observed", paths[-1],
             "-synthesized", *paths, coding="cp1252")
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == [
        "evaluation.csv", "evaluation.json", "evaluation.png"]


@pytest.mark.parametrize("category", ["火 fire".encode(), b"caf\xe9"])
def test_a_category_of_any_name_is_learned_in_any_locale(category, tmp_path, moving):
    category = os.fsdecode(category)
    try:
        write_film(tmp_path / "a.mp4", moving(20, 24, 24))
        (tmp_path / "data" / category).mkdir(parents=True)
        (tmp_path / "a.mp4").rename(tmp_path / "data" / category / "a.mp4")
    except OSError:
        pytest.skip("the file system does not take this name")
    flags = (PROGRAMS["main.py"][1], "-num_epochs 1 -data_path", tmp_path / "data", "-output_dir", tmp_path / "out",
             "-category", Path(category))
    if category == "火 fire":
        succeeds(main, *flags, coding="cp1252")
    else:  # which TensorBoard cannot write
        assert_refused(call(main, *flags, coding="cp1252"), "no name in UTF-8")


def test_frames_of_several_sizes_are_one_line(tmp_path, moving):
    folder, mask = tmp_path / "seq", tmp_path / "mask.npy"
    folder.mkdir()
    for k in range(6):
        Image.fromarray(moving(1, 48 + 8 * (k == 3))[0]).save(folder / f"{k}.png")
    np.save(mask, np.ones((6, 48, 24)) * (np.arange(24) < 9))
    flags = ("-truth", folder, "-mask", mask, "-recovered", folder, "-out", tmp_path / "out")
    assert_refused(call(evaluate, *flags), "several sizes")
    assert call(evaluate, *flags, "-im_size 48x24").code == 0
    assert json.loads((tmp_path / "out/recovery.json").read_text())["settings"]["fingerprints"]


def test_a_copy_of_the_clip_is_judged_in_the_part_that_was_learned(tmp_path, moving):
    path = write_film(tmp_path / "a.mp4", moving(60, 24, 24))
    (tmp_path / "part").mkdir()
    for t, frame in enumerate(reader.clips.read_clip(path)[10:34:2]):
        Image.fromarray(frame).save(tmp_path / f"part/{t:02d}.png")
    succeeds(evaluate, "-num_frames 12 -im_size 24 -lds 0 -start_frame 10 -frame_step 2 -observed", path,
             "-synthesized", tmp_path / "part", "-out", tmp_path / "out")
    row = json.loads((tmp_path / "out/evaluation.json").read_text())["rows"][1]
    assert row["nearest_psnr"] == 60 and row["mean_image"] == 0


def test_every_shipped_clip_is_read_as_it_is():
    for path in sorted((Path(main.__file__).parent / "trainingVideo").rglob("*.mp4")):
        record = reader.clips.read(path, 30)[1]
        assert str(record).startswith(f"{path.name}: ") and record.notes == [] and record.rate == 25, str(record)
