"""Programs and what they read: the part and the time of clips, the identity of inputs, memory, names, stops."""

import contextlib
import io
import json
import os
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from PIL import Image

import evaluate
import main
import main_dyn_G
import main_videogan
import reader.clips
import stabilize
import utils
from fast.device import available_memory
from run.flags import RunError, run_program
from run.inputs import check_memory

CPU = ["-device", "cpu", "-seed", "0"]
PROGRAMS = {
    "main.py": (main, [*CPU, "-net_type", "ST", "-im_size", "24", "-num_frames", "16", "-num_chain", "1",
                       "-sample_steps", "1"], "-num_epochs", "epoch"),
    "main_dyn_G.py": (main_dyn_G, [*CPU, "-im_size", "64", "-num_frames", "6", "-state_size", "4", "-z_size", "4",
                                   "-sample_steps", "1", "-num_sections_in_test", "1", "-num_batches_in_test", "1"],
                      "-num_epochs", "epoch"),
    "main_videogan.py": (main_videogan, [*CPU, "-batch_size", "1", "-workers", "0", "-streams", "1"],
                         "-num_iterations", "iteration"),
}


@pytest.fixture(scope="module", autouse=True)
def narrow():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"nets.WIDTH": 8, "learn.SAMPLES": 4, "learn.JUDGED": 4}.items():
            patch.setattr(f"videogan.{name}", value)
        yield


def call(program, *arguments):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = program.main([str(each) for each in arguments])
        except SystemExit as stop:
            code = stop.code
    return SimpleNamespace(code=code, out=out.getvalue(), err=err.getvalue())


def write(path, video, rate=25):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.height, stream.width, stream.pix_fmt = *video.shape[1:3], "yuv420p"
        for frame in video:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    return path


def config(folder):
    return json.loads((folder / "config.json").read_text())


def film(path):
    """Frames a second, frames, and whether the index comes first, of an MP4."""
    content = path.read_bytes()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream.average_rate, stream.frames, content.find(b"moov") < content.find(b"mdat")


# ------------------------------------------------------------------------------------------- which part, what time


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_takes_a_part_of_a_clip_in_its_own_time(name, tmp_path, moving):
    program, small, total, unit = PROGRAMS[name]
    write(tmp_path / "data/fire/a.mp4", moving(90, 32, 32), rate=60)
    flags = ["-category", "fire/", "-data_path", tmp_path / "data", "-output_dir", tmp_path / "out", *small]
    part = ["-start_frame", 10, "-frame_step", 2]
    done = call(program, *flags, *part, total, 1)
    assert (done.code, done.err) == (0, ""), done.err
    line = f"a.mp4: 32x32, 60 fps, 90 frames, used 11-{ {'main.py': 41, 'main_dyn_G.py': 21}.get(name, 89) }, every 2nd"
    assert line in done.out and config(tmp_path / "out/fire")["inputs"] == [line]
    films = list((tmp_path / "out/fire/final_results").glob("*.mp4"))
    assert films and all(film(path)[0] == 30 and film(path)[2] for path in films)
    again = call(program, *flags, *part, total, 2, "-fps", 12)  # only how it is shown may change
    assert again.code == 0 and f"{unit}s 2 to 2" in again.out
    assert film(films[0])[0] == 12
    made = call(program, *flags, "-test", "-sample_size" if name != "main_dyn_G.py" else "-burn_in", 1)
    shown = list((tmp_path / "out/fire/test/final_results").glob("*.mp4"))
    assert made.code == 0 and shown and film(shown[0])[0] == 12
    other = call(program, *flags, total, 2)
    assert other.code == 2 and "start_frame was 10, now 0" in other.err and other.err.count("\n") == 1


def test_the_observed_frames_are_those_of_the_part(tmp_path, moving):
    path = write(tmp_path / "data/fire/a.mp4", moving(60, 24, 24))
    flags = ["-category", "fire", "-data_path", tmp_path / "data", "-output_dir", tmp_path / "out"]
    assert call(main, *flags, *PROGRAMS["main.py"][1], "-num_epochs", 1, "-start_frame", "0.4s").code == 0
    seen = [np.asarray(Image.open(tmp_path / f"out/fire/observed_sequence/sequence_0/{t:03d}.png")) for t in range(16)]
    assert np.array_equal(np.stack(seen), reader.clips.read_clip(path)[10:26])


RATES = [(25, {40}), (10, {100}), (30, {30, 40}), (Fraction(60000, 1001), {30, 40})]


@pytest.mark.parametrize("rate, durations", RATES)
def test_a_gif_lasts_as_long_as_its_video(rate, durations, moving):
    with Image.open(io.BytesIO(utils.gif_bytes(moving(60), rate))) as gif:
        each = []
        for k in range(gif.n_frames):
            gif.seek(k)
            each.append(gif.info["duration"])
    assert set(each) == durations and abs(sum(each) - 60_000 / rate) <= 20


