"""Context encoders (Pathak et al. 2016, section 3): all that is seen of a picture in one vector, and from it what is missing.

As in the authors' published code the vector comes from a convolution over all of the smallest maps, where the paper has
a channel-wise fully connected layer.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from workers.families.adversarial import small_weights
from workers.families.translation.networks import SLOPE
from workers.families.translation.pictures_config import SMALLEST

SEEN = 4
"""Maps of a row: the picture with what is hidden filled in flatly, and where that is, 1, or -1."""
_WIDEST = 8


class ContextEncoder(nn.Module):
    """Rows (N, 4, side, side) in, a canvas (N, 3, side, side) out, drawn in its central half or all over."""

    def __init__(self, *, side: int, width: int, bottleneck: int, is_centre: bool) -> None:
        super().__init__()
        # Where the hole always lies in one place nobody needs to be told.
        self.channels = 3 if is_centre else SEEN
        self.border = side // 4 if is_centre else 0
        widths = [width * min(max(1, 2 ** (stage - 1)), _WIDEST) for stage in range(_halvings(side))]
        layers: list[nn.Module] = []
        for place, (source, target) in enumerate(zip([self.channels, *widths], widths, strict=False)):
            layers += [nn.Conv2d(source, target, 4, stride=2, padding=1)]
            layers += [*([nn.BatchNorm2d(target)] if place else []), nn.LeakyReLU(SLOPE)]
        layers += [nn.Conv2d(widths[-1], bottleneck, SMALLEST), nn.BatchNorm2d(bottleneck), nn.LeakyReLU(SLOPE)]
        doublings = _halvings(side - 2 * self.border)
        widths = [width * min(2**stage, _WIDEST) for stage in reversed(range(doublings))]
        layers += [nn.ConvTranspose2d(bottleneck, widths[0], SMALLEST), nn.BatchNorm2d(widths[0]), nn.ReLU()]
        for source, target in pairwise(widths):
            layers += [nn.ConvTranspose2d(source, target, 4, stride=2, padding=1), nn.BatchNorm2d(target), nn.ReLU()]
        layers += [nn.ConvTranspose2d(widths[-1], 3, 4, stride=2, padding=1), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        self.apply(small_weights)

    def forward(self, rows: Tensor) -> Tensor:
        drawn = self.layers(rows[:, : self.channels])
        return functional.pad(drawn, [self.border] * 4)


class Filled(nn.Module):
    """Rows in, pictures out: the canvas where something is hidden, and what was seen everywhere else."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, rows: Tensor) -> Tensor:
        return fill(rows, self.network(rows))


def fill(rows: Tensor, canvas: Tensor) -> Tensor:
    """Return pictures whose hidden parts come from a canvas."""
    return torch.where(rows[:, 3:] > 0, canvas.to(rows.dtype), rows[:, :3])


class HoleDiscriminator(nn.Module):
    """One logit (N, 1) for a picture of the side that is drawn (section 3.2; the authors' code)."""

    def __init__(self, *, side: int, width: int) -> None:
        super().__init__()
        widths = [width * min(2**stage, _WIDEST) for stage in range(_halvings(side))]
        layers: list[nn.Module] = []
        for place, (source, target) in enumerate(zip([3, *widths], widths, strict=False)):
            layers += [nn.Conv2d(source, target, 4, stride=2, padding=1)]
            layers += [*([nn.BatchNorm2d(target)] if place else []), nn.LeakyReLU(SLOPE)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, SMALLEST), nn.Flatten())
        self.apply(small_weights)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits


def _halvings(side: int) -> int:
    """Return how often a side is halved until the smallest maps are reached."""
    return (side // SMALLEST).bit_length() - 1
