"""Stabilise videos and cut them into the strips that VideoGAN learns from: the camera's motion goes, the scene's stays.

Vondrick, Pirsiavash, Torralba, "Generating Videos with Scene Dynamics", NIPS 2016, preparation of the data. Each frame
is matched to the one before by SIFT features and a homography, and all are warped to their clip's first frame.
`stabilize_clip` is that algorithm; the rest is files and processes.

Differs from the released code: it runs on today's OpenCV, in processes of its own; a homography that cannot be found
drops the clip instead of the program; sides are rounded, not truncated; frames shrink with antialiasing, for which a
warped frame goes on beyond its edges, so that no black seeps in; -max_clips counts the clips that are kept; and clips
can be dropped for their reprojection error, as the paper has it, with -max_error.
"""

import collections
import contextlib
import itertools
import json
import multiprocessing
import os
import re
import signal
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

import data
import utils
from run.flags import ArgumentParser, RunError, add_flag, non_negative_int, positive_float, positive_int
from run.inputs import fingerprint_of_file

SIDE = 128  # of the square frames of a strip
MIN_FRAMES, MAX_FRAMES = 16, 34  # of a clip
DEFAULTS = {"start_frame": 2, "frame_step": 1}  # as released
MIN_MATCHES, RATIO, THRESHOLD = 10, 0.7, 5.0  # matches, Lowe's ratio of distances, RANSAC's distance in pixels
QUALITY = 95  # of the JPEGs


def build_parser():
    parser = ArgumentParser(
        prog="stabilize.py",
        description="Stabilise the videos of a folder and cut them into strips for main_videogan.py.",
        epilog="Flags take one dash or two, in full. The same command again goes on with an unfinished run.",
    )
    add = add_flag
    add(parser, "videos", help="folder of videos, also in its subfolders", required=True)
    add(parser, "output", help="folder of the strips and of list.txt, which names them", required=True)
    add(parser, "max_clips", 100, "clips kept of each video, at most", type=positive_int)
    add(parser, "max_error", None, "drop a clip if half of a frame's matches are off by more than this, in pixels of "
        "the video (default off)", type=positive_float)
    add(parser, "start_frame", DEFAULTS["start_frame"], "frames left out at the start of each video",
        type=non_negative_int)
    add(parser, "frame_step", DEFAULTS["frame_step"], "every how many frames one is used", type=positive_int)
    add(parser, "workers", os.cpu_count(), "processes", type=positive_int)
    add(parser, "overwrite", help="delete the earlier strips of these videos first", action="store_true")
    return parser


# ------------------------------------------------------------------------------------------------------- one clip


class Clip(NamedTuple):
    """A stabilised clip.

    frames: uint8 (T, 128, 128, 3). H: float64 (T, 3, 3), the homographies from each frame to the clip's first one, in
    pixels (x, y, 1) of the video. read: how many frames of the video it took. failure: why it is dropped, or None.
    """

    frames: np.ndarray
    H: np.ndarray
    read: int
    failure: str | None


def stabilize_clip(frames, max_error=None):
    """Stabilise the next clip of an iterator of frames, uint8 (H, W, 3): a Clip, or None if no frame is left. It ends
    after 34 frames, at the last one, where a frame shows nothing of the first, or where matching fails.

    max_error: pixels of the video that the median match may be off by, None: any number.
    """
    cv2.setRNGSeed(0)  # FLANN's trees are random
    reference = next(frames, None)
    if reference is None:
        return None
    height, width = reference.shape[:2]
    full = np.full((height, width), 255, np.uint8)
    canvas = shrink(reference).astype(np.float32)
    output, H, read, failure = [canvas], [np.eye(3)], 1, None
    previous = features(reference)
    for frame in itertools.islice(frames, MAX_FRAMES - 1):
        read += 1
        current = features(frame)
        M, failure = register(current, previous, max_error)
        if failure:
            break
        to_reference = H[-1] @ M
        mask = cv2.erode(cv2.warpPerspective(full, to_reference, (width, height)), np.ones((5, 5), np.uint8))
        alpha = shrink(mask)[..., None] / np.float32(255)
        if not alpha.any():
            break
        warped = cv2.warpPerspective(frame, to_reference, (width, height), borderMode=cv2.BORDER_REPLICATE)
        canvas = canvas * (1 - alpha) + shrink(warped) * alpha  # holes keep what the frame before had there
        output.append(canvas)
        H.append(to_reference)
        previous = current
    if not failure and len(output) < MIN_FRAMES:
        failure = "too short"
    return Clip(np.stack(output).round().astype(np.uint8), np.stack(H), read, failure)