def test_a_gif_of_held_frames_is_read_back_whole(tmp_path, moving):
    video = np.repeat(moving(5), 6, axis=0)
    (tmp_path / "a.gif").write_bytes(utils.gif_bytes(video))
    read = reader.clips.read_clip(tmp_path / "a.gif")
    assert read.shape == video.shape and np.abs(read.astype(int) - video).mean() < 6


def test_a_colour_of_one_moment_is_kept(moving):
    video = np.random.default_rng(0).integers(10, 60, (30, 48, 64, 3)).astype(np.uint8)
    video[7] = 255, 120, 0
    video[12, :6, :6] = 0, 200, 0
    with Image.open(io.BytesIO(utils.gif_bytes(video))) as gif:
        frames = []
        for k in range(30):
            gif.seek(k)
            frames.append(np.asarray(gif.convert("RGB")).astype(int))
    assert np.abs(frames[7] - (255, 120, 0)).max() <= 6
    assert np.abs(frames[12][:6, :6] - (0, 200, 0)).max() <= 8
    assert np.abs(np.stack(frames) - video).mean() < 6


# ------------------------------------------------------------------------------------------------------- identity


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_run_goes_on_with_its_own_clips_only(name, tmp_path, moving):
    program, small, total, unit = PROGRAMS[name]
    write(tmp_path / "data/fire/a.mp4", moving(40, 32, 32))

    def run(data_path, steps, *more):
        return call(program, "-category", "fire", "-data_path", data_path, "-output_dir", tmp_path / "out", *small,
                    total, steps, *more)

    assert run(tmp_path / "data", 1).code == 0
    (tmp_path / "data").rename(tmp_path / "moved")
    assert f"{unit}s 2 to 2" in run(tmp_path / "moved", 2).out
    write(tmp_path / "moved/fire/a.mp4", 255 - moving(40, 32, 32)[:, ::-1] // 3)
    for _ in range(2):
        other = run(tmp_path / "moved", 3)
        assert other.code == 2 and "'a.mp4' is not what it learned from" in other.err and "-overwrite" in other.err
        assert other.err.count("\n") == 1
        (tmp_path / "out/fire/config.json").unlink(missing_ok=True)  # the checkpoint knows it, too
    assert f"{unit}s 1 to 1" in run(tmp_path / "moved", 1, "-overwrite").out


def test_a_run_of_before_fingerprints_goes_on(tmp_path, moving):
    write(tmp_path / "data/fire/a.mp4", moving(40, 24, 24))
    flags = ["-category", "fire", "-data_path", tmp_path / "data", "-output_dir", tmp_path / "out",
             *PROGRAMS["main.py"][1]]
    assert call(main, *flags, "-num_epochs", 1).code == 0
    folder = tmp_path / "out/fire"
    old = config(folder)
    for name in ("inputs", "fingerprints", "rate"):
        del old[name]
    for name in ("start_frame", "frame_step", "fps"):
        del old["settings"][name]
    (folder / "config.json").write_text(json.dumps(old))
    state = torch.load(folder / "model/latest.pt", weights_only=True)
    torch.save({name: value for name, value in state.items() if name not in ("fingerprints", "rate")},
               folder / "model/latest.pt")
    assert call(main, *flags, "-num_epochs", 2).code == 0
    assert config(folder)["fingerprints"]


@pytest.mark.parametrize("name", ["main.py", "main_dyn_G.py"])
def test_a_run_goes_on_with_its_own_mask_only(name, tmp_path, moving):
    program, small, total, _ = PROGRAMS[name]
    write(tmp_path / "data/fire/a.mp4", moving(40, 64, 64))
    side = int(small[small.index("-im_size") + 1])
    mask = np.zeros((side, side), np.uint8)
    mask[:8, :8] = 1
    Image.fromarray(mask).save(tmp_path / "mask.png")
    flags = ["-category", "fire", "-data_path", tmp_path / "data", "-output_dir", tmp_path / "out", *small,
             "-mask_type", "external", "-mask_file", tmp_path / "mask.png", total]
    done = call(program, *flags, 1)
    assert done.code == 0 and "mask.png" in done.out and f"hides {64 / side**2:.1%}" in done.out
    Image.fromarray(np.roll(mask, 9)).save(tmp_path / "mask.png")
    other = call(program, *flags, 2)
    assert other.code == 2 and "'mask.png' is not what it learned from" in other.err
    Image.fromarray(mask * 0).save(tmp_path / "mask.png")
    assert "hides no pixel" in call(program, *flags, 2, "-overwrite").err


def test_a_strip_that_was_replaced_is_named(tmp_path, moving):
    folder = tmp_path / "data/sea"
    folder.mkdir(parents=True)
    for k in range(4):
        Image.fromarray(moving(32, 64, 64, k).reshape(-1, 64, 3)).save(folder / f"{k}.png")
    (folder / "list.txt").write_bytes(b"\xef\xbb\xbf# mine\r\n" + b"".join(b"%d.png\r\n" % k for k in range(4)))
    flags = ["-category", "sea", "-data_path", tmp_path / "data", "-output_dir", tmp_path / "out",
             *PROGRAMS["main_videogan.py"][1], "-num_iterations"]
    done = call(main_videogan, *flags, 1)
    assert done.code == 0 and "4 strips" in done.out
    Image.fromarray(moving(32, 64, 64, 9).reshape(-1, 64, 3)).save(folder / "2.png")
    other = call(main_videogan, *flags, 2)
    assert other.code == 2 and "'2.png' is not what it learned from" in other.err


def test_a_video_that_was_replaced_is_not_taken_for_its_strips(tmp_path):
    def scene(seed):
        picture = np.random.default_rng(seed).integers(0, 255, (40, 60, 3)).astype(np.uint8)
        picture = np.asarray(Image.fromarray(picture).resize((240, 160)))
        write(tmp_path / "in/clip.mp4", np.stack([np.roll(picture, k, 1) for k in range(24)]))

    flags = ["-videos", tmp_path / "in", "-output", tmp_path / "out", "-workers", 1]
    scene(1)
    assert call(stabilize, *flags).code == 0
    assert call(stabilize, *flags).code == 0
    before = (tmp_path / "out/clip/0000.jpg").read_bytes()
    scene(2)
    other = call(stabilize, *flags)
    assert other.code == 2 and "clip.mp4" in other.err and "-overwrite" in other.err and other.err.count("\n") == 1
    assert call(stabilize, *flags, "-overwrite").code == 0
    assert (tmp_path / "out/clip/0000.jpg").read_bytes() != before


# ---------------------------------------------------------------------------------------------- said before it learns


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_clip_that_stands_still_or_is_black_is_said(name, tmp_path):
    program, small, _, _ = PROGRAMS[name]
    write(tmp_path / "data/fire/a.mp4", np.zeros((40, 32, 32, 3), np.uint8))
    done = call(program, "-category", "fire", "-data_path", tmp_path / "data", *small, "-dry_run")
    assert done.code == 0 and "does not move" in done.out and "black" in done.out


@pytest.mark.parametrize("dry", [["-dry_run"], []])
def test_a_run_that_cannot_fit_is_refused_before_it_allocates(dry, tmp_path, moving, monkeypatch):
    write(tmp_path / "data/fire/a.mp4", moving(40, 32, 32))
    monkeypatch.setattr("stg.outputs.available_memory", lambda device: 20 * 2**30)
    allocated = []
    monkeypatch.setattr("data.read_category", lambda *_: allocated.append(True))
    refused = call(main, "-category", "fire", "-data_path", tmp_path / "data", "-im_size", "1080x1920", "-num_frames",
                   40, "-device", "cpu", "-output_dir", tmp_path / "out", *dry)
    assert refused.code == 2 and not allocated and refused.err.count("\n") == 1
    assert "GiB" in refused.err and "-im_size" in refused.err and not (tmp_path / "out").exists()


def test_a_judgement_that_cannot_fit_is_refused(tmp_path, moving, monkeypatch):
    path = write(tmp_path / "a.mp4", moving(40, 32, 32))
    monkeypatch.setattr("evaluate.available_memory", lambda device: 2**30)
    refused = call(evaluate, "-observed", path, "-synthesized", path, "-im_size", "2160x3840", "-out", tmp_path / "o")
    assert refused.code == 2 and "GiB" in refused.err and refused.err.count("\n") == 1


def test_what_fits_is_not_refused():
    free = available_memory(torch.device("cpu"))
    check_memory(free // 2, free, "")
    with pytest.raises(RunError, match="GiB.*: less"):
        check_memory(free + 1, free, "less")


FAILURES = [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"),
            RuntimeError("[enforce fail at alloc_cpu.cpp:127] you tried to allocate 13271040000 bytes")]


@pytest.mark.parametrize("error", FAILURES)
def test_memory_that_is_gone_is_one_line(error, capsys):
    def program():
        raise error

    assert run_program(program, ValueError) == 1
    err = capsys.readouterr().err
    assert "out of memory" in err and err.count("\n") == 1


# --------------------------------------------------------------------------------------------------- paths and names


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_clip_can_be_named_itself(name, tmp_path, moving):
    program, small, total, _ = PROGRAMS[name]
    path = write(tmp_path / "data/fire.mp4", moving(40, 32, 32))
    for where in (["-data_path", path], ["-data_path", tmp_path / "data", "-category", "fire.mp4"]):
        done = call(program, *where, "-output_dir", tmp_path / "out", *small, total, 1)
        assert done.code == 0, done.err
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["fire"]


def test_a_slash_or_a_dot_makes_no_other_category(tmp_path, moving):
    write(tmp_path / "data/fire/a.mp4", moving(20, 24, 24))
    for k, category in enumerate(("fire", "fire/", "./fire", "./fire//"), start=1):
        done = call(main, "-category", category, "-data_path", tmp_path / "data", "-output_dir", tmp_path / "out",
                    *PROGRAMS["main.py"][1], "-num_epochs", k)
        assert done.code == 0, done.err
    assert "finished" in call(main, "-category", "fire", "-data_path", tmp_path / "data", "-output_dir",
                              tmp_path / "out", *PROGRAMS["main.py"][1], "-num_epochs", 4).out


@pytest.mark.parametrize("name", ["fire $5_{ to $9.mp4", "_fire^.mp4", "火 fire.mp4", b"caf\xe9.mp4"])
def test_any_name_can_be_judged_and_drawn_in_any_locale(name, tmp_path, moving, run_script):
    path = tmp_path / (name if isinstance(name, str) else os.fsdecode(name))
    try:
        write(tmp_path / "a.mp4", moving(24, 24, 24)).rename(path)
    except OSError:
        pytest.skip("the file system does not take this name")
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "OMP_NUM_THREADS": "1"}
    done = run_script(["-observed", str(path), "-synthesized", str(path), "-num_frames", "12", "-im_size", "16", "-lds",
                       "4", "-out", str(tmp_path / "out")], script="evaluate.py", env=environment)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == [
        "evaluation.csv", "evaluation.json", "evaluation.png"]


def test_a_category_of_any_name_is_learned_in_any_locale(tmp_path, moving, run_script):
    for raw in ("火 fire".encode(), b"caf\xe9"):
        category = os.fsdecode(raw)
        try:
            write(tmp_path / "a.mp4", moving(20, 24, 24))
            (tmp_path / "data" / category).mkdir(parents=True)
            (tmp_path / "a.mp4").rename(tmp_path / "data" / category / "a.mp4")
        except OSError:
            pytest.skip("the file system does not take this name")
        environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "OMP_NUM_THREADS": "1"}
        done = run_script(["-category", category, "-data_path", str(tmp_path / "data"), "-output_dir",
                           str(tmp_path / "out"), *PROGRAMS["main.py"][1], "-num_epochs", "1"], env=environment)
        if raw == b"caf\xe9":  # which TensorBoard cannot write
            assert done.returncode == 2 and "no name in UTF-8" in done.stderr and done.stderr.count("\n") == 1
        else:
            assert (done.returncode, done.stderr) == (0, ""), done.stderr


