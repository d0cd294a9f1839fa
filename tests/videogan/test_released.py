"""The authors' models: their files, written as Torch7 writes them, against their layers one by one, in float64."""

import struct

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from released_nets import Layer, Net, file_of
from tools import fails

import data
import main_videogan
import videogan.nets
from videogan.released import load_released

WIDTH = 4


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setattr(videogan.nets, "WIDTH", WIDTH)


@pytest.fixture
def save(tmp_path):
    """save(tree, package) -> the path of a file that Torch7 would write of it."""

    def write(tree, package="nn"):
        (tmp_path / "iter1000_net.t7").write_bytes(file_of(tree, package))
        return tmp_path / "iter1000_net.t7"

    return write


def flat(x):
    return [x] if isinstance(x, torch.Tensor) else [each for part in x for each in flat(part)]


def evaluate(layer, x):
    """What a layer of Torch7 makes of x, in evaluation, in float64."""
    kind, fields = layer.kind.split(".")[1], layer.fields
    tensors = {k: torch.from_numpy(v).double() for k, v in fields.items() if isinstance(v, np.ndarray)}
    match kind:
        case "Sequential":
            for part in layer.parts():
                x = evaluate(part, x)
            return x
        case "ConcatTable":
            return [evaluate(part, x) for part in layer.parts()]
        case "FlattenTable":
            return flat(x)
        case "SelectTable":
            return x[int(fields["index"]) - 1]
        case "View":
            return x.reshape(fields["size"])
        case "Replicate":
            dim = int(fields["dim"]) - 1
            return torch.stack([x] * int(fields["nfeatures"]), dim)
        case "CMulTable" | "CAddTable":
            return x[0] * x[1] if kind == "CMulTable" else x[0] + x[1]
        case "MulConstant" | "AddConstant":
            return x * fields["constant_scalar"] if kind == "MulConstant" else x + fields["constant_scalar"]
        case "SpatialBatchNormalization" | "VolumetricBatchNormalization":
            std = tensors["running_std"] if "running_std" in tensors else (tensors["running_var"] + fields["eps"])**-0.5
            shape = (1, -1, *[1] * (x.ndim - 2))
            scale = (tensors["weight"] * std).view(shape)
            return (x - tensors["running_mean"].view(shape)) * scale + tensors["bias"].view(shape)
        case "L1Penalty":
            return x
    one_argument = {"ReLU": F.relu, "Tanh": torch.tanh, "Sigmoid": torch.sigmoid, "Squeeze": torch.squeeze,
                    "LeakyReLU": lambda x: F.leaky_relu(x, 0.2)}
    if kind in one_argument:
        return one_argument[kind](x)
    convolve = {"SpatialConvolution": F.conv2d, "SpatialFullConvolution": F.conv_transpose2d,
                "VolumetricConvolution": F.conv3d, "VolumetricFullConvolution": F.conv_transpose3d}[kind]
    return convolve(x, tensors["weight"], tensors["bias"], int(fields["dW"]), int(fields["padW"]))


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


def program(tmp_path, path, *flags):
    return main_videogan.main(["-generate", "-ckpt", str(path), "-device", "cpu", "-output_dir", str(tmp_path), *flags])


def test_new_videos_of_a_released_model(save, tmp_path, capsys):
    path = save(Net(WIDTH, gain=0.01).generator(False))
    assert program(tmp_path, path, "-category", "golf", "-sample_size", "2") == 0
    assert data.read_clip(tmp_path / "golf/test/final_results/gen.mp4").shape == (32, 64, 2 * 66 - 2, 3)

    path = save(Net(WIDTH, gain=0.01).generator(True))
    assert program(tmp_path, path) == 2 and "name them with -image" in capsys.readouterr().err
    Image.new("RGB", (90, 50), "teal").save(tmp_path / "picture.png")
    assert program(tmp_path, path, "-image", str(tmp_path / "picture.png")) == 0

    path = save(Net(WIDTH, gain=0.01).discriminator(False))
    assert program(tmp_path, path) == 2 and "is a discriminator" in capsys.readouterr().err


def test_learning_starts_from_a_released_generator_and_a_new_discriminator(save, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("videogan.learn.SAMPLES", 2)
    path = save(Net(WIDTH).generator(False))
    small = "-device cpu -batch_size 2 -workers 0 -num_iterations 1 -held_out 0 -lr 1e-7".split()
    flags = ["-ckpt", str(path), "-output_dir", str(tmp_path), *small]
    assert main_videogan.main([*flags, "-conditional"]) == 2 and "is another" in capsys.readouterr().err
    assert main_videogan.main(flags) == 0 and f"in '{path}'; D starts anew" in capsys.readouterr().out
    learned = torch.load(tmp_path / "beach/model/latest.pt")["G"]
    for name, p in load_released(path).named_parameters():
        assert (learned[name] - p).abs().max() < 1e-6  # one step of Adam


def test_what_is_no_released_model_is_one_line(save, tmp_path, capsys):
    path = save(Net(WIDTH).generator(False))
    whole = path.read_bytes()
    for end in (0, 3, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        assert "is damaged, or no model" in fails(load_released, path)
    for changed in (b"no model", file_of({"loss": 1.0}), whole.replace(b"Tensor", b"Thenso")):
        path.write_bytes(changed)
        assert "is damaged, or no model" in fails(load_released, path)
    assert "not one of the released" in fails(load_released, save(Net(WIDTH // 2).generator(False)))
    assert program(tmp_path, path) == 2 and capsys.readouterr().err.count("\n") == 1
    assert program(tmp_path, tmp_path / "none.t7") == 2 and "there is no checkpoint" in capsys.readouterr().err


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
