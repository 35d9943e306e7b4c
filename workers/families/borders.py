"""What lies beyond the border of a picture, with gradients that are the same at every run.

Of slices, because torch has no deterministic gradient of its own paddings by reflection and repetition on a GPU.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def mirrored(images: Tensor, border: int) -> Tensor:
    """Continue images (N, C, H, W) beyond their border as in a mirror, to (N, C, H + 2 * border, W + 2 * border)."""
    for axis in (-2, -1):
        size = images.shape[axis]
        before = images.narrow(axis, 1, border).flip(axis)
        after = images.narrow(axis, size - 1 - border, border).flip(axis)
        images = torch.cat([before, images, after], axis)
    return images


def repeated(images: Tensor, border: int) -> Tensor:
    """Continue images (N, C, H, W) beyond their border by their outermost pixels, `border` on every side."""
    for axis in (-2, -1):
        shape = list(images.shape)
        shape[axis] = border
        before = images.narrow(axis, 0, 1).expand(shape)
        after = images.narrow(axis, images.shape[axis] - 1, 1).expand(shape)
        images = torch.cat([before, images, after], axis)
    return images


class Mirrored(nn.Module):
    """`mirrored` as a layer, in the place of `nn.ReflectionPad2d`."""

    def __init__(self, border: int) -> None:
        super().__init__()
        self.border = border

    def forward(self, images: Tensor) -> Tensor:
        return mirrored(images, self.border)