def test_frames_of_several_sizes_are_one_line(tmp_path, moving):
    folder = tmp_path / "seq"
    folder.mkdir()
    for k in range(6):
        Image.fromarray(moving(1, 48 + 8 * (k == 3))[0]).save(folder / f"{k}.png")
    np.save(tmp_path / "mask.npy", np.ones((6, 48, 24)) * (np.arange(24) < 9))
    done = call(evaluate, "-truth", folder, "-mask", tmp_path / "mask.npy", "-recovered", folder, "-out",
                tmp_path / "out")
    assert done.code == 2 and "several sizes" in done.err and done.err.count("\n") == 1
    done = call(evaluate, "-truth", folder, "-mask", tmp_path / "mask.npy", "-recovered", folder, "-out",
                tmp_path / "out", "-im_size", "48x24")
    assert done.code == 0 and json.loads((tmp_path / "out/recovery.json").read_text())["settings"]["fingerprints"]


def test_a_copy_of_the_clip_is_judged_in_the_part_that_was_learned(tmp_path, moving):
    path = write(tmp_path / "a.mp4", moving(60, 24, 24))
    video = reader.clips.read_clip(path)
    for t, frame in enumerate(video[10:34:2]):
        (tmp_path / "part").mkdir(exist_ok=True)
        Image.fromarray(frame).save(tmp_path / f"part/{t:02d}.png")
    done = call(evaluate, "-observed", path, "-synthesized", tmp_path / "part", "-num_frames", 12, "-im_size", 24,
                "-lds", 0, "-start_frame", 10, "-frame_step", 2, "-out", tmp_path / "out")
    assert done.code == 0, done.err
    row = json.loads((tmp_path / "out/evaluation.json").read_text())["rows"][1]
    assert row["nearest_psnr"] == 60 and row["mean_image"] == 0


def test_every_shipped_clip_is_read_as_it_is():
    for path in sorted((Path(main.__file__).parent / "trainingVideo").rglob("*.mp4")):
        record = reader.clips.read(path, 30)[1]
        assert str(record).startswith(f"{path.name}: ") and record.notes == [] and record.rate == 25, str(record)


