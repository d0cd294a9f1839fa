"""Stabilised strips against scenes whose camera motion is known, and whole runs of stabilize.py on tiny videos."""

import json
import multiprocessing
import os
import shutil
import signal
import threading
import time

import cv2
import numpy as np
import pytest
from calls import call, succeeds
from PIL import Image
from tools import assert_refused, contents

import data
import stabilize
from videogan.stabilize import SIDE, find_videos, shrink, stabilize_clip, stabilize_video

HEIGHT, WIDTH = 120, 160  # of the tests' videos
SCALE = SIDE / HEIGHT  # pixels of a strip for one of a video


def draw_scene(seed, darkest=0):
    """A still picture full of corners, twice as large as a video: seeded rectangles, uint8 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    scene = np.full((2 * HEIGHT, 2 * WIDTH, 3), (darkest + 255) // 2, np.uint8)
    for _ in range(600):
        top, left = rng.integers(2 * HEIGHT), rng.integers(2 * WIDTH)
        h, w = rng.integers(4, 24, 2)
        scene[top : top + h, left : left + w] = rng.integers(darkest, 256, 3)
    return cv2.GaussianBlur(scene, (0, 0), 0.8)


def shaken_camera(count, seed, shift=5.0, degrees=5.0):
    """What a shaken camera sees: (count, 3, 3), from pixels (x, y, 1) of each frame to those of the scene."""
    rng = np.random.default_rng(seed)
    cameras = []
    for _ in range(count):
        angle = np.deg2rad(rng.uniform(-degrees, degrees))
        c, s = np.cos(angle), np.sin(angle)
        rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        (dx, dy), (x, y) = rng.uniform(-shift, shift, 2), ((WIDTH - 1) / 2, (HEIGHT - 1) / 2)
        there, back = np.eye(3), np.eye(3)
        there[:2, 2], back[:2, 2] = (WIDTH + dx, HEIGHT + dy), (-x, -y)  # around the frame's and the scene's centre
        cameras.append(there @ rotation @ back)
    return np.stack(cameras)


def film(scene, cameras):
    """The frames that cameras see of a scene, uint8 (T, H, W, 3)."""
    return np.stack([cv2.warpPerspective(scene, camera, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
                     for camera in cameras])


def shaken(count, seed=0):
    return film(draw_scene(seed), shaken_camera(count, seed))


def flags(videos, output, *more):
    return "-workers 1 -videos", videos, "-output", output, *more


def record_of(folder):
    return json.loads((folder / "done.json").read_text())


def times(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file() and p.name != "list.txt"}


@pytest.fixture(scope="module")
def videos(tmp_path_factory, write_clip):
    """A folder of videos: of a shaken scene, of two with a cut, of flat grey, and a short one; two in a subfolder."""
    root = tmp_path_factory.mktemp("videos")
    write_clip(root / "clip10.mp4", shaken(20, seed=1))
    write_clip(root / "clip2.mp4", shaken(52, seed=2))
    write_clip(root / "b/cut.mp4", np.concatenate([shaken(12, seed=3), shaken(18, seed=4)]))
    write_clip(root / "b/flat.mp4", np.full((20, HEIGHT, WIDTH, 3), 128, np.uint8))
    write_clip(root / "short.mp4", shaken(8, seed=5))
    return root


@pytest.fixture(scope="module")
def printed():
    """What the run of `done` has printed."""
    return []


@pytest.fixture(scope="module")
def done(tmp_path_factory, videos, printed):
    """The output folder of a run over all of them, which tests leave as it is."""
    output = tmp_path_factory.mktemp("done")
    printed.append(succeeds(stabilize, *flags(videos, output)))
    return output


@pytest.fixture
def some(videos, tmp_path):
    """some(name, ...) -> a folder of these videos alone."""

    def pick(*names):
        (tmp_path / "videos").mkdir()
        for name in names:
            shutil.copy(videos / name, tmp_path / "videos")
        return tmp_path / "videos"

    return pick


# ------------------------------------------------------------------------------------------------------- one clip


def test_shaking_is_taken_out_to_under_half_a_pixel_and_frames_are_warped():
    cameras = shaken_camera(18, seed=0)
    frames = film(draw_scene(0), cameras)
    clip = stabilize_clip(iter(frames))
    assert clip.failure is None and len(clip.H) == len(clip.frames) == clip.read == len(frames)

    points = np.stack(np.meshgrid(np.linspace(0, WIDTH - 1, 7), np.linspace(0, HEIGHT - 1, 5)), -1).reshape(1, -1, 2)
    truth = [cv2.perspectiveTransform(points, np.linalg.inv(cameras[0]) @ camera) for camera in cameras[1:]]
    found = [cv2.perspectiveTransform(points, H) for H in clip.H[1:]]
    assert np.median(SCALE * np.linalg.norm(points - np.stack(truth), axis=-1)) > 3  # the shake
    assert np.median(SCALE * np.linalg.norm(np.stack(found) - truth, axis=-1)) < 0.5

    inner = np.s_[:, 24:-24, 24:-24]
    still = clip.frames[inner].astype(float)
    shaking = np.stack([shrink(frame) for frame in frames])[inner].astype(float)
    np.testing.assert_array_equal(still[0], shaking[0])
    assert np.abs(still - still[0]).mean() < 0.25 * np.abs(shaking - shaking[0]).mean()


def test_holes_keep_what_the_frame_before_had_there():
    scene = draw_scene(0) // 2
    before, after = scene[40 : 40 + HEIGHT, 40 : 40 + WIDTH], scene[60 : 60 + HEIGHT, 40 : 40 + WIDTH] + 40
    clip = stabilize_clip(iter([before, after]))
    brighter = (clip.frames[1].astype(float) - clip.frames[0]).mean((1, 2))  # of each row
    edge = 20 + 2  # the scene's rows that are not in view, and those that erosion takes
    assert not brighter[: int((edge - 1) * SCALE)].any() and brighter[int((edge + 2) * SCALE) :].min() > 30


def test_no_black_seeps_in_where_a_frame_ends():
    scene = cv2.resize(draw_scene(0, darkest=100), None, fx=3, fy=3)  # shrinking by 2.8 reaches over several pixels
    frames = [scene[y : y + 3 * HEIGHT, x : x + 3 * WIDTH] for y, x in ((20, 50), (60, 40), (0, 0))]
    clip = stabilize_clip(iter(frames))
    darker = (clip.frames[:1].astype(float) - clip.frames).mean((2, 3))  # of each row: nothing moves, nothing changes
    assert len(clip.frames) == 3 and np.abs(darker).max() < 1.5


def test_the_same_frames_give_the_same_clip():
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.integers(0, 256, (260, 340, 3), dtype=np.uint8), (0, 0), 1.2)
    noise = cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX)
    turned = cv2.warpAffine(noise, cv2.getRotationMatrix2D((150, 120), 5, 0.95), (320, 240))
    frames = [noise[:240, :320], turned]  # of so many features that FLANN's random trees miss some matches
    frames = [np.clip(frame + rng.normal(0, 6, frame.shape), 0, 255).astype(np.uint8) for frame in frames]
    first, second = (stabilize_clip(iter(frames)) for _ in range(2))
    assert len(first.H) == 2
    np.testing.assert_array_equal(first.H, second.H)


def test_a_clip_has_at_most_34_frames_and_the_next_goes_on_from_there():
    frames = iter(shaken(40))
    assert len(stabilize_clip(frames).frames) == 34
    rest = stabilize_clip(frames)
    assert (rest.read, len(rest.frames), rest.failure) == (6, 6, "too short")
    assert stabilize_clip(frames) is None


def test_a_frame_that_shows_nothing_of_the_first_ends_the_clip_without_failure():
    step = 8  # pixels a frame, to the right along a scene that is wide enough
    scene = np.concatenate([draw_scene(seed) for seed in (6, 7)], axis=1)
    clip = stabilize_clip(scene[:HEIGHT, step * t : step * t + WIDTH] for t in range(34))
    last = (WIDTH + HEIGHT) / 2 / step  # frames until the centre square, too, is left behind
    assert clip.failure is None and abs(len(clip.frames) - last) <= 1 and clip.read == len(clip.frames) + 1
    np.testing.assert_allclose(clip.H[-1][:2, 2], (step * (len(clip.frames) - 1), 0), atol=1)


def test_a_reprojection_limit_drops_what_moves_in_pieces():
    frames = shaken(17)
    assert stabilize_clip(iter(frames), max_error=1.0).failure is None
    halves = frames[:1].repeat(17, axis=0)
    for t, frame in enumerate(halves):  # the upper half slides over the lower one: no homography fits both
        frame[: HEIGHT // 2] = np.roll(frame[: HEIGHT // 2], 7 * t, axis=1)
    assert stabilize_clip(iter(halves)).failure is None
    assert stabilize_clip(iter(halves), max_error=0.01).failure == "large reprojection error"


@pytest.mark.parametrize("reason", ["no features", "too few matches", "no homography"])
def test_a_clip_whose_frames_do_not_match_fails(reason, monkeypatch):
    frames = shaken(20)
    if reason == "no features":
        frames[17] = 90
    elif reason == "too few matches":
        frames[17] = shaken(18, seed=9)[17]
    else:
        monkeypatch.setattr(cv2, "findHomography", lambda *_: (None, None))
    clip = stabilize_clip(iter(frames))
    assert clip.failure == reason and clip.read == (2 if reason == "no homography" else 18)


@pytest.mark.parametrize("height, width", [(103, 161), (161, 103), (128, 128), (90, 90), (300, 131)])
def test_the_centre_square_of_any_frame_has_128_pixels(height, width):
    frame = np.zeros((height, width, 3), np.uint8)
    frame[height // 2 - 8 : height // 2 + 8, width // 2 - 8 : width // 2 + 8] = 255
    small = shrink(frame)
    rows, columns, _ = np.nonzero(small > 127)
    assert small.shape == (128, 128, 3) and abs(rows.mean() - 63.5) <= 1.5 and abs(columns.mean() - 63.5) <= 1.5


# ----------------------------------------------------------------------------------------------------- whole runs


def test_strips_their_list_and_what_was_dropped_for_which_reason(done, printed):
    lines = (done / "list.txt").read_text().splitlines()
    assert lines == ["b/cut/0000.jpg", "clip2/0000.jpg", "clip2/0001.jpg", "clip10/0000.jpg"]
    for line in lines:
        with Image.open(done / line) as strip:
            assert strip.format == "JPEG" and strip.width == 128 and strip.height % 128 == 0
            assert 16 <= strip.height // 128 <= 34
    assert set(done.rglob("*.jpg")) == {done / line for line in lines} == {*data.list_strips(done / "list.txt", done)}
    flat, short = record_of(done / "b/flat"), record_of(done / "short")
    assert flat["kept"] == short["kept"] == [] and {clip["reason"] for clip in flat["dropped"]} == {"no features"}
    assert short["dropped"] == [{"first": 2, "frames": 6, "reason": "too short"}]
    assert "kept 4 clips of 5 videos" in printed[0]
    assert "dropped 11 clips: no features 9, too few matches 1, too short 1" in printed[0]


def test_clips_do_not_overlap_and_skip_the_first_frames(done, videos):
    first, second = record_of(done / "clip2")["kept"]
    assert (first["first"], first["frames"]) == (2, 34) and (second["first"], second["frames"]) == (36, 16)
    frames = list(data.stream_frames(videos / "clip2.mp4"))
    for clip in (first, second):  # a strip begins with the frame that its record says
        strip = data.read_strip(done / "clip2" / clip["strip"], 1, 128)[0].astype(float)
        assert np.abs(strip - shrink(frames[clip["first"]])).mean() < 6


def test_a_cut_drops_the_clip_and_the_next_starts_after_it(done):
    record = record_of(done / "b/cut")
    assert record["dropped"] == [{"first": 2, "frames": 10, "reason": "too few matches"}]
    [kept] = record["kept"]
    assert (kept["first"], kept["frames"]) == (13, 17)  # frame 12, the first after the cut, was read to find it
    scenes = [shrink(shaken(2, seed=seed)[0]) for seed in (3, 4)]
    for frame in data.read_strip(done / "b/cut/0000.jpg", 17, 128):
        before, after = (np.corrcoef(cv2.blur(frame, (15, 15)).ravel(), cv2.blur(scene, (15, 15)).ravel())[0, 1]
                         for scene in scenes)
        assert after > 0.5 > before


@pytest.mark.parametrize("lost", ["nothing", "done.json", "0000.jpg", "half a record"])
def test_only_an_unfinished_video_is_done_again_with_the_same_bytes(done, videos, printed, tmp_path, lost):
    output = shutil.copytree(done, tmp_path / "again")
    (output / "list.txt").unlink()
    if lost == "half a record":
        (output / "clip10/done.json").write_bytes((done / "clip10/done.json").read_bytes()[:50])
    elif lost != "nothing":
        (output / "clip10" / lost).unlink()
        (output / "clip10/0007.jpg").write_bytes(b"of an interrupted run")
    before = times(output)
    assert succeeds(stabilize, *flags(videos, output)) == printed[0].replace(str(done), str(output))
    changed = {path.parent.name for path, when in times(output).items() if when != before.get(path)}
    assert contents(output) == contents(done) and changed == (set() if lost == "nothing" else {"clip10"})


def test_two_workers_that_ctrl_c_stops_do_nothing_twice_and_write_the_bytes_of_one(done, some, tmp_path):
    """Ctrl-C reaches all processes of a terminal: one line, exit code 130."""
    videos, output = some("clip10.mp4", "clip2.mp4", "b/cut.mp4"), tmp_path / "out"

    def interrupt():
        while not list(output.rglob("done.json")) and not ended.is_set():
            time.sleep(0.01)
        for process in (*multiprocessing.active_children(), multiprocessing.current_process()):
            os.kill(process.pid, signal.SIGINT)

    ended, thread = threading.Event(), threading.Thread(target=interrupt)
    thread.start()
    stopped = call(stabilize, *flags(videos, output, "-workers 2"))
    ended.set()
    thread.join()
    assert stopped.code == 130 and stopped.err.count("\n") == 1 and "of 3 videos are done" in stopped.err
    before = times(output)
    succeeds(stabilize, *flags(videos, output, "-workers 2"))
    finished = [path.parent for path in before if path.name == "done.json"]
    after = times(output)
    assert finished and all(after[path] == before[path] for path in before if path.parent in finished)
    assert (output / "list.txt").read_text().split() == [f"{each}.jpg" for each in (
        "clip2/0000", "clip2/0001", "clip10/0000", "cut/0000")]
    for name in ("clip2", "clip10", "cut"):
        strips = [{k: v for k, v in contents(folder).items() if k.suffix == ".jpg"}
                  for folder in (output / name, done / ("b/cut" if name == "cut" else name))]
        assert strips[0] == strips[1]


def test_other_settings_are_refused_unless_overwritten(done, some, tmp_path):
    videos, output = some("clip2.mp4"), tmp_path / "again"
    shutil.copytree(done / "clip2", output / "clip2")
    (output / "clip2/notes.jpg").write_bytes(b"of the user")
    before = contents(output)
    assert_refused(call(stabilize, *flags(videos, output, "-max_clips 1")), "max_clips was 100, now 1", "-overwrite")
    assert contents(output) == before
    succeeds(stabilize, *flags(videos, output, "-max_clips 1 -overwrite"))
    assert (output / "list.txt").read_text().split() == ["clip2/0000.jpg"]
    assert not (output / "clip2/0001.jpg").exists() and (output / "clip2/notes.jpg").exists()
    assert (output / "clip2/0000.jpg").read_bytes() == (done / "clip2/0000.jpg").read_bytes()


def test_unreadable_videos_are_named_and_the_run_goes_on(done, some, videos, tmp_path):
    folder, output = some("clip10.mp4"), tmp_path / "out"
    (folder / "broken.mp4").write_text("no video")
    for _ in range(2):  # it is tried again, and named again
        out = succeeds(stabilize, *flags(folder, output))
        assert "kept 1 clips of 2 videos" in out and "unreadable videos: 1\n" in out and "broken.mp4" in out
    assert (output / "clip10/0000.jpg").read_bytes() == (done / "clip10/0000.jpg").read_bytes()
    shutil.copy(videos / "clip10.mp4", folder / "broken.mp4")
    assert succeeds(stabilize, *flags(folder, output)).startswith("kept 2 clips")


def test_a_video_that_breaks_off_keeps_its_whole_clips(videos, tmp_path, monkeypatch):
    whole = list(data.stream_frames(videos / "clip2.mp4"))

    def broken(path, start, step, record):
        yield from whole[start:50:step]
        raise data.InputError(f"cannot read '{path}' after 50 frames")

    monkeypatch.setattr(data, "stream_frames", broken)
    settings = {"max_clips": 100, "max_error": None, "start_frame": 2, "frame_step": 1}
    record = stabilize_video(tmp_path, "x.mp4", tmp_path, settings)
    assert [clip["frames"] for clip in record["kept"]] == [34] and "after 50 frames" in record["unreadable"]


def test_nothing_kept_fails_and_bad_input_ends_in_one_line(some, tmp_path):
    done = call(stabilize, *flags(some("short.mp4"), tmp_path / "out"))
    assert done.code == 1 and "dropped 1 clips: too short 1" in done.out
    assert "no clip was kept" in done.err and done.err.count("\n") == 1
    (tmp_path / "text").mkdir()
    (tmp_path / "text/words.txt").write_text("no video")
    for folder, words in ((tmp_path / "nowhere", "is not a folder"), (tmp_path / "text", "no video in")):
        assert_refused(call(stabilize, *flags(folder, tmp_path / "new")), words, str(folder))
        assert not (tmp_path / "new").exists()


def test_folders_of_strips_never_collide(tmp_path):
    for name in "a.mp4 a.avi A2.mov b/a.mp4 c.mp4.mov c.mp4 .hidden.mp4 x10.mp4 x9.mp4 text.txt".split():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = {str(name): str(folder) for name, folder in find_videos(tmp_path).items()}
    assert found == {"a.avi": "a.avi", "a.mp4": "a.mp4", "A2.mov": "A2", "b/a.mp4": "b/a", "c.mp4": "c",
                     "c.mp4.mov": "c.mp4.mov", "x9.mp4": "x9", "x10.mp4": "x10"}
    assert list(found)[-2:] == ["x9.mp4", "x10.mp4"]
