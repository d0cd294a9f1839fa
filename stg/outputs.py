"""What a run of main.py says, shows and judges.

Of more than FILMS chains the first ones have frames and films, and are judged. All are in the checkpoint, and main.py
-test -start chains -test_steps 0 -sample_size N shows N of them.
"""

import math

import torch

import utils
from data import InputError
from fast.device import available_memory, memory_per_video
from field import conditional
from field.spectrum import box_of
from judge.clip import Judge, table_of_clips
from judge.tables import RecoveryTable
from model import layer_table
from recover import save_recovered
from run import ranks
from run.inputs import check_memory
from stg.settings import settings_of

FILMS = 64  # chains with frames and films
ROWS = 6  # of a contact sheet, for observed videos and for chains
FIELDS = 10  # that hidden pixels need: what ConditionalField and FieldRecovery keep of a clip, and what a move takes


def judge_of(args, f, videos, hidden):
    """Who judges a run by its clips or, where pixels are hidden, by the truth; videos uint8 (N, T, H, W, 3)."""
    settings, stride = settings_of(args), f.layers[0].stride[0]
    if hidden is None:
        return Judge("evaluation", lambda: table_of_clips(settings, f.size, stride), settings)
    known = ["Gaussian field"] if args.reference == "field" else []  # a row of the run's own
    return Judge("recovery", lambda: RecoveryTable(videos, hidden, without=known), settings)


def save_outputs(judge, learner, run, epoch, pictures, videos, hidden, moving, last):
    """Write what there is to see of an epoch. pictures: observed videos or what is recovered of them, and the first
    chains, FILMS or, unless films are `moving`, ROWS of them, by name, uint8 (N, T, H, W, 3)."""
    J, I = pictures["chain"], pictures["observed" if hidden is None else "mean"]
    sheet = {f"{'observed' if hidden is None else 'recovered'} {k}": video for k, video in enumerate(I[:ROWS])}
    sheet |= {f"chain {k}": video for k, video in enumerate(J[:ROWS])}
    run.log_pictures(epoch, list(sheet.values()), list(sheet), moving)
    beside = {f"observed_{k}": video for k, video in enumerate(videos)}
    if moving and hidden is None:
        utils.save_videos(run.folder, "synthesized", J, beside, run.inputs.rate)
    elif moving:
        save_recovered(run.folder, I, pictures["sample"], videos, hidden, run.inputs.rate, beside)
        utils.save_frames(run.folder / "synthesized_sequence", J)
    if last and hidden is None:
        judge.report(run.folder, {f"chain {k}": video for k, video in enumerate(J)})
    elif last:
        found = {"mean of samples": I, "one sample": pictures["sample"]}
        guess = learner.recovery.guess()
        if guess is not None:
            found["Gaussian field"] = utils.to_uint8(torch.cat(guess) + learner.reference.mean)
        judge.report(run.folder, found)


def chains_of(args, clips):
    """How many chains a run of so many clips has."""
    return -(-clips // args.batch_size) * args.num_chain


def memory(args, f, clips, chains, batch):
    """Bytes that a run of so many clips and chains takes, of whose videos `batch` are handled at once; all are numbers
    of 4 bytes. A parameter has its gradient and Adam's two moments beside it. A clip has three colours, and is there
    twice: learned from, and made a picture or judged. A chain has three channels in the reference's box. Where pixels
    are hidden, there are FIELDS of three channels of each clip, and as many of the one that moves."""
    box = box_of(f.size, False) if args.reference == "field" else f.size
    fields = 0 if args.mask_type == "none" else FIELDS * (clips + 1) * math.prod(conditional.box_of(f.size))
    return (4 * 4 * sum(p.numel() for p in f.parameters()) + memory_per_video(f, f.size) * batch
            + 4 * 3 * (2 * clips * math.prod(f.size) + chains * math.prod(box) + fields))


def check_fits(args, f, clips):
    """RunError where a run cannot fit into memory (a GPU may leave its chains to the host), InputError where there are
    fewer chains than processes."""
    everything = chains_of(args, clips)
    if everything < ranks.world():
        raise InputError(f"{everything} chains cannot be spread over {ranks.world()} processes: start fewer processes, "
                         "or raise -num_chain")
    rest, whole = (memory(args, f, clips, n, 1) for n in (0, -(-everything // ranks.world())))
    gpu, hint = args.device.type == "cuda", "use a smaller -im_size or -num_frames, or fewer -num_chain"
    check_memory(rest if gpu else whole * ranks.here(), available_memory(args.device), hint)
    if gpu:
        check_memory((whole - rest) * ranks.here(), available_memory(torch.device("cpu")), hint)


def header(args, f, clips):
    """What will run: clips, net, device, memory, and whether all chains will be shown."""
    chains = chains_of(args, clips)
    most = memory(args, f, clips, chains, args.batch_size + args.num_chain)
    side = " (the net for 100 px)" if args.net_type == "FC_S" and max(args.im_size) > 100 else ""
    lines = [
        f"STGConvNet  {args.net_type}{side}  '{args.category}': {clips} clip(s), {args.num_frames} frames of "
        f"{args.im_size[0]}x{args.im_size[1]}, {args.num_chain} chains a mini-batch of {args.batch_size}",
        *layer_table(f),
        f"device {args.device}, {torch.get_num_threads()} threads, torch {torch.__version__}; "
        f"memory about {most / 2**30:.1f} GiB if all is handled at once",
    ]
    if chains > FILMS:
        lines.append(f"of {chains} chains the first {FILMS} are filmed and judged; when the run has ended, main.py "
                     f"-test -category {args.category} -start chains -test_steps 0 -sample_size {chains} films all")
    return "\n".join(lines)
