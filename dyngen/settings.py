"""The flags of the dynamic generator, and their defaults for each task."""

import argparse

import data
from dyngen.nets import ENCODED_SIZE, IMAGE_SIZES
from run.flags import (
    ArgumentParser,
    add_flag,
    add_run_flags,
    boolean,
    image_size,
    non_negative_int,
    positive_float,
    positive_int,
    share,
)
from run.inputs import add_part_flags

TASKS = ("scene", "motion", "recovery", "inpainting")
PRESETS = {  # defaults: one value for all tasks or, in the order above, one for each (as released)
    "category": ("fire", "runner", "ocean", "boat"),
    "output_dir": ("./output_synthesis", "./output_synthesis", "./output_recovery", "./output_background_inpainting"),
    "im_size": (64, 64, 150, 128),
    "num_frames": (60, 30, 70, 150),
    "truncated_backprop_length": (30, 30, 70, 150),
    "batch_size": (1, 30, 1, 1),
    "state_size": (100, 3, 100, 100),
    "z_size": 100,
    "content_size": (0, 100, 0, 0),
    "motion_type_size": 0,
    "dynamic_mode": "nonlinear",
    "mask_type": ("none", "none", "region", "external"),
    "mask_file": (None, None, None, "mask128.mat"),
    "refsig": (1.0, 1.0, 0.5, 0.5),
    "step_size": (0.03, 0.03, 0.01, 0.01),  # Differs from upstream: 0.03 throws s_0 out of its prior
    "num_epochs": (3000, 7000, 7000, 7000),
    "num_sections_in_test": (4, 2, 4, 4),
    "num_batches_in_test": 2,
    "init_state": ("inferred", "random", "inferred", "inferred"),
}
# -preset quality: F and G start as a linear dynamical system fitted to the clip, with a state as large as so few frames
# can fill (three quarters of them, at most 100), so that little is left to learn.
QUALITY = {"dynamic_mode": "stationary", "init_state": "random", "sample_steps": 2, "lr": 0.0001, "anneal": 1.0,
           "num_epochs": 30, "readout": "mean"}
ENCODER_PRESET = {"state_size": 80, "z_size": 20, "content_size": 100}
CLIP_LENGTHS = {"chatelet": 104, "boat": 72}  # clips for inpainting that are shorter than the preset
MASK_TYPES = ("none", "external", *data.MASK_TYPES, "missingFrames", "randomRegion")
TESTING = ("test", "isTraining", "replay", "animate", "overwrite", "dry_run")  # no part of a run


def frame_side(text):
    height, width = image_size(text)
    if height != width or height not in IMAGE_SIZES:
        sides = ", ".join(map(str, IMAGE_SIZES))
        raise argparse.ArgumentTypeError(f"no generator makes frames of '{text}'; there are sides of {sides}")
    return height


def mask_name(text):
    return "missing_frames" if text == "missing" else text


def build_parser():
    parser = ArgumentParser(
        prog="main_dyn_G.py",
        description="Learn a dynamic generator from the clips of a category and generate new videos of any length. The "
        f"same command\nagain resumes an unfinished run. 'By task': the defaults for {', '.join(TASKS)}.",
    )

    def add(group, names, default=None, help="", **kwargs):
        preset = PRESETS.get(names.split()[0])
        if isinstance(preset, tuple):
            help += f" (by task: {', '.join(map(str, preset))})"
        elif preset is not None:
            help += f" ({preset})"
        add_flag(group, names, default, help, **kwargs)

    quality = " ".join(f"-{name} {value}" for name, value in QUALITY.items())
    add(parser, "preset", "released", f"defaults: released (below), or quality: {quality}, and a -state_size and "
        "-z_size of three quarters of the frames, at most 100", choices=("released", "quality"))
    group = parser.add_argument_group("task")
    add(group, "task net_type", None, "scene: dynamic textures; motion: many clips of one motion; recovery and "
        "inpainting: hidden pixels (scene, or recovery with -training_mode incomplete)", choices=TASKS)
    add(group, "encoder", help="image to video: learn a net that gives a frame's content and state",
        action="store_true")
    group = parser.add_argument_group("data")
    add(group, "category", None, "folder of clips below data_path")
    add(group, "data_path data_dir", "./trainingVideo", "where categories are")
    add(group, "im_size image_size sz", None, "side of the frames in pixels", type=frame_side)
    add(group, "num_frames", None, "frames of each clip that are used, the first ones if nothing else is said",
        type=positive_int)
    add_part_flags(group)
    group = parser.add_argument_group("hidden pixels (recovery and inpainting)")
    add(group, "training_mode", None, "complete ignores masks, incomplete needs one",
        choices=("complete", "incomplete"))
    add(group, "mask_type", None, "what is hidden: " + ", ".join(MASK_TYPES), choices=MASK_TYPES, type=mask_name)
    add(group, "mask_file", None, "for external: .mat, .npy, video or folder of images (white = hidden)")
    add(group, "mask_path", None, "a mask_file may also be mask_path/category/mask_file (data_path)")
    add(group, "readout", "last", "the recovered clip: the last sample, or the mean of the last 50 or so",
        choices=("last", "mean"))
    group = parser.add_argument_group("model")
    add(group, "state_size", None, "dimensions of the state s", type=positive_int)
    add(group, "z_size", None, "dimensions of the innovation xi", type=positive_int)
    add(group, "content_size", None, "dimensions of a clip's content a", type=non_negative_int)
    add(group, "motion_type_size", None, "dimensions of a clip's motion type m", type=non_negative_int)
    add(group, "dynamic_mode", None, "transition net: nonlinear, linear, or stationary (linear, without tanh; F and G "
        "start as a linear dynamical system fitted to the clip)", choices=("nonlinear", "linear", "stationary"))
    add(group, "frame_generator_mode", None, "64, 128, 150: released name of the generator for this im_size",
        type=frame_side)
    add(group, "refsig", None, "std sigma of the noise on frames, which are in [-1, 1]", type=positive_float)
    add_learning_flags(parser, add)
    return parser


