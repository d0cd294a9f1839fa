"""Judge the videos of a run by the clips that it learned from."""

import numpy as np

import data
from judge.pictures import draw_texture_report
from judge.tables import save_report, set_report, texture_report


def judge_by_clips(folder, videos, settings, stride):
    """Print the table of texture_report, or of set_report for several clips, and write it and its picture to `folder`.

    videos: uint8 (T, H, W, 3) by name, all of one shape; settings: of the run, plain types, whose data_path and
    category name the clips; stride: layer 1's in time. Later frames of one clip are judged, too, if it has them.
    """
    frames, *size, _ = next(iter(videos.values())).shape
    stride = stride if stride < frames - 1 else None
    try:
        paths = data.list_clips(data.category_folder(settings["data_path"], settings["category"]))
        part = {"start": settings.get("start_frame", 0), "step": settings.get("frame_step", 1)}
        if len(paths) > 1:
            clips = np.stack([data.read(path, frames, tuple(size), **part)[0] for path in paths])
            rows, portraits = set_report(videos, clips, stride)
        else:
            clip, _ = data.read(paths[0], None, tuple(size), at_most=2 * frames, **part)
            later = clip[frames:] if len(clip) == 2 * frames else None
            rows, portraits = texture_report(videos, clip[:frames], later, stride=stride)
        draw_texture_report(folder / "evaluation.png", portraits, stride)
        save_report(folder, "evaluation", rows, settings)
    except data.InputError as error:  # a clip that does not move, say
        print(f"not judged: {error}")
