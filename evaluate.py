"""Numbers and pictures: synthesised videos judged by the clip they were learned from, recovered ones by the truth.

    python evaluate.py -observed CLIP -synthesized CLIP_OR_FOLDER ...     a table, evaluation.json, .csv and .png
    python evaluate.py -truth CLIP -mask MASK -recovered CLIP             a table, recovery.json and .csv

A table is judged as a whole, for no single column says "good": shuffled frames pass all but the frame difference and
what follows time, a shifted copy of the clip passes all but the nearest frame, and blur wins every PSNR. Two references
stand in each table of textures: later frames of the same clip, which is what a perfect model would score, and a linear
dynamical system, the classical method to beat.
"""

import sys
from pathlib import Path

import torch

from data import InputError, examined, list_clips, read, read_recorded_mask
from fast.device import available_memory
from judge.lds import LDS_DRAWS
from judge.pictures import draw_texture_report
from judge.tables import COLUMNS, recovery_report, save_report, texture_report
from run.flags import ArgumentParser, add_flag, image_size, non_negative_int, positive_int, run_program
from run.inputs import check_memory, first_frame, inputs_of
from utils import printable


def build_parser():
    meanings = [f"  {key:<17} {meaning}" for key, (_, _, meaning) in COLUMNS.items()]
    parser = ArgumentParser(
        prog="evaluate.py",
        description="Judge synthesised videos by the clip they were learned from, or a recovered video by the truth. A "
        "clip is a\nvideo file or a folder of images; a folder of clips stands for all of them, so after a run of "
        "main.py:\n\n"
        "  evaluate.py -observed trainingVideo/fire_pot -synthesized output/fire_pot/synthesized_sequence -stride 3",
        epilog="columns (grey levels 0-255 unless they say otherwise; evaluation.csv and .json use these names):\n"
        + "\n".join(meanings)
        + "\n\nNo column alone says 'good': judge the table as a whole. Flags take one dash or two, in full.",
    )
    add = add_flag
    group = parser.add_argument_group("synthesised videos")
    add(group, "observed", None, "the clip they were learned from", metavar="CLIP")
    add(group, "synthesized", None, "the videos to judge", nargs="+", metavar="CLIP")
    add(group, "lds", 50, "components of the linear dynamical system they are compared with, 0: none",
        type=non_negative_int)
    add(group, "stride", None, "layer 1's stride in time (3 for FC_S_large): adds the imprint's column",
        type=positive_int)
    group = parser.add_argument_group("a recovered video")
    add(group, "truth", None, "the clip as it was before pixels were hidden", metavar="CLIP")
    add(group, "mask", None, "what was hidden: .mat, .npy, video or folder of images (white = hidden)")
    add(group, "recovered", None, "the video to judge, as images: lossy video changes visible pixels", metavar="CLIP")
    group = parser.add_argument_group("both")
    add(group, "num_frames", None, "first frames of each clip that are used (default 70; the recovered video's)",
        type=positive_int)
    add(group, "start_frame", 0, "frames, or seconds as 3.5s, of the clip (-observed, -truth, -mask) that the videos "
        "began after", type=first_frame)
    add(group, "frame_step", 1, "every how many frames of the clip one was used", type=positive_int)
    add(group, "im_size", None, "side, or height x width, to compare at (default 100; the recovered video's)",
        type=image_size)
    add(group, "out", "./evaluation", "folder for the results", metavar="FOLDER")
    return parser


def parse(argv=None):
    """The settings: those of one task, all it needs and none of the other's."""
    parser = build_parser()
    args = parser.parse_args(argv)
    textures, recovery = (args.observed, args.synthesized), (args.truth, args.mask, args.recovered)
    if all(textures) == all(recovery) or (any(textures) and any(recovery)):
        parser.error("give either -observed and -synthesized, or -truth, -mask and -recovered")
    return args


