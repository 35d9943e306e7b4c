"""The frozen network in whose features pictures are compared: the convolutions of torchvision's VGG, as far as needed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

from workers.families.borders import repeated
from workers.families.style.config import CONVOLUTIONS, Features, layer_place
from workers.families.transfer import copy_weights

_PLANS = {"vgg16": "D", "vgg19": "E"}
"""By the letters of the paper's table 1, which torchvision uses."""
_SEED = 0
"""Of random weights, whatever the job's own seed is: two jobs without weights are judged by the same network."""
_PREFIX = "features."
_AVERAGE_SCALE = 2.0
"""Pooling by averages shrinks features; this much brings them back (crowsonkb/style-transfer-pytorch)."""


class _AveragePool(nn.AvgPool2d):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that the base class gives it
        return super().forward(input) * _AVERAGE_SCALE


class FeatureNetwork(nn.Module):
    """Normalised images (N, 3, H, W) in, the features of the layers that are asked for out, in fp32. Never trained."""

    def __init__(self, config: Features) -> None:
        super().__init__()
        self.places = {_index(config.network, name): name for name in (*config.content, *config.style)}
        plan = [one if isinstance(one, str) else round(one * config.width) for one in cfgs[_PLANS[config.network]]]
        layers = list(make_layers(plan))[: max(self.places) + 1]
        self.layers = nn.Sequential(*(_changed(layer, config) for layer in layers))
        first = self.layers[0]
        assert isinstance(first, nn.Conv2d)
        # Rims of zeros would be a style of their own.
        self.border = int(first.padding[0]) if config.padding == "replicate" else 0
        if self.border:
            first.padding = (0, 0)
        _initialise(self)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        found = {}
        images = repeated(images, self.border) if self.border else images
        for place, layer in enumerate(self.layers):
            images = layer(images)
            if place in self.places:
                found[self.places[place]] = images.float()
        return found

    def train(self, mode: bool = True) -> FeatureNetwork:
        del mode
        return super().train(False)

    def load(self, tensors: Mapping[str, Tensor], *, name: str) -> None:
        """Take weights by torchvision's names, `features.0.weight`; those of layers beyond the last one are left.

        Raises:
            SourceUnfit: a layer is missing or has another shape.
        """
        known = any(key.startswith(_PREFIX) for key in tensors)
        own = {key.removeprefix(_PREFIX): value for key, value in tensors.items() if not known or key[:9] == _PREFIX}
        fitting = {key: value for key, value in own.items() if _is_within(key, len(self.layers))}
        copy_weights(self.layers.state_dict(), fitting, name=name)

    def digest(self) -> str:
        """Return what tells weights apart, since only figures of the same ones can be compared."""
        digest = hashlib.sha256()
        for value in self.layers.state_dict().values():
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:8]


def _index(network: str, name: str) -> int:
    """Return the place of a ReLU among torchvision's layers: each convolution has one, each stage ends in a pool."""
    stage, number = layer_place(name)
    before = sum(2 * count + 1 for count in CONVOLUTIONS[network][: stage - 1])
    return before + 2 * number - 1


def _is_within(key: str, count: int) -> bool:
    place = key.partition(".")[0]
    return not place.isdecimal() or int(place) < count


def _changed(layer: nn.Module, config: Features) -> nn.Module:
    if isinstance(layer, nn.ReLU):
        # In place it would change what the layer before it gave, which the graph still needs where that is a pool.
        return nn.ReLU()
    if isinstance(layer, nn.MaxPool2d) and config.pool == "average":
        return _AveragePool(2)
    return layer


@torch.no_grad()
def _initialise(network: nn.Module) -> None:
    """Draw weights by the rule of He et al. 2015 from a seed of their own."""
    generator = torch.Generator().manual_seed(_SEED)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and layer.bias is not None:
            deviation = math.sqrt(2.0 / (layer.in_channels * math.prod(layer.kernel_size)))
            layer.weight.normal_(0.0, deviation, generator=generator)
            layer.bias.zero_()
