"""The frozen network in whose features pictures are compared: a VGG as far as needed, by the names of its layers."""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor, nn

from workers.families.borders import repeated
from workers.families.style.config import CONVOLUTIONS, Features, layer_place
from workers.families.vgg import FrozenVgg, vgg_layers

_SEED = 0
"""Of random weights, whatever the job's own seed is: two jobs without weights are judged by the same network."""
_AVERAGE_SCALE = 2.0
"""Pooling by averages shrinks features; this much brings them back (crowsonkb/style-transfer-pytorch)."""


class _AveragePool(nn.AvgPool2d):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that the base class gives it
        return super().forward(input) * _AVERAGE_SCALE


class FeatureNetwork(FrozenVgg):
    """Normalised images (N, 3, H, W) in, the features of the layers that are asked for out, in fp32. Never trained."""

    def __init__(self, config: Features) -> None:
        places = {_index(config.network, name): name for name in (*config.content, *config.style)}
        layers = vgg_layers(config.network, max(places) + 1, width=config.width)
        super().__init__(_changed(layer, config) for layer in layers)
        self.places = places
        first = self.layers[0]
        assert isinstance(first, nn.Conv2d)
        # Rims of zeros would be a style of their own.
        self.border = int(first.padding[0]) if config.padding == "replicate" else 0
        if self.border:
            first.padding = (0, 0)
        _initialise(self)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        found = {}
        images = repeated(images, self.border) if self.border else images
        for place, layer in enumerate(self.layers):
            images = layer(images)
            if place in self.places:
                found[self.places[place]] = images.float()
        return found

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
