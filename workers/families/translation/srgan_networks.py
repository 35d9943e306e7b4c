"""The networks of SRGAN (Ledig et al. 2017, figure 4), and the features that pictures are compared by.

Pictures are (N, 3, H, W) of the range of Tanh.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from workers.families.images import MEAN, STD
from workers.families.translation.networks import SLOPE
from workers.families.vgg import FrozenVgg, vgg_layers

_WIDEST = 8
_CONV5_4 = 34
"""Its place among torchvision's layers of VGG-19; its ReLU comes after."""


def enlarged(images: Tensor, scale: int) -> Tensor:
    """Return pictures enlarged by bicubic interpolation."""
    return functional.interpolate(images, scale_factor=scale, mode="bicubic")


class SrResnet(nn.Module):
    """Pictures of any size in, pictures `scale` times as wide and high out; 1,549,462 parameters as in the paper."""

    def __init__(self, *, scale: int, width: int, blocks: int, has_norm: bool, has_base: bool) -> None:
        super().__init__()
        self.scale, self.has_base = scale, has_base
        self.entry = nn.Sequential(nn.Conv2d(3, width, 9, padding=4), nn.PReLU())
        self.blocks = nn.Sequential(
            *(_Block(width, has_norm=has_norm) for _ in range(blocks)),
            nn.Conv2d(width, width, 3, padding=1),
            *_norm(width, has_norm),
        )
        ups: list[nn.Module] = []
        for _ in range(scale.bit_length() - 1):
            ups += [nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2), nn.PReLU()]
        self.exit = nn.Sequential(*ups, nn.Conv2d(width, 3, 9, padding=4))
        if has_base:
            # It begins as plain interpolation.
            last = self.exit[-1]
            assert isinstance(last, nn.Conv2d)
            assert last.bias is not None
            with torch.no_grad():
                last.weight.mul_(0.1)
                last.bias.zero_()

    def forward(self, images: Tensor) -> Tensor:
        maps = self.entry(images)
        drawn: Tensor = self.exit(maps + self.blocks(maps))
        # In fp32: what 16 bits leave of a picture is coarser than what the network adds.
        return drawn.float() + enlarged(images.float(), self.scale) if self.has_base else drawn


class _Block(nn.Module):
    def __init__(self, width: int, *, has_norm: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), *_norm(width, has_norm), nn.PReLU(),
            nn.Conv2d(width, width, 3, padding=1), *_norm(width, has_norm),
        )  # fmt: skip

    def forward(self, maps: Tensor) -> Tensor:
        changed: Tensor = self.layers(maps)
        return maps + changed


def _norm(width: int, has_norm: bool) -> list[nn.Module]:
    return [nn.BatchNorm2d(width)] if has_norm else []


class SrDiscriminator(nn.Module):
    """One logit (N, 1) for a crop: eight convolutions, every second one strided, and two dense layers."""

    def __init__(self, *, side: int, width: int, hidden: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        source = 3
        for stage in range(4):
            target = width * min(2**stage, _WIDEST)
            for stride in (1, 2):
                layers += [nn.Conv2d(source, target, 3, stride=stride, padding=1)]
                layers += [*([nn.BatchNorm2d(target)] if source != 3 else []), nn.LeakyReLU(SLOPE)]
                source = target
        cells = (side // 16) ** 2
        layers += [nn.Flatten(), nn.Linear(cells * source, hidden), nn.LeakyReLU(SLOPE), nn.Linear(hidden, 1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits


class VggFeatures(FrozenVgg):
    """What VGG-19 sees in pictures, before the ReLU of conv5_4."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__(vgg_layers("vgg19", _CONV5_4 + 1))
        self.register_buffer("mean", torch.tensor(MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.layers(((images + 1) / 2 - self.mean) / self.std)
        return features
