"""How an image is seen: its middle square, scaled; the same in training, evaluation and serving.

Apart from the augmentation, whose library imports a compiler that a serving process does without.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from workers.families.classification.config import Data
from workers.families.images import normalise_

GREY = (0.299, 0.587, 0.114)
"""Luma of ITU-R BT.601, as Pillow weighs colours."""


def to_square(image: Tensor, data: Data) -> Tensor:
    """Cut the middle square of a uint8 image (3, H, W) and scale it: (C, stored_size, stored_size)."""
    height, width = image.shape[-2:]
    side, size = min(height, width), data.stored_size
    top, left = (height - side) // 2, (width - side) // 2
    square = image[:, top : top + side, left : left + side]
    if side != size:
        square = functional.interpolate(square[None], (size, size), mode="bilinear", antialias=True)[0]
    if data.channels == 1:
        weights = torch.tensor(GREY)[:, None, None]
        square = (square * weights).sum(0, keepdim=True).round().to(torch.uint8)
    return square


def central(squares: Tensor, data: Data) -> Tensor:
    """Return the middle of stored squares (N, C, R, R) as evaluation and serving see it, (N, C, S, S)."""
    start = (data.stored_size - data.image_size) // 2
    return squares[..., start : start + data.image_size, start : start + data.image_size]


def to_input(images: Tensor) -> Tensor:
    """Turn float images from 0 to 1 into what networks see: grey as it is, colour normalised."""
    return images if images.shape[1] == 1 else normalise_(images * 255)
