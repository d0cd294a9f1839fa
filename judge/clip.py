"""Judge the videos of a run by the clip that it learned from."""

import data
from judge.pictures import draw_texture_report
from judge.tables import save_report, texture_report


def judge_against_clip(folder, videos, settings, stride):
    """Print the table of texture_report and write it, and its picture, to `folder`.

    videos: uint8 (T, H, W, 3) by name, all of one shape; settings: of the run, plain types, whose data_path and
    category name the clip; stride: layer 1's in time. Later frames of the clip are judged, too, if it has them.
    """
    frames, *size, _ = next(iter(videos.values())).shape
    try:
        clips = data.list_clips(data.category_folder(settings["data_path"], settings["category"]))
        if len(clips) > 1:
            raise data.InputError(f"'{settings['category']}' has {len(clips)} clips, not one to compare with")
        start, step = settings.get("start_frame", 0), settings.get("frame_step", 1)
        clip, _ = data.read(clips[0], None, tuple(size), at_most=2 * frames, start=start, step=step)
        later = clip[frames:] if len(clip) == 2 * frames else None
        stride = stride if stride < frames - 1 else None
        rows, portraits = texture_report(videos, clip[:frames], later, stride=stride)
        draw_texture_report(folder / "evaluation.png", portraits, stride)
        save_report(folder, "evaluation", rows, settings)
    except data.InputError as error:  # a clip that does not move, say
        print(f"not judged: {error}")
