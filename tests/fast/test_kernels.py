"""Kernels for GPUs against the plain code: on a GPU or, without, by Triton's interpreter; and compiled for GPUs that
need not be here."""

import os
import subprocess
import sys

import pytest
import torch
from tools import by, error, net, video

import fast.routes
import field.gaussian
from fast.routes import Blocks, FastConv
from field.gaussian import GaussianField
from model import Layer

pytest.importorskip("triton")
import fast.kernels  # noqa: E402
import field.kernels  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture
def both(monkeypatch):
    """both(function): its results by plain code, and by kernels."""

    def results(function):
        found = []
        for works in (False, True):
            for module in (fast.routes, field.gaussian):
                monkeypatch.setattr(module, "triton_works", lambda device, works=works: works)
            found.append(function())
        return found

    return results


@pytest.mark.parametrize("net_type, size", [("FC_S_large", (1, 1, 1)), ("ST", (5, 8, 9)), ("FC_S_multi", (7, 12, 23))])
def test_a_gradient_by_blocks_is_the_same_through_kernels(both, net_type, size):
    f = net(net_type, size).to(DEVICE)
    gradient, x = by(f, Blocks, Blocks), video(2, size).to(DEVICE)
    for y in (x, x.contiguous()):
        plain, ours = both(lambda y=y: gradient(y))
        assert plain.abs().max() > 0 and error(ours, plain) < 1e-6
        assert ours.dtype == torch.float32 and ours.shape == x.shape
    f.wrap_time()  # which the plain way does
    plain, ours = both(lambda: gradient(x))
    assert torch.equal(ours, plain)


def test_pixels_that_no_stride_reached_have_no_gradient_and_videos_are_float32(both):
    layer = Layer(3, 4, (2, 3, 3), (3, 3, 3), time_pad=0).to(DEVICE)
    layer.weight.detach().fill_(1)
    conv, g = FastConv(layer, lambda layer, size: (Blocks, Blocks)), torch.ones(2, 4, 3, 2, 2, device=DEVICE)
    plain, ours = both(lambda: conv.input_gradient(g, (10, 8, 8)))
    assert torch.equal(ours, plain) and (plain == 0).any() and plain.any()
    assert fast.kernels.from_blocks(g.bfloat16().repeat(1, 21, 1, 1, 1), layer, (10, 8, 8)).dtype == torch.float32


def test_channels_that_fill_up_blocks_are_ones():
    layer, x = net("FC_S_large", (12, 15, 30)).to(DEVICE).layers[0], video(2, (4, 7, 10)).to(DEVICE)
    whole = [3 * (side // 3 + 3) for side in x.shape[2:]]
    plain = Blocks(layer).to_blocks(layer.pad(x, whole), 15)
    assert torch.equal(fast.kernels.to_blocks(x, layer, plain.shape[2:], 96), plain)


@pytest.mark.parametrize("stationary", [False, True])
def test_a_field_has_the_same_colours_and_gradient_through_kernels(both, stationary):
    clip = 100 + 9 * video(1, (20, 5, 21), seed=1).cumsum(2).to(DEVICE)
    q = GaussianField.fit(clip, stationary=stationary)
    u = 1.5 * video(2, (13, 5, 21), seed=3).contiguous().to(DEVICE)  # beyond the outermost knots, too
    for g in (video(2, (13, 5, 21)).to(DEVICE), video(2, (14, 7, 24)).to(DEVICE)[:, :, 1:, 1:6, 3:]):
        (x, v), (our_x, our_v) = both(lambda g=g: (q.colour(u), q.colour_transposed(u, g)))
        assert error(our_x, x) < 1e-6 and error(our_v, v) < 1e-6 and our_x.stride() == x.stride()


def test_all_kernels_compile_for_gpus():
    environment = {**os.environ, "TRITON_INTERPRET": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run([sys.executable, __file__], capture_output=True, text=True, env=environment)
    assert (found.stdout.split(), found.returncode) == (["4", "kernels"], 0), found.stderr


def compile_all():
    """Compile all kernels for an A100 and a Hopper GPU, as at 224 px."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile
    from triton.runtime.jit import JITFunction

    fixed = {"T": 3, "H": 3, "W": 3, "C": 3, "WIDE": 96, "KNOTS": field.gaussian.KNOTS, "ONE": False,
             "ENTRIES": fast.kernels.ENTRIES, "FRAMES": field.kernels.FRAMES, "PIXELS": field.kernels.PIXELS}
    arrays = "out x y u g bends base off low high".split()
    everything = vars(fast.kernels) | vars(field.kernels)
    names = [name for name in everything if name.endswith("_kernel")]
    for name in names:
        kernel = everything[name]
        assert isinstance(kernel, JITFunction)
        types = {each: "constexpr" if each in fixed else "*fp32" if each in arrays else "i32"
                 for each in kernel.arg_names}
        blocks = {"to_blocks_kernel": "out", "from_blocks_kernel": "y"}.get(name)
        types |= {blocks: "*bf16"} if blocks else {}
        values = {each: fixed[each] for each in types if each in fixed}
        for capability in (80, 90):
            compiled = compile(ASTSource(kernel, types, values), target=GPUTarget("cuda", capability, 32))
            assert "cubin" in compiled.asm
    print(len(names), "kernels")


if __name__ == "__main__":
    compile_all()
