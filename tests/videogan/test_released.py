"""The authors' models: their files, written as Torch7 writes them, against their layers one by one, in float64."""

import struct

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from calls import call, narrow, succeeds
from PIL import Image
from released_nets import Layer, Net, file_of
from tools import assert_refused, fails, state_of

import data
import main_videogan
import videogan.nets
from videogan.released import load_released

WIDTH = 4


@pytest.fixture(autouse=True)
def small():
    with narrow(WIDTH):
        yield


@pytest.fixture
def save(tmp_path):
    """save(tree, package) -> the path of a file that Torch7 would write of it."""

    def write(tree, package="nn"):
        (tmp_path / "iter1000_net.t7").write_bytes(file_of(tree, package))
        return tmp_path / "iter1000_net.t7"

    return write


def flat(x):
    return [x] if isinstance(x, torch.Tensor) else [each for part in x for each in flat(part)]


CONVOLUTIONS = {"SpatialConvolution": F.conv2d, "SpatialFullConvolution": F.conv_transpose2d,
                "VolumetricConvolution": F.conv3d, "VolumetricFullConvolution": F.conv_transpose3d}
PLAIN = {"ReLU": F.relu, "Tanh": torch.tanh, "Sigmoid": torch.sigmoid, "Squeeze": torch.squeeze, "FlattenTable": flat,
         "LeakyReLU": lambda x: F.leaky_relu(x, 0.2), "L1Penalty": lambda x: x, "CMulTable": lambda x: x[0] * x[1],
         "CAddTable": lambda x: x[0] + x[1]}


def evaluate(layer, x):
    """What a layer of Torch7 makes of x, in evaluation, in float64."""
    kind, fields = layer.kind.split(".")[1], layer.fields
    tensors = {k: torch.from_numpy(v).double() for k, v in fields.items() if isinstance(v, np.ndarray)}
    if kind in PLAIN:
        return PLAIN[kind](x)
    if kind in CONVOLUTIONS:
        return CONVOLUTIONS[kind](x, tensors["weight"], tensors["bias"], int(fields["dW"]), int(fields["padW"]))
    match kind:
        case "Sequential":
            for part in layer.parts():
                x = evaluate(part, x)
            return x
        case "ConcatTable":
            return [evaluate(part, x) for part in layer.parts()]
        case "SelectTable":
            return x[int(fields["index"]) - 1]
        case "View":
            return x.reshape(fields["size"])
        case "Replicate":
            return torch.stack([x] * int(fields["nfeatures"]), int(fields["dim"]) - 1)
        case "MulConstant":
            return x * fields["constant_scalar"]
        case "AddConstant":
            return x + fields["constant_scalar"]
        case "SpatialBatchNormalization" | "VolumetricBatchNormalization":
            std = tensors["running_std"] if "running_std" in tensors else (tensors["running_var"] + fields["eps"])**-0.5
            shift, scale, mean = (each.view(1, -1, *[1] * (x.ndim - 2))
                                  for each in (tensors["bias"], tensors["weight"] * std, tensors["running_mean"]))
            return (x - mean) * scale + shift
    raise ValueError(kind)


@pytest.mark.parametrize("package, old", [("nn", True), ("cudnn", False)])
@pytest.mark.parametrize("conditional", [False, True])
def test_a_released_generator_makes_the_same_scenes(save, conditional, package, old):
    tree = Net(WIDTH, package, old).generator(conditional)
    G = load_released(save(tree, package)).eval().double()
    assert G.conditional == conditional
    source = torch.randn(2, 3, 64, 64).double() if conditional else torch.randn(2, 100).double()
    expected = [evaluate(tree, source)]
    expected += evaluate(Layer("nn.Sequential", *list(tree.parts())[:-2]), source)  # f, m, b
    for made, value in zip(G(source), expected, strict=True):  # made ends in float32
        assert value.std() > 0.05  # random weights, but none that leave nothing to tell apart
        assert torch.allclose(made.double().view_as(value), value, atol=1e-5)


