"""Helpers of the tests: small nets and videos, errors, and what runs have left."""

import csv
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from data import InputError
from fast.gradient import FastGradient
from fast.routes import Columns, Direct, FastConv
from model import descriptor

TIME_STRIDE = {"ST": 21, "FC_S": 4, "FC_S_large": 6, "FC_S_multi": 8, "FC": 3}


def redraw(f, seed=1, bias=0.1):
    """Weights of a size that keeps maps and gradients at the size of x, biases of size `bias`."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in f.parameters():
            p.normal_(generator=generator).mul_((2 / p[0].numel()) ** 0.5 if p.ndim == 5 else bias)
        if len(f.layers[-1].bias) == 1:
            f.layers[-1].bias.fill_(4)  # a net with one unit at the top would else be dead at every other video
    return f


def video(n, size, seed=2, dtype=torch.float32):
    """White noise (N, 3, T, H, W), channels last."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, *size, 3, generator=generator, dtype=dtype).permute(0, 4, 1, 2, 3)


def generators(count, first=0, device="cpu"):
    """A generator for each of `count` videos, of successive seeds."""
    return [torch.Generator(device).manual_seed(first + k) for k in range(count)]


def encode(path, video, codec="libx264", pix_fmt="yuv420p", rate=25, options=None, times=None, setup=None):
    """A video file of uint8 (T, H, W, 3); times: of the frames, in ms; setup(stream): before the first frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        same = {"threads": "1", "mbtree": "0"} if codec == "libx264" else {}  # bytes from run to run
        stream = container.add_stream(codec, rate=rate, options={**same, **(options or {})})
        stream.height, stream.width, stream.pix_fmt = *video.shape[1:3], pix_fmt
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if setup:
            setup(stream)
        for k, picture in enumerate(video):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = int(times[k]), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def images(folder, pictures, name="{:03d}.png", **options):
    """A folder of numbered pictures, arrays or Pillow's."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, picture in enumerate(pictures):
        each = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        each.save(folder / name.format(k), **options)
    return folder


def net(net_type, size, **kwargs):
    return redraw(descriptor(net_type, size[0], size[1:]), **kwargs)


def error(a, b):
    """The largest difference, relative to b's largest entry."""
    a, b = (torch.as_tensor(v).detach().double() for v in (a, b))
    return ((a - b).abs().max() / b.abs().max()).item()


def norm_error(a, b):
    return ((a - b).double().norm() / b.double().norm()).item()


def clear_of_kinks(f):
    """Biases that outweigh what the layer below sends: every other unit is on, the rest are off, none is close."""
    with torch.no_grad():
        for k, layer in enumerate(f.layers, start=1):
            layer.bias.fill_(10**k)
            layer.bias[1::2] *= -1
    return f


def circular_features(layers, x):
    """`features` with time as a circle, by the library: frames picked modulo T."""
    for layer in layers:
        (before, after), *plane = layer.padding(x.shape[2:])
        frames = x.shape[2]
        x = x[:, :, torch.arange(-before, frames + after) % frames]
        x = F.pad(x, [edge for pad in reversed(plane) for edge in pad])
        x = F.relu(F.conv3d(x, layer.weight, layer.bias, layer.stride))
    return x


def by(f, forward, backward, precision="fp32"):
    """f's gradient with its convolutions on these routes; the ones of many channels have no columns."""
    gradient = FastGradient(f, precision)
    for fast in gradient.fast:
        if isinstance(fast, FastConv):
            back = Direct if fast.layer.weight.shape[1] > 4 and backward is Columns else backward
            fast.choose = lambda layer, size, back=back: (forward, back)
    return gradient


def state_of(run, name="latest"):
    return torch.load(run / f"model/{name}.pt", weights_only=True)


def rows_of(run):
    with open(run / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def leaves(state, name=""):
    """Everything in nested dicts and lists, by its path."""
    if isinstance(state, dict | list | tuple):
        items = state.items() if isinstance(state, dict) else enumerate(state)
        return {path: leaf for key, value in items for path, leaf in leaves(value, f"{name}/{key}").items()}
    return {name: state}


def assert_same_state(one, two):
    """All that a run keeps is the same, bit for bit, but for its settings and the fingerprints of its inputs."""
    one, two = (leaves({k: v for k, v in state_of(run).items() if k not in ("settings", "fingerprints")})
                for run in (one, two))
    assert one.keys() == two.keys()
    for name, value in one.items():
        same = torch.equal(value, two[name]) if isinstance(value, torch.Tensor) else value == two[name]
        assert same, name


def assert_same_run(one, two):
    """Bit for bit the same state, metrics (but for the time taken), frames and GIFs."""
    assert_same_state(one, two)
    rows = [[{k: v for k, v in row.items() if "seconds" not in k} for row in rows_of(run)] for run in (one, two)]
    assert rows[0] == rows[1]
    pictures = [sorted(p.relative_to(run) for p in run.glob("*/**/*.png") if p.parts[-2] != "progress")
                for run in (one, two)]
    films = [f"final_results/{p.name}" for p in (one / "final_results").glob("*.gif")]
    assert pictures[0] == pictures[1] and films
    for name in [*pictures[0], *films, f"progress/epoch_{state_of(one)['epoch']:04d}.png"]:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


def fails(function, *args, **kwargs):
    """The message of the InputError that a call ends in, which has to be one line."""
    with pytest.raises(InputError) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert message and "\n" not in message
    return message


def contents(folder):
    """Every file below a folder with its bytes, and every folder."""
    return {p.relative_to(folder): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def assert_refused(done, *parts):
    """Exit code 2 and one line on stderr that contains all the parts."""
    assert done.code == 2, done.err
    [line] = done.err.splitlines()
    for part in parts:
        assert part in line


def read_log(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(run / "log"), size_guidance={"images": 0, "scalars": 0, "tensors": 0}).Reload()
