"""The state that a run of main.py begins with, but for its chains."""

import numpy as np
import torch

from data import to_tensor
from fast.device import pick_chunk
from fast.gradient import pick_precision, some_frames
from field.gaussian import GaussianField
from model import fixed_axes
from recover import first_guess
from reference import WhiteNoise


def how_to_compute(args, f, videos, hidden):
    """How many videos a run handles at once, and the precision of its sampling."""
    chunk = args.chunk or pick_chunk(f, f.size, args.batch_size + args.num_chain, args.device)
    precision, seen = args.precision, videos if hidden is None else np.where(hidden[..., None], np.uint8(0), videos)
    if precision == "auto":
        precision = pick_precision(f, some_frames(seen, args.device, fixed_axes(args.net_type)[0]))
    return {"precision": precision, "chunk": chunk}


def first_state(f, videos, hidden, *, net_type, reference, refsig, batch_size, seed):
    """Guesses of hidden pixels, the reference, the net; videos uint8 (N, T, H, W, 3), hidden bool (N, T, H, W) or
    None."""
    device, full, seen = next(f.parameters()).device, to_tensor(videos), videos
    if hidden is not None:
        full, recovered = first_guess(videos, hidden, reference == "field", device, seed)
        seen = videos[~hidden]
    if reference == "field":
        q = GaussianField.fit(full.to(device), refsig, stationary=not any(fixed_axes(net_type)[1:]))
    else:
        mean = torch.tensor(seen.mean(dtype=np.float64), dtype=torch.float32)
        q = WhiteNoise(f.size, mean=mean.to(device), sigma=refsig)
    I = list((full.to(device) - q.mean).split(batch_size))
    wake(f, I[0][:1], each=reference == "field")
    state = {"net": f.state_dict(), "epoch": 0, "reference": q.state()}
    return state if hidden is None else state | {"recovered": recovered | {"I": I}}


@torch.no_grad()
def wake(f, I, each):
    """Turn over the last layer's weights of units that are dead at the clip I: each of them, or only if all are.

    Differs from the released code: a dead unit never learns, and a run without a live one learns nothing."""
    dead = ~f.features(I).flatten(2).any(2).any(0)  # (c_out,)
    if each or dead.all():
        f.layers[-1].weight[dead] *= -1
