"""The models that the paper's authors released, as the nets of nets.py.

Their files are what `main.lua` and `main_conditional.lua` save: a tree of layers, in the order in which nets.py has
them, with weights of the same layout. Only the discriminator's two classes are the other way round.
"""

import numpy as np
import torch
from torch import nn

from data import InputError
from run.flags import RunError
from run.folder import reason
from videogan.nets import Discriminator, Generator
from videogan.torch7 import Reader

NAMES = {nn.Conv2d: "SpatialConvolution", nn.ConvTranspose2d: "SpatialFullConvolution",
         nn.BatchNorm2d: "SpatialBatchNormalization", nn.Conv3d: "VolumetricConvolution",
         nn.ConvTranspose3d: "VolumetricFullConvolution", nn.BatchNorm3d: "VolumetricBatchNormalization"}


@torch.no_grad()
def load_released(path):
    """The net that a released file holds: a Generator or a Discriminator, conditional or not. RunError or InputError
    where there is none."""
    try:
        found = weighted(Reader(np.memmap(path, np.uint8, "r").view(np.ndarray)).read())
        shapes = [(layer.kind, layer.fields["weight"].shape) for layer in found]
        for build in (Generator, Discriminator):
            for conditional in (False, True):
                with torch.device("meta"):  # which has shapes, but no memory
                    layers = layers_of(build(conditional=conditional))
                if shapes == [(NAMES[type(layer)], tuple(layer.weight.shape)) for layer in layers]:
                    return fill(build(conditional=conditional), [layer.fields for layer in found])
    except OSError as error:
        raise RunError(f"cannot load '{path}': {reason(error)}", code=2) from error
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:  # as damaged files may end
        raise InputError(f"cannot load '{path}': it is damaged, or no model of the released VideoGAN") from error
    raise InputError(f"'{path}' holds a model that is not one of the released VideoGAN")


def weighted(module):
    """The layers of a Module that have weights, in their order."""
    if "weight" in module.fields:
        return [module]
    parts = module.fields.get("modules", {})
    return [layer for k in sorted(parts) for layer in weighted(parts[k])]


def layers_of(net):
    """Its layers that have weights, in their order, which is the released one."""
    return [layer for layer in net.modules() if type(layer) in NAMES]


def fill(net, found):
    """Give a net's layers the weights and statistics in `found`, the released layers' fields. Returns the net."""
    for layer, fields in zip(layers_of(net), found, strict=True):
        if hasattr(layer, "eps"):
            layer.eps = fields["eps"]
        if "running_std" in fields:  # of older versions: 1 / sqrt(var + eps)
            fields["running_var"] = fields["running_std"] ** -2.0 - layer.eps
        for name in ("weight", "bias", "running_mean", "running_var"):
            if hasattr(layer, name):
                value = torch.from_numpy(fields[name].astype(np.float32))
                if value.shape != getattr(layer, name).shape:
                    raise ValueError(f"a {name} of shape {tuple(value.shape)}")
                getattr(layer, name).copy_(value)
    if isinstance(net, Discriminator):  # whose classes are the other way round
        for x in (net.classify.weight, net.classify.bias):
            x.copy_(x.flip(0))
    return net