def find_clips(paths):
    """Every clip of files and folders by its name, or by its path where names repeat: {name: path}."""
    found = []
    for path in map(Path, paths):
        if not path.exists():
            raise InputError(f"'{path}' does not exist")
        found += list_clips(path) if path.is_dir() else [path]
    found = list(dict.fromkeys(found))
    repeated = len({path.name for path in found}) < len(found)
    return {printable(path if repeated else path.name): path for path in found}


def one_clip(path):
    """The only clip that a file or folder holds."""
    clips = find_clips([path])
    if len(clips) > 1:
        raise InputError(f"'{path}' holds {len(clips)} clips, name one of them: {', '.join(clips)}")
    return next(iter(clips.values()))


def read_observed(path, num_frames, im_size, start, step):
    """The frames of a clip that were learned from, as many later ones, or None if it is too short for them, and its
    Record."""
    try:
        video, record = examined(*read(path, 2 * num_frames, im_size, start=start, step=step))
    except InputError:
        video, record = examined(*read(path, num_frames, im_size, start=start, step=step))
    return video[:num_frames], video[num_frames:] if len(video) > num_frames else None, record


def make_folder(path):
    """Make the folder for the results, or InputError."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"-out '{path}' cannot be a folder: {error.strerror}") from None


def evaluate_textures(args):
    """Print, write and draw the table of synthesised videos."""
    num_frames, im_size = args.num_frames or 70, args.im_size or (100, 100)
    clips = find_clips(args.synthesized)
    judged = len(clips) + 2 + LDS_DRAWS * (args.lds > 0)  # videos in floating point, and spectra of some at a time
    check_memory(12 * (judged + 12) * num_frames * im_size[0] * im_size[1], available_memory(torch.device("cpu")),
                 "use a smaller -im_size or -num_frames, or fewer videos")
    observed, later, record = read_observed(one_clip(args.observed), num_frames, im_size, args.start_frame,
                                            args.frame_step)
    found = {name: examined(*read(path, num_frames, im_size)) for name, path in clips.items()}
    videos = {name: video for name, (video, _) in found.items()}
    make_folder(args.out)
    print(record)
    rows, portraits = texture_report(videos, observed, later, args.lds, args.stride)
    inputs = inputs_of([record, *(each for _, each in found.values())])
    save_report(args.out, "evaluation", rows, {**vars(args), "num_frames": num_frames, "im_size": im_size,
                                               "inputs": inputs.lines, "fingerprints": inputs.fingerprints})
    if later is None:
        print(f"no later frames: the observed clip has fewer than {2 * num_frames}")
    print("Judge the table as a whole: no column alone says 'good' (-h explains them).")
    draw_texture_report(f"{args.out}/evaluation.png", portraits, args.stride)
    print(f"evaluation.png, .csv and .json are in '{args.out}'")


def evaluate_recovery(args):
    """Print and write the table of a recovered video."""
    recovered, record = examined(*read(one_clip(args.recovered), args.num_frames, args.im_size))
    size, part = recovered.shape[1:3], {"start": args.start_frame, "step": args.frame_step}
    truth, whole = examined(*read(one_clip(args.truth), len(recovered), size, **part))
    mask, hidden = read_recorded_mask(args.mask, len(recovered), size, whole.first, args.frame_step)
    make_folder(args.out)
    print(whole, hidden, sep="\n")
    rows, inputs = recovery_report(truth, {"recovered": recovered}, mask), inputs_of([record, whole], masks=[hidden])
    save_report(args.out, "recovery", rows, {**vars(args), "num_frames": len(recovered), "im_size": size,
                                             "inputs": inputs.lines, "fingerprints": inputs.fingerprints})
    if rows[0]["visible_error"] > 0:
        print("Visible pixels have changed: by lossy video, another size, or a fault.")
    print(f"recovery.csv and .json are in '{args.out}'")


def main(argv=None):
    args = parse(argv)
    evaluate = evaluate_textures if args.observed else evaluate_recovery
    return run_program(lambda: evaluate(args), InputError)


if __name__ == "__main__":
    sys.exit(main())
