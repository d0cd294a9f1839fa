"""The flags of main.py, with their defaults and presets."""

from data import MASK_TYPES, clean_category
from model import NETS
from run.flags import (
    ArgumentParser,
    add_flag,
    add_run_flags,
    image_size,
    non_negative_int,
    positive_float,
    positive_int,
    share,
)
from run.inputs import add_part_flags

# Settings that a resumed run may change; all others decide the result.
CHANGEABLE = ("num_epochs", "lr", "anneal", "log_step", "keep", "device", "data_path", "output_dir", "fps")
TESTING = ("test", "sample_size", "test_steps", "start", "loop", "overwrite", "dry_run")  # no part of a run
# -preset quality: a reference fitted to the clip, whose noise moves chains by natural amounts, so that few steps of a
# low rate are enough. Nets for many clips keep the paper's: what one Gaussian field has of clips that do not look alike
# is a patchwork of all.
QUALITY = {"reference": "field", "sample_steps": 2, "step_size": 0.5, "lr": 0.0001, "anneal": 1.0,
           "num_epochs": 60}
MANY = ("FC_S_multi", "FC")
QUALITY_MANY = {"sample_steps": 2, "step_size": 0.5, "lr": 0.002, "anneal": 0.4, "num_epochs": 1000}


def build_parser():
    parser = ArgumentParser(
        prog="main.py",
        description="Learn a dynamic texture from the clips of a category and synthesise new ones (STGConvNet).\n"
        "The same command again resumes an unfinished run.",
    )
    add = add_flag
    quality, many = (" ".join(f"-{name} {value}" for name, value in each.items()) for each in (QUALITY, QUALITY_MANY))
    add(parser, "preset", "released", f"defaults: released (below), or quality: {quality}; with {' and '.join(MANY)}, "
        f"{many}", choices=("released", "quality"))
    group = parser.add_argument_group("data")
    add(group, "category", "fire_pot", "folder of clips below data_path")
    add(group, "data_path data_dir", "./trainingVideo", "where categories are")
    add(group, "im_size image_size sz", "224", "side, or height x width, in pixels", type=image_size)
    add(group, "num_frames", 70, "frames of each clip that are used, the first ones if nothing else is said",
        type=positive_int)
    add_part_flags(group)
    group = parser.add_argument_group("hidden pixels (recovery and inpainting; with -test in a learned model)")
    add(group, "mask_type", "none", "what is hidden: none, external or " + ", ".join(MASK_TYPES),
        choices=("none", "external", *MASK_TYPES))
    add(group, "mask_file", None, "for external: .mat, .npy, video, picture or folder of pictures (white = hidden)")
    group = parser.add_argument_group("model")
    add(group, "net_type", "FC_S_large", f"net: {', '.join(NETS)}; FC_S is for 100 px, FC_S_large for 224",
        choices=tuple(NETS))
    add(group, "reference", "white", "the reference q that the net tilts: white noise, as in the paper, or a Gaussian "
        "field with the clip's colours and correlations", choices=("white", "field"))
    add(group, "refsig", 1.0, "std sigma of the reference: in grey levels (white), or as a share of the clip's (field)",
        type=positive_float)
    group = parser.add_argument_group("Langevin sampling")
    add(group, "num_chain sample_batch", 3, "chains (synthesised videos) per mini-batch", type=positive_int)
    add(group, "sample_steps", 20, "Langevin steps per epoch", type=positive_int)
    add(group, "step_size delta", 0.3, "step size delta, in grey levels (white) or in standard deviations of the "
        "field's noise", type=positive_float)
    group = parser.add_argument_group("learning")
    add(group, "num_epochs", 500, "epochs, one update of the parameters each", type=positive_int)
    add(group, "batch_size", 1, "clips per mini-batch", type=positive_int)
    add(group, "lr", 0.001, "learning rate of Adam", type=positive_float)
    add(group, "anneal", 0.0, "share of the epochs, at the end, over which the rate falls to a tenth, and with it the "
        "square of the step size (white)", type=share)
    add(group, "beta1", 0.5, "first-moment decay of Adam", type=float)
    group = parser.add_argument_group("sampling a learned model")
    add(group, "test", help="write new videos to the run's folder test; -num_frames and -im_size may differ from what "
        "was learned where the net can slide", action="store_true")
    add(group, "sample_size", 3, "how many videos", type=positive_int)
    add(group, "test_steps", 100, "Langevin steps; 20 where pixels are hidden; 0 with -start chains: as they are",
        type=non_negative_int)
    add(group, "start", "noise", "start from noise, or go on from the saved chains", choices=("noise", "chains"))
    add(group, "loop", help="make the last frame run into the first; the length is rounded up to a multiple of the "
        "net's strides in time", action="store_true")
    group = add_run_flags(parser, output_dir="./output", log_step=10, unit="epoch",
                          auto="bf16 in sampling where that is accurate and faster")
    add(group, "chunk", 0, "videos handled at once, 0: as many as fit in memory", type=non_negative_int)
    return parser


def parse(argv=None):
    """The settings, and those among them that the user gave."""
    parser = build_parser()
    args, given = parser.parse_given(argv)
    if args.preset == "quality":
        better = QUALITY_MANY if args.net_type in MANY else QUALITY
        vars(args).update({name: value for name, value in better.items() if name not in given})
    if not 0 <= args.beta1 < 1:
        parser.error(f"argument -beta1: {args.beta1} is not in [0, 1)")
    if (args.mask_type == "external") != (args.mask_file is not None):
        parser.error("-mask_type external and -mask_file go together")
    args.category = clean_category(args.data_path, args.category, "category" in given)
    return args, given


def settings_of(args):
    """The settings as plain types, for config.json, checkpoints and TensorBoard."""
    plain = {name: value for name, value in vars(args).items() if name not in TESTING}
    return plain | {"im_size": list(args.im_size), "device": str(args.device)}