def shrink(picture):
    """The centre square of a picture, uint8 (H, W) or (H, W, 3), its shorter side at 128 pixels: (128, 128, ...)."""
    shorter = min(picture.shape[:2])
    height, width = (round(side * SIDE / shorter) for side in picture.shape[:2])
    top, left = (height - SIDE) // 2, (width - SIDE) // 2
    return data.resize_frame(picture, height, width)[top : top + SIDE, left : left + SIDE]


def features(frame):
    """SIFT features of a frame, uint8 (H, W, 3): points float32 (K, 2), in pixels (x, y), and descriptors (K, 128), or
    None if there are none."""
    keypoints, descriptors = cv2.SIFT_create().detectAndCompute(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), None)
    return cv2.KeyPoint_convert(keypoints), descriptors


def register(current, previous, max_error=None):
    """The homography, float64 (3, 3), from a frame to the one before, given the features of both, and None; or None and
    why there is none. max_error as in `stabilize_clip`."""
    (points, descriptors), (points_before, descriptors_before) = current, previous
    if descriptors is None or descriptors_before is None or min(len(points), len(points_before)) < 2:
        return None, "no features"
    kd_tree = 1
    matcher = cv2.FlannBasedMatcher({"algorithm": kd_tree, "trees": 5}, {"checks": 50})
    pairs = [pair for pair in matcher.knnMatch(descriptors, descriptors_before, k=2) if len(pair) == 2]
    good = [best for best, second in pairs if best.distance < RATIO * second.distance]
    if len(good) < MIN_MATCHES:
        return None, "too few matches"
    source = points[[match.queryIdx for match in good]]  # (K, 2)
    target = points_before[[match.trainIdx for match in good]]
    M, _ = cv2.findHomography(source, target, cv2.RANSAC, THRESHOLD)
    if M is None:
        return None, "no homography"
    off = np.linalg.norm(cv2.perspectiveTransform(source[:, None], M)[:, 0] - target, axis=1)
    if max_error and not np.median(off) <= max_error:
        return None, "large reprojection error"
    return M, None


# ------------------------------------------------------------------------------------------------------ one video


def stabilize_video(path, name, folder, settings):
    """Write the strips of a video and, last of all, its record, done.json, which is returned: the video's name, the
    settings, the clips that were kept and dropped, and what made it unreadable, or None.

    Clips do not overlap: each starts at the first frame that the one before has not read.
    """
    clear(folder)
    found, start, step = data.Record(name), settings["start_frame"], settings["frame_step"]
    frames = unless_stopped(data.stream_frames(path, start, step, found))
    record = {"video": name, "settings": settings, "kept": [], "dropped": [], "unreadable": None}
    first = start
    try:
        while len(record["kept"]) < settings["max_clips"] and (clip := stabilize_clip(frames, settings["max_error"])):
            entry = {"first": first, "frames": len(clip.frames)}
            if clip.failure:
                record["dropped"].append({**entry, "reason": clip.failure})
            else:
                record["kept"].append({"strip": f"{len(record['kept']):04d}.jpg", **entry})
                strip = Image.fromarray(clip.frames.reshape(-1, SIDE, 3))  # (T * 128, 128, 3): one below the other
                utils.write_atomically(folder / record["kept"][-1]["strip"],
                                       lambda file, strip=strip: strip.save(file, "JPEG", quality=QUALITY))
            first += step * clip.read
        if first == start:  # there was not even one frame
            record["dropped"].append({"first": first, "frames": 0, "reason": "too short"})
    except data.InputError as error:  # what was kept until there is good
        record["unreadable"] = str(error)
    record |= {"found": found.notes, "sha256": fingerprint_of_file(path)}
    utils.write_atomically(folder / "done.json", json.dumps(record, indent=1).encode())
    return record


def clear(folder):
    """Delete the record and the strips of a video, and nothing else that is in their folder."""
    (folder / "done.json").unlink(missing_ok=True)
    for path in folder.glob("*.jpg"):
        if re.fullmatch(r"\d{4,}", path.stem):
            path.unlink()


def earlier_record(path, name, folder, settings):
    """The record of a video that is finished, or None; InputError if it was made with other settings, or of another
    video of the name."""
    try:
        record = json.loads((folder / "done.json").read_text())
        before, ours = DEFAULTS | record["settings"], record["video"] == name
        whole = not record["unreadable"] and all((folder / clip["strip"]).is_file() for clip in record["kept"])
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None
    if before != settings:
        were = ", ".join(f"{key} was {before.get(key)}, now {settings[key]}"
                         for key in settings if before.get(key) != settings[key])
        raise data.InputError(f"'{folder}' has strips of other settings ({were}): choose another -output, or "
                              "-overwrite to delete what these videos gave earlier")
    if ours and whole and record.get("sha256") not in (None, fingerprint_of_file(path)):
        raise data.InputError(f"'{path}' is not the video that the strips in '{folder}' were made of: choose another "
                              "-output, or -overwrite to delete what these videos gave earlier")
    return record if ours and whole else None


