"""From encoded bytes to the square tensor a network sees, and back to the pixels of the sent image.

Training, evaluation and serving all fit with these functions and no others.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from workers.families.images import decode_opened, open_image

FILL = (124, 116, 104)
"""Colour around a fitted image: the mean, so that after normalisation it is nearly zero."""
_FILL = torch.tensor(FILL, dtype=torch.uint8)[:, None, None]


@dataclass(frozen=True, slots=True)
class Fit:
    """How an image of `height` x `width` lies in the square: scaled, then shifted."""

    height: int
    width: int
    scale_x: float
    scale_y: float
    left: int
    top: int

    @property
    def inner(self) -> tuple[int, int]:
        """Return height and width of the image inside the square."""
        return round(self.height * self.scale_y), round(self.width * self.scale_x)

    def to_square(self, boxes: Tensor) -> Tensor:
        """Move xyxy boxes from the image into the square."""
        scales, shifts, _ = self._corners(boxes)
        return boxes * scales + shifts

    def to_image(self, boxes: Tensor) -> Tensor:
        """Move xyxy boxes from the square into the image and cut them at its border."""
        scales, shifts, limits = self._corners(boxes)
        return ((boxes - shifts) / scales).clamp(min=0).minimum(limits)

    def _corners(self, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return scales, shifts and limits of xyxy, (4,) each."""
        x = (self.scale_x, self.left, self.width)
        y = (self.scale_y, self.top, self.height)
        # One tensor, not three: to make one takes longer than to compute with it.
        scales, shifts, limits = boxes.new_tensor([x, y, x, y]).unbind(1)
        return scales, shifts, limits


def fit(height: int, width: int, size: int) -> Fit:
    """Return the largest centred placement of an image that keeps its shape."""
    scale = size / max(height, width)
    inner_height, inner_width = max(1, round(height * scale)), max(1, round(width * scale))
    return Fit(
        height=height,
        width=width,
        scale_x=inner_width / width,
        scale_y=inner_height / height,
        left=(size - inner_width) // 2,
        top=(size - inner_height) // 2,
    )


def letterbox(image: Tensor, size: int, *, placed: Fit | None = None) -> tuple[Tensor, Fit]:
    """Fit a uint8 image (3, H, W) into a square of `size`, filling the rest.

    `placed` says where it goes when the image was decoded smaller than it is.
    """
    placed = placed or fit(image.shape[-2], image.shape[-1], size)
    inner_height, inner_width = placed.inner
    if (inner_height, inner_width) != tuple(image.shape[-2:]):
        image = functional.interpolate(image[None], (inner_height, inner_width), mode="bilinear", antialias=True)[0]
    if (inner_height, inner_width) == (size, size):
        return image, placed
    square = _FILL.expand(3, size, size).clone()
    square[:, placed.top : placed.top + inner_height, placed.left : placed.left + inner_width] = image
    return square, placed


def read_square(data: bytes, size: int, *, upright: bool = True) -> tuple[Tensor, Fit]:
    """Decode an image and fit it into a square; large JPEGs are decoded no finer than needed.

    Raises:
        ImageInvalid: see `images.decode`.
    """
    header = open_image(data)
    inner_height, inner_width = fit(header.height, header.width, size).inner
    image, (height, width) = decode_opened(header, upright=upright, draft=(inner_width, inner_height))
    return letterbox(image, size, placed=fit(height, width, size))
