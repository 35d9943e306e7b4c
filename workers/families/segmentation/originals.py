"""Weights of others for this FCN: torchvision's VGG-16, and the original ones by the names of their port to PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from workers.families.images import MEAN, STD
from workers.families.segmentation.config import FcnModel

_CAFFE_MEAN = (122.67891434, 116.66876762, 104.00698793)
"""Of red, green and blue from 0 to 255: subtracted from what the original networks see, as blue, green and red."""
_SCORES = {
    "32s": {"last": "upscore"},
    "16s": {"skips.0": "score_pool4", "doubles.0": "upscore2", "last": "upscore16"},
    "8s": {
        "skips.0": "score_pool4",
        "skips.1": "score_pool3",
        "doubles.0": "upscore2",
        "doubles.1": "upscore_pool4",
        "last": "upscore8",
    },
}


def renamed(tensors: Mapping[str, Tensor], network: nn.Module, model: FcnModel) -> Mapping[str, Tensor]:
    """Return tensors by the names and in the shapes that they have in `network`, an FCN of `model`.

    Torchvision's (`features.0.weight`) become body and hidden layers. The original ones, by the names of
    wkentaro/pytorch-fcn (`conv1_1.weight`), become what they are of, and their first layer takes inputs as here
    instead of blue, green and red less their means; at the border, where both pad with zeros, that is off by the
    small distance of the means. Others pass.
    """
    convolutions = list(_convolutions(network, model))
    if "features.0.weight" in tensors:
        places = sorted({int(name.split(".")[1]) for name in tensors if name.startswith("features.")})
        names = {ours: f"features.{place}" for (ours, _), place in zip(convolutions, places, strict=False)}
        return _taken(tensors, network, names | {"hidden.0": "classifier.0", "hidden.3": "classifier.3"})
    if "conv1_1.weight" not in tensors:
        return tensors
    variant = next((name for name, scores in _SCORES.items() if f"{scores['last']}.weight" in tensors), "32s")
    names = dict(convolutions) | {"hidden.0": "fc6", "hidden.3": "fc7", "score": "score_fr"} | _SCORES[variant]
    found = _taken(tensors, network, names)
    return found | _seeing_inputs_as_here(found, convolutions[0][0])


def _convolutions(network: nn.Module, model: FcnModel) -> Iterator[tuple[str, str]]:
    """Yield the path of each of the body's convolutions here, and its original name."""
    for stage, part in enumerate(network.get_submodule("stages").children()):
        layers = (name for name, layer in part.named_children() if isinstance(layer, nn.Conv2d))
        for number, layer in enumerate(layers, start=1):
            yield f"stages.{stage}.{layer}", f"conv{stage + 1}_{number}"


def _taken(tensors: Mapping[str, Tensor], network: nn.Module, names: Mapping[str, str]) -> dict[str, Tensor]:
    """Return the tensors of layers by our names; linear layers over a map become convolutions of its size."""
    own = network.state_dict()
    found = {}
    for ours, theirs in names.items():
        for kind in ("weight", "bias"):
            value, here = tensors.get(f"{theirs}.{kind}"), own.get(f"{ours}.{kind}")
            if value is not None:
                is_linear = here is not None and value.ndim == 2 and value.numel() == here.numel()
                found[f"{ours}.{kind}"] = value.reshape(here.shape) if is_linear and here is not None else value
    return found


def _seeing_inputs_as_here(tensors: Mapping[str, Tensor], first: str) -> dict[str, Tensor]:
    weight = tensors[f"{first}.weight"].flip(1)
    scale = 255 * torch.tensor(STD, dtype=weight.dtype)
    shift = 255 * torch.tensor(MEAN, dtype=weight.dtype) - torch.tensor(_CAFFE_MEAN, dtype=weight.dtype)
    bias = tensors[f"{first}.bias"] + torch.einsum("ochw,c->o", weight, shift)
    return {f"{first}.weight": weight * scale[None, :, None, None], f"{first}.bias": bias}
