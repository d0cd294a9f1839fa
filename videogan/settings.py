"""The flags of VideoGAN."""

from data import clean_category
from run.flags import ArgumentParser, add_flag, add_run_flags, non_negative_int, positive_float, positive_int
from run.inputs import add_part_flags

TESTING = ("test", "sample_size", "image", "overwrite", "dry_run")  # no part of a run


def build_parser():
    parser = ArgumentParser(
        prog="main_videogan.py",
        description="Learn to generate videos of 32 frames of 64x64 pixels from the clips of a category (VideoGAN).\n"
        "The same command again resumes an unfinished run.",
    )
    add, group = add_flag, parser.add_argument_group("data")
    add(group, "category", "beach", "folder below data_path: video files, or strips that its list.txt names")
    add(group, "data_path data_root", "./trainingVideo", "where categories are")
    add(group, "data_list", None, "a list of strips, one path a line, relative to data_path")
    add_part_flags(group)
    add(group, "window_step", 8, "video files: frames from the start of one window of 32 to the next",
        type=positive_int)
    add(group, "held_out", 0.1, "share of the clips, or of each video's frames at its end, that only judges samples",
        type=float)
    add(group, "workers", 1, "processes that read clips ahead, 0: none", type=non_negative_int)
    group = parser.add_argument_group("model")
    add(group, "conditional", help="generate from a first frame instead of noise", action="store_true")
    add(group, "streams", "2", "2: foreground, mask and background; 1: foreground alone", choices=("1", "2"))
    group = parser.add_argument_group("learning")
    add(group, "num_iterations", 65000, "iterations, one step of each net", type=positive_int)
    add(group, "batch_size", None, "clips per iteration (64, conditional 32)", type=positive_int)
    add(group, "mask_penalty", None, "weight of the mean of the mask (0.1, conditional 0)", type=float)
    add(group, "frame_weight", 10.0, "conditional: weight of the first frame's L1 error", type=float)
    add(group, "lr", 0.0002, "learning rate of Adam, both nets", type=positive_float)
    add(group, "beta1", 0.5, "first-moment decay of Adam", type=float)
    add(group, "average", 0.0, "samples: decay of a moving average of the generator, which draws them; 0: none",
        type=float)
    add(group, "r1", 0.0, "weight of the R1 penalty, the discriminator's squared gradient at real clips", type=float)
    add(group, "sync_batch_norm", help="several processes (torchrun): batch statistics of the whole mini-batch, not of "
        "each process's part", action="store_true")
    add(group, "spectral_norm", help="divide the discriminator's weights by their spectral norm", action="store_true")
    group = parser.add_argument_group("sampling a learned model")
    add(group, "test generate", help="write new videos, and what they are made of, to the run's folder test; here "
        "and in learning, -ckpt may name a model that the authors released, a .t7 file", action="store_true")
    add(group, "sample_size", None, "how many videos (128, as released; conditional: one of each first frame that "
        "the checkpoint keeps, 16 at most)", type=positive_int)
    add(group, "image", None, "conditional: first frames, pictures or folders of them, a video from each", nargs="+")
    add_run_flags(parser, output_dir="./output_videogan", log_step=100, unit="iteration",
                  auto="bf16 on a GPU, else fp32")
    return parser


def parse(argv=None):
    """The settings, checked, and those among them that the user gave."""
    parser = build_parser()
    args, given = parser.parse_given(argv)
    args.category = clean_category(args.data_path, args.category, "category" in given)
    args.streams = int(args.streams)
    args.batch_size = args.batch_size or (32 if args.conditional else 64)
    if args.mask_penalty is None:
        args.mask_penalty = 0.0 if args.conditional else 0.1
    if args.precision == "auto":
        args.precision = "bf16" if args.device.type == "cuda" else "fp32"
    for name, low, high in (("beta1", 0, 1), ("average", 0, 1), ("held_out", 0, 0.9), ("mask_penalty", 0, 1e6),
                            ("frame_weight", 0, 1e6), ("r1", 0, 1e6)):
        if not low <= getattr(args, name) < high:
            parser.error(f"argument -{name}: {getattr(args, name)} is not in [{low}, {high:g})")
    if args.image and not args.test:
        parser.error("-image goes with -test")
    return args, given


def settings_of(args):
    """The settings as plain types, for config.json, checkpoints and TensorBoard."""
    plain = {name: value for name, value in vars(args).items() if name not in TESTING}
    return plain | {"device": str(args.device)}