def add_learning_flags(parser, add):
    """Add the flags of inference, learning, new videos, and those of every program; add: `add_flag` that also shows the
    presets."""
    group = parser.add_argument_group("Langevin inference")
    add(group, "likelihood_scale", "sum", "log likelihood: sum over pixels (paper), or the released mean",
        choices=("sum", "mean"))
    add(group, "sample_steps", 15, "Langevin steps per chunk and epoch", type=positive_int)
    add(group, "step_size delta", None, "step size delta; with the mean 0.03 for all", type=positive_float)
    group = parser.add_argument_group("learning")
    add(group, "num_epochs", None, "epochs, one update of the weights per chunk", type=positive_int)
    add(group, "batch_size", None, "clips per mini-batch", type=positive_int)
    add(group, "truncated_backprop_length", None, "frames of a chunk, through which gradients flow back in time",
        type=positive_int)
    add(group, "lr lr_gen", 0.002, "learning rate of Adam", type=positive_float)
    add(group, "anneal", 0.0, "share of the epochs, at the end, over which the rate falls to a tenth", type=share)
    add(group, "beta1 beta1_gen", 0.5, "first-moment decay of Adam", type=float)
    group = parser.add_argument_group("sampling a learned model")
    add(group, "test", help="write new videos to the run's folder test", action="store_true")
    add(group, "isTraining", True, "False: the same as -test", type=boolean)
    add(group, "num_sections_in_test", None, "length, in chunks", type=positive_int)
    add(group, "num_batches_in_test", None, "how many mini-batches", type=positive_int)
    add(group, "init_state", None, "first state: as inferred, or random", choices=("inferred", "random"))
    add(group, "burn_in", 0, "frames left out at the start (the paper starts from a random state, and leaves some out)",
        type=non_negative_int)
    add(group, "content", "inferred", "content: each clip's, as inferred; random; that of clip 0, 1, ...; or, as 0:3, "
        "on a line from clip 0's in the first video to clip 3's in the last, whose motion is the same")
    add(group, "replay", help="generate from the inferred noise: the clips again, not new videos", action="store_true")
    add(group, "animate", None, "generate from a picture, the first frame, by a model learned with -encoder")
    add_run_flags(parser, output_dir=None, by_task=f" (by task: {', '.join(PRESETS['output_dir'])})", log_step=10,
                  unit="epoch", auto="fp32 (bf16, in Langevin inference only, rounds)")


def presets(task, category, encoder):
    """The defaults of a task by flag."""
    column = TASKS.index(task)
    values = {name: value[column] if isinstance(value, tuple) else value for name, value in PRESETS.items()}
    length = CLIP_LENGTHS.get(category or values["category"])
    if task == "inpainting" and length:
        values |= {"num_frames": length, "truncated_backprop_length": length}
    return values | ENCODER_PRESET if encoder else values


def parse(argv=None):
    """The settings with the task's presets, and those among them that the user gave."""
    parser = build_parser()
    args, given = parser.parse_given(argv)
    args.task = args.task or ("recovery" if args.training_mode == "incomplete" else "scene")
    values = presets(args.task, args.category, args.encoder) | {"mask_path": args.data_path}
    if args.preset == "quality":
        size = max(1, min(100, 3 * given.get("num_frames", values["num_frames"]) // 4))
        values |= QUALITY | {"state_size": size, "z_size": size}
    if "mask_file" in given:
        values["mask_type"] = "external"
    if args.likelihood_scale == "mean":
        values["step_size"] = 0.03
    args = argparse.Namespace(**(vars(args) | values | given))
    args.test = args.test or not args.isTraining or args.replay or args.animate is not None
    if args.precision == "auto":
        args.precision = "fp32"
    if args.training_mode == "complete":
        args.mask_type = "none"
    if args.mask_type != "external":
        args.mask_file = None
    args.category = data.clean_category(args.data_path, args.category, "category" in given)
    args.truncated_backprop_length = min(args.truncated_backprop_length, args.num_frames)
    if not args.test:
        check(args, parser)
    return args, given


def check(args, parser):
    """End the program where flags contradict each other."""
    if not 0 <= args.beta1 < 1:
        parser.error(f"argument -beta1: {args.beta1} is not in [0, 1)")
    if args.mask_type == "external" and args.mask_file is None:
        parser.error("-mask_type external needs -mask_file")
    if args.training_mode == "incomplete" and args.mask_type == "none":
        parser.error("-training_mode incomplete needs -mask_type")
    if args.frame_generator_mode not in (None, args.im_size):
        parser.error(f"-frame_generator_mode {args.frame_generator_mode} does not fit -im_size {args.im_size}")
    if args.preset == "quality" and args.task == "motion":
        parser.error("-preset quality is for scenes and hidden pixels, not for -task motion")
    if args.dynamic_mode == "stationary" and (args.encoder or args.motion_type_size or args.z_size < args.state_size
                                              or args.state_size >= args.num_frames):
        parser.error("-dynamic_mode stationary takes a -state_size below -num_frames, a -z_size no smaller, no "
                     "-encoder and no motion type")
    if args.encoder and (args.im_size != ENCODED_SIZE or args.mask_type != "none" or args.motion_type_size):
        parser.error(f"-encoder takes -im_size {ENCODED_SIZE}, no mask and no motion type")


def settings_of(args):
    """The settings as plain types, for config.json, checkpoints and TensorBoard."""
    plain = {name: value for name, value in vars(args).items() if name not in TESTING}
    return plain | {"device": str(args.device)}