@pytest.mark.parametrize("conditional", [False, True])
def test_a_released_discriminator_has_its_classes_the_other_way_round(save, conditional):
    tree, video = Net(WIDTH).discriminator(conditional), torch.randn(2, 3, 32, 64, 64)
    real, fake = evaluate(tree, video.double()).unbind(1)
    logits = load_released(save(tree)).eval()(video).double()
    assert (real - fake).abs().min() > 0.01
    assert torch.allclose(logits[:, videogan.nets.REAL], real, atol=1e-5)
    assert torch.allclose(logits[:, videogan.nets.FAKE], fake, atol=1e-5)


def generates(tmp_path, path, *more):
    return call(main_videogan, "-generate -device cpu -output_dir", tmp_path, "-ckpt", path, *more)


def test_new_videos_of_a_released_model(save, tmp_path):
    path = save(Net(WIDTH, gain=0.01).generator(False))
    assert generates(tmp_path, path, "-category golf -sample_size 2").code == 0
    assert data.read_clip(tmp_path / "golf/test/final_results/gen.mp4").shape == (32, 64, 2 * 66 - 2, 3)
    path = save(Net(WIDTH, gain=0.01).generator(True))
    assert_refused(generates(tmp_path, path), "name them with -image")
    Image.new("RGB", (90, 50), "teal").save(tmp_path / "picture.png")
    assert generates(tmp_path, path, "-image", tmp_path / "picture.png").code == 0
    path = save(Net(WIDTH, gain=0.01).discriminator(False))
    assert_refused(generates(tmp_path, path), "is a discriminator")


def test_learning_starts_from_a_released_generator_and_a_new_discriminator(save, tmp_path):
    path = save(Net(WIDTH).generator(False))
    flags = ("-device cpu -batch_size 2 -workers 0 -num_iterations 1 -held_out 0 -lr 1e-7 -ckpt", path,
             "-output_dir", tmp_path)
    assert_refused(call(main_videogan, *flags, "-conditional"), "is another")
    assert f"in '{path}'; D starts anew" in succeeds(main_videogan, *flags)
    learned = state_of(tmp_path / "beach")["G"]
    for name, p in load_released(path).named_parameters():
        assert (learned[name] - p).abs().max() < 1e-6  # one step of Adam


def test_what_is_no_released_model_is_one_line(save, tmp_path):
    path = save(Net(WIDTH).generator(False))
    whole = path.read_bytes()
    shortened = [whole[:end] for end in (0, 3, 100, len(whole) // 2, len(whole) - 1)]
    for content in (*shortened, b"no model", file_of({"loss": 1.0}), whole.replace(b"Tensor", b"Thenso")):
        path.write_bytes(content)
        assert "is damaged, or no model" in fails(load_released, path)
    assert "not one of the released" in fails(load_released, save(Net(WIDTH // 2).generator(False)))
    assert_refused(generates(tmp_path, path), path.name)
    assert_refused(generates(tmp_path, tmp_path / "none.t7"), "there is no checkpoint")


def test_a_file_of_malice_reads_nothing_but_itself(save):
    path = save(Layer("nn.SpatialConvolution", weight=np.zeros(8, np.float32)[1:]))
    size_stride_start = struct.pack("<3q", 7, 1, 2)
    for outside in ((8, 1, 2), (7, 2, 2), (7, 1, 3), (7, -1, 2), (7, 1, 0), (2**62, 4, 2), (-7, 1, 2)):
        path.write_bytes(path.read_bytes().replace(size_stride_start, struct.pack("<3q", *outside)))
        size_stride_start = struct.pack("<3q", *outside)
        assert "is damaged" in fails(load_released, path)
    loop = Layer("nn.Sequential")
    loop.fields["modules"] = {1.0: loop}
    assert "is damaged" in fails(load_released, save(loop))
    path.write_bytes(b"\x08\0\0\0\x01\0\0\0\x04\0\0\0code")
    assert "is damaged" in fails(load_released, path)
