"""What is hidden of pictures, and pictures as networks that fill them see them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from workers.families.translation.pictures_config import Hole

FLAT = (117, 104, 123)
"""What hidden pixels are filled with, the mean of many photos (Pathak et al. 2016, the authors' code)."""
_GRAIN = 8
"""Cells a side of the noise that random regions come from."""


def centre(side: int, overlap: int) -> Tensor:
    """Return the mask (side, side) of the central half, less the border that is drawn over what is seen."""
    mask = torch.zeros(side, side, dtype=torch.bool)
    first = side // 4 + overlap
    mask[first : side - first, first : side - first] = True
    return mask


def regions(count: int, side: int, share: float, generator: torch.Generator) -> Tensor:
    """Return masks (count, side, side) of random regions of any shape: where smooth noise is highest."""
    noise = torch.rand(count, 1, _GRAIN, _GRAIN, generator=generator)
    smooth = functional.interpolate(noise, (side, side), mode="bicubic")[:, 0].flatten(1)
    hidden = max(1, round(share * side * side))
    threshold = smooth.kthvalue(side * side - hidden + 1, dim=1, keepdim=True).values
    return (smooth >= threshold).reshape(count, side, side)


def masks_of(count: int, side: int, hole: Hole, generator: torch.Generator) -> Tensor:
    """Return what is hidden of each of `count` pictures, bool (count, side, side)."""
    if hole.kind == "centre":
        return centre(side, hole.overlap).expand(count, -1, -1)
    return regions(count, side, hole.share, generator)


def hide(images: Tensor, masks: Tensor) -> Tensor:
    """Return uint8 rows (N, 4, H, W) of uint8 pictures (N, 3, H, W): hidden pixels are flat, and the last map is the mask."""
    flat = torch.tensor(FLAT, dtype=torch.uint8).reshape(1, 3, 1, 1)
    hidden = masks[:, None]
    return torch.cat([torch.where(hidden, flat, images), hidden.to(torch.uint8) * 255], 1)


def grown(hidden: Tensor, pixels: int) -> Tensor:
    """Return masks (N, 1, H, W) of 0 and 1 grown by so many pixels on all sides."""
    return functional.max_pool2d(hidden, 2 * pixels + 1, stride=1, padding=pixels) if pixels else hidden