# ----------------------------------------------------------------------------------------------------- all videos


def find_videos(root):
    """The videos in a folder and its subfolders, in natural order, each with the folder its strips go to, both relative
    paths: its name without the suffix or, where another video would have the same, with it."""
    if not root.is_dir():
        raise data.InputError(f"videos '{root}' is not a folder")
    names = [path.relative_to(root) for path in root.rglob("*") if data.is_video(path)]
    names = [name for name in names if not any(part.startswith(".") for part in name.parts)]
    if not names:
        raise data.InputError(f"no video in '{root}': it needs video files ({' '.join(data.VIDEO_SUFFIXES)})")
    names.sort(key=lambda name: ([data.natural_key(part) for part in name.parts], str(name)))
    taken = collections.Counter(str(path).lower() for name in names for path in (name, name.with_suffix("")))
    return {name: name if taken[str(name.with_suffix("")).lower()] > 1 else name.with_suffix("") for name in names}


stop_asked = None  # in a worker process: the event that tells it to stop


def begin_worker(stop):
    """Make this a worker process, which leaves Ctrl-C to the program and ends when that sets `stop`, or is killed."""
    global stop_asked
    stop_asked = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=lambda: multiprocessing.parent_process().join() or os._exit(1), daemon=True).start()
    cv2.setNumThreads(1)


def unless_stopped(frames):
    for frame in frames:
        if stop_asked and stop_asked.is_set():
            raise KeyboardInterrupt
        yield frame


def stabilize_all(jobs, workers):
    """Yield the records of stabilize_video(*job) as they get done, in this process or in several."""
    if min(workers, len(jobs)) < 2:
        cv2.setNumThreads(1)
        yield from itertools.starmap(stabilize_video, jobs)
        return
    spawn = multiprocessing.get_context("spawn")
    stop = spawn.Event()
    pool = ProcessPoolExecutor(min(workers, len(jobs)), spawn, begin_worker, (stop,))
    try:
        with interrupts_wait():
            futures = [pool.submit(stabilize_video, *job) for job in jobs]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool:
        raise RunError("a worker process died, maybe for lack of memory: use fewer -workers; the same command "
                             "goes on from there") from None
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def interrupts_wait():
    """Ctrl-C waits until the block has ended; processes that start in it do not get it at all (on Windows they do)."""
    change = getattr(signal, "pthread_sigmask", lambda how, signals: None)
    change(getattr(signal, "SIG_BLOCK", 0), {signal.SIGINT})
    try:
        yield
    finally:
        change(getattr(signal, "SIG_UNBLOCK", 1), {signal.SIGINT})


def stabilize(args):
    """Stabilise every video of args.videos that is not finished, then write list.txt and say what became of all."""
    root, output = Path(args.videos), Path(args.output)
    settings = {name: vars(args)[name] for name in ("max_clips", "max_error", *DEFAULTS)}
    folders = find_videos(root)
    if args.overwrite:
        (output / "list.txt").unlink(missing_ok=True)
        for folder in folders.values():
            clear(output / folder)
    records = {name: earlier_record(root / name, name.as_posix(), output / folder, settings)
               for name, folder in folders.items()}
    jobs = [(root / name, name.as_posix(), output / folders[name], settings)
            for name, record in records.items() if record is None]
    bar = tqdm(total=len(folders), initial=len(folders) - len(jobs), unit="video", disable=None)
    with bar, contextlib.closing(stabilize_all(jobs, args.workers)) as done:
        try:
            for record in done:
                records[Path(record["video"])] = record
                bar.update()
        except KeyboardInterrupt:
            finished = sum(record is not None for record in records.values())
            raise KeyboardInterrupt(f"interrupted: {finished} of {len(folders)} videos are done; the same command goes "
                                    "on from there") from None
    lines = [f"{(folders[name] / clip['strip']).as_posix()}\n" for name in folders for clip in records[name]["kept"]]
    utils.write_atomically(output / "list.txt", "".join(lines).encode())
    report(records.values(), output)


def report(records, output):
    """Print what became of all clips; RunError if none was kept."""
    kept = sum(len(record["kept"]) for record in records)
    dropped = collections.Counter(clip["reason"] for record in records for clip in record["dropped"])
    unreadable = [record["unreadable"] for record in records if record["unreadable"]]
    print(f"kept {kept} clips of {len(records)} videos, which '{output / 'list.txt'}' names")
    if dropped:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(dropped.items()))
        print(f"dropped {dropped.total()} clips: {reasons}")
    if unreadable:
        print(f"unreadable videos: {len(unreadable)}", *unreadable, sep="\n  ")
    if not kept:
        raise RunError("no clip was kept: the lines above say why")
