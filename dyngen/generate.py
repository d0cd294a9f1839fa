"""New videos of any length from a learned dynamic generator, and the clips again as they were inferred."""

import argparse
from pathlib import Path

import torch

import data
import utils
from dyngen.nets import DynamicGenerator
from fast.device import prepare
from judge.page import write_page
from langevin import gaussian_
from run.folder import delete_outputs, find_checkpoint, load_checkpoint

ARCHITECTURE = ("im_size", "state_size", "z_size", "content_size", "motion_type_size", "dynamic_mode", "encoder")


def unit(videos):
    """uint8 (N, T, H, W, 3) -> float32 (N, 3, T, H, W) in [-1, 1]."""
    return data.to_tensor(videos) / 127.5 - 1


def grey(videos):
    """The inverse of `unit`."""
    return utils.to_uint8((videos + 1) * 127.5)


def build_net(args, device):
    net = DynamicGenerator(args.im_size, args.state_size, args.z_size, args.content_size, args.motion_type_size,
                           args.dynamic_mode, args.encoder)
    return net.to(device)


def slices(total, length):
    """The whole of `total` in slices of `length`; the last one may be shorter."""
    return [slice(k, min(k + length, total)) for k in range(0, total, length)]


def check_content(content, clips, content_size, replay=False):
    """InputError if -content names a clip that there is not."""
    if content == "random" and replay:
        raise data.InputError("-replay shows inferred content, or that of clips: -content random does not fit")
    if content in ("inferred", "random"):
        return
    ends = content.split(":")
    if len(ends) > 2 or not content_size or not all(end.isdecimal() and int(end) < clips for end in ends):
        known = f"0 to {clips - 1}" if content_size else "no number: the model has no content (-content_size 0)"
        raise data.InputError(f"-content {content} is not inferred, random, or a clip's number, {known}, or two: 0:1")


@torch.no_grad()
def new_videos(net, latents, batch, *, batch_size, batches, chunk, sections, burn_in, init_state, content, seed):
    """Mini-batch number `batch` of `batches` of new videos (N, 3, T, H, W), `sections` chunks of `chunk` frames long,
    from new innovations and the first state and content that are asked for (the flags init_state and content);
    'inferred' are those of the first mini-batch of clips (as released). burn_in: frames that are left out at the start.
    With content 'i:j' all videos move as one, from the state of clip i, and only their look differs."""
    inferred = {name: u[:batch_size] for name, u in latents.items()}
    n, device = len(inferred["s"]), inferred["s"].device
    start, _, end = content.partition(":")
    generators = [utils.generator(device, seed, "new", 0 if end else batch * n + k) for k in range(n)]
    motion_size, xi_size, state_size = net.transition.inputs

    def draw(*size):
        return gaussian_(torch.empty(n, *size, device=device), generators)

    xi, m = draw(burn_in + sections * chunk, xi_size), draw(motion_size)
    s = draw(state_size) if init_state == "random" else latents["s"][[int(start)] * n] if end else inferred["s"]
    a = draw(inferred["a"].shape[1]) if content == "random" else contents(
        inferred["a"], latents, content, batch * n, batches * n)
    if burn_in:
        s = net.transition(xi[:, :burn_in], s, m)[:, -1]
    return net.generate(xi[:, burn_in:], s, a, m, chunk)


def asked_for(args):
    """What `new_videos` takes of the settings."""
    return {"batch_size": args.batch_size, "batches": args.num_batches_in_test,
            "chunk": args.truncated_backprop_length, "sections": args.num_sections_in_test, "burn_in": args.burn_in,
            "init_state": args.init_state, "content": args.content, "seed": args.seed}


def replayed_videos(net, latents, *, batch_size, chunk, content="inferred"):
    """The clips (N, 3, T, H, W) as they are inferred; with other content, their motion with the look of others."""
    videos = []
    for rows in slices(len(latents["s"]), batch_size):
        inferred = {name: u[rows] for name, u in latents.items()}
        inferred["a"] = contents(inferred["a"], latents, content, rows.start, len(latents["s"]))
        videos.append(net.generate(**inferred, chunk=chunk))
    return torch.cat(videos)


def contents(inferred, latents, content, first, total):
    """Content vectors (N, dim a) of the videos `first`, first + 1, ... of `total`, whose own are `inferred`: these; of
    content 'i', clip i's for all; of 'i:j', those on a straight line over all videos from clip i's to clip j's."""
    if content == "inferred":
        return inferred
    ends = content.split(":")
    start, end = latents["a"][int(ends[0])], latents["a"][int(ends[-1])]
    along = torch.arange(first, first + len(inferred), device=start.device) / max(total - 1, 1)
    return torch.lerp(start, end, along[:, None])


def encode_picture(net, path, side):
    """The latents of a picture, as if it were the first frame of the one clip learned."""
    frames = unit(data.read_picture(path, (side, side))[None, None])  # (1, 3, 1, side, side)
    a, s = net.encoder(frames[:, :, 0].to(next(net.parameters()).device))
    return {"a": a, "s": s, "m": a[:, :0]}


@torch.no_grad()
def generate(args, given):
    """-test: new videos from a learned model, whose nets, chunks and inferred latents come from its checkpoint."""
    prepare(args.device)
    folder = Path(args.output_dir) / args.category
    path = find_checkpoint(folder, args.ckpt)
    state = load_checkpoint(path, args.device, "latents")
    learned = state["settings"] | {"frame_generator_mode": state["settings"]["im_size"]}
    for name in (*ARCHITECTURE, "frame_generator_mode"):
        if given.get(name, learned[name]) != learned[name]:
            raise data.InputError(f"'{path}' was learned with -{name} {learned[name]}, not {given[name]}")
    args = argparse.Namespace(**(vars(args) | learned | given | {"device": args.device}))
    net, latents = build_net(args, args.device), state["latents"]
    check_content(args.content, len(latents["s"]), args.content_size, args.replay)
    net.load_state_dict(state["net"])
    if args.animate and not net.encoder:
        raise data.InputError(f"-animate needs a model learned with -encoder, '{path}' is not")
    if args.animate:
        latents = encode_picture(net, args.animate, args.im_size)
        args.init_state, args.content = "inferred", "inferred"
    if args.replay:
        videos = replayed_videos(net, latents, batch_size=args.batch_size, chunk=args.truncated_backprop_length,
                                 content=args.content)
    else:
        batches = range(args.num_batches_in_test)
        videos = torch.cat([new_videos(net, latents, batch, **asked_for(args)) for batch in batches])
    videos = grey(videos)
    delete_outputs(folder / "test")
    utils.save_videos(folder / "test", "synthesized", videos, rate=args.fps or state.get("rate", utils.FPS))
    sheet = utils.contact_sheet(videos[:12], [f"video {k}" for k in range(len(videos[:12]))])
    utils.write_atomically(folder / "test/contact_sheet.png", utils.png_bytes(sheet))
    write_page(folder)
    print(f"{len(videos)} videos of {videos.shape[1]} frames are in '{folder / 'test'}'")
