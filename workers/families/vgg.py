"""The convolutions of torchvision's VGG as a frozen network, in whose features pictures are compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Self

from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

from workers.families.transfer import copy_weights

_PLANS = {"vgg16": "D", "vgg19": "E"}
"""By the letters of table 1 of Simonyan and Zisserman (2015), which torchvision uses."""
_PREFIX = "features."


def vgg_layers(network: str, count: int, *, width: float = 1.0) -> list[nn.Module]:
    """Return the first `count` layers of `vgg16` or `vgg19` with fresh weights and that share of the channels."""
    plan = [one if isinstance(one, str) else round(one * width) for one in cfgs[_PLANS[network]]]
    return list(make_layers(plan))[:count]


class FrozenVgg(nn.Module):
    """Layers of a VGG, one after the other, that never learn. How pictures go through them is each family's own."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        del mode
        return super().train(False)

    def load(self, tensors: Mapping[str, Tensor], *, name: str) -> None:
        """Take weights by torchvision's names, `features.0.weight`; those of layers beyond the last one are left.

        Raises:
            SourceUnfit: a layer is missing or has another shape.
        """
        known = any(key.startswith(_PREFIX) for key in tensors)
        own = {
            key.removeprefix(_PREFIX): value for key, value in tensors.items() if not known or key.startswith(_PREFIX)
        }
        fitting = {key: value for key, value in own.items() if _is_within(key, len(self.layers))}
        copy_weights(self.layers.state_dict(), fitting, name=name)


def _is_within(key: str, count: int) -> bool:
    place = key.partition(".")[0]
    return not place.isdecimal() or int(place) < count
