"""What main.py learns from."""

import numpy as np

from data import InputError, category_folder, list_clips, load_clips
from run.inputs import inputs_of
from stg.outputs import check_fits, header


def read(args, outline):
    """What a run learns from: the clips and which of their pixels are hidden, as `load_clips`; the Inputs; and lines
    that tell of it all. outline: the net, without memory."""
    clips = len(list_clips(category_folder(args.data_path, args.category)))
    check_fits(args, outline, clips)
    videos, hidden, *records = load_clips(args.data_path, args.category, args.num_frames, args.im_size, args.mask_type,
                                          args.mask_file, args.seed, args.start_frame, args.frame_step)
    if args.reference == "field" and not move(videos, hidden):
        raise InputError(f"the clips of '{args.category}' do not move, and -reference field needs motion: use white")
    inputs = inputs_of(records[0], args.fps, records[1])
    return videos, hidden, inputs, "\n".join([header(args, outline, clips), *inputs.lines])


def move(videos, hidden):
    """Whether anything visible moves in clips uint8 (N, T, H, W, 3); hidden: bool (N, T, H, W), or None."""
    shown = True if hidden is None else ~hidden[..., None]
    return (np.max(videos, 1, initial=0, where=shown) > np.min(videos, 1, initial=255, where=shown)).any()
