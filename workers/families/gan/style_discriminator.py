"""StyleGAN2's discriminator: residual, blurred before every stride, and told how much a batch varies."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from workers.families.gan.config import StyleModel
from workers.families.gan.discriminators import Discriminator
from workers.families.gan.style import Blur, EqualConv, EqualLinear, activate, style_channels

GROUP = 4
"""Samples whose spread is measured together (Karras et al. 2018, section 3)."""


class StyleDiscriminator(Discriminator):
    """From the image's side down to 4 x 4, two convolutions and a skip at each."""

    def __init__(self, model: StyleModel, *, size: int, channels: int) -> None:
        super().__init__()
        sides = [size // 2**n for n in range(int(math.log2(size)) - 1)]
        widths = [style_channels(model, side) for side in sides]
        self.first = EqualConv(channels, widths[0], 1)
        self.blocks = nn.ModuleList(_Residual(wide, narrow) for wide, narrow in itertools.pairwise(widths))
        self.joined = EqualConv(widths[-1] + 1, widths[-1], 3)
        self.hidden = EqualLinear(widths[-1] * 16, widths[-1])
        self.last = EqualLinear(widths[-1], 1)

    def forward(self, samples: Tensor, labels: Tensor | None = None) -> Tensor:
        maps = activate(self.first(samples))
        for block in self.blocks:
            maps = block(maps)
        maps = activate(self.joined(torch.cat([maps, spread_map(maps)], 1)))
        logits: Tensor = self.last(activate(self.hidden(maps.flatten(1))))
        return logits[:, 0]


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.plain = EqualConv(inputs, inputs, 3)
        self.strided = nn.Sequential(Blur(pad=(2, 2)), EqualConv(inputs, outputs, 3, stride=2))
        self.skip = nn.Sequential(Blur(pad=(1, 1)), EqualConv(inputs, outputs, 1, stride=2, bias=False))

    def forward(self, maps: Tensor) -> Tensor:
        out = activate(self.strided(activate(self.plain(maps))))
        # Both terms have unit scale; their sum keeps it.
        total: Tensor = (out + self.skip(maps)) / math.sqrt(2)
        return total


def spread_map(maps: Tensor) -> Tensor:
    """Return one map (N, 1, H, W): the mean deviation within the group a sample belongs to.

    Groups are made of samples a group apart. A batch that GROUP does not divide is one group.
    """
    count, *shape = maps.shape
    size = GROUP if count % GROUP == 0 else count
    groups = maps.reshape(size, -1, *shape).float()
    deviation = (groups.var(0, correction=0) + 1e-8).sqrt().mean((1, 2, 3))
    return deviation.repeat(size).reshape(count, 1, 1, 1).expand(-1, -1, *shape[1:]).to(maps.dtype)
