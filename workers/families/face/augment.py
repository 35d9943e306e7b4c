"""Random changes of a whole batch of faces: mirror, turn, brightness and a blanked rectangle.

`draw` decides on the host from a generator alone; `render` applies it on the images' device.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from workers.families.face.config import Augment
from workers.families.images import normalise_

_NUM_DRAWS = 8
_SMALLEST, _LARGEST = 0.2, 0.5
"""Sides of a blanked rectangle, of the image's."""


def draw(num_images: int, generator: torch.Generator) -> Tensor:
    """Draw the changes of a batch: uniform numbers, one row an image."""
    return torch.rand((num_images, _NUM_DRAWS), generator=generator)


def render(images: Tensor, drawn: Tensor, config: Augment) -> Tensor:
    """Return uint8 faces (N, 3, S, S) changed as drawn and normalised for the network."""
    mirror, turn, light, is_erased, *rectangle = drawn.unbind(1)
    pixels = images.float()
    if config.brightness > 1:
        factor = torch.exp((2 * light - 1) * math.log(config.brightness))
        pixels = (pixels * factor[:, None, None, None]).clamp_(0, 255)
    pixels = normalise_(pixels)
    if config.turn_degrees > 0 or config.flip > 0:
        angle = (2 * turn - 1) * math.radians(config.turn_degrees)
        sign = torch.where(mirror < config.flip, -1.0, 1.0)
        # Zeros from outside are the mean colour.
        pixels = functional.grid_sample(pixels, _grid(angle, sign, pixels.shape[-1]), align_corners=False)
    if config.erasing > 0:
        hole = (
            _rectangles(torch.stack(rectangle, dim=1), pixels.shape[-1]) & (is_erased < config.erasing)[:, None, None]
        )
        pixels = pixels.masked_fill(hole[:, None], 0.0)
    return pixels


def _grid(angle: Tensor, sign: Tensor, size: int) -> Tensor:
    """Return where each pixel comes from, (N, S, S, 2): first mirrored, then turned about the middle."""
    cosine, sine, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    rows = [torch.stack([sign * cosine, -sign * sine, zero], 1), torch.stack([sine, cosine, zero], 1)]
    return functional.affine_grid(torch.stack(rows, 1), [len(angle), 3, size, size], align_corners=False)


def _rectangles(drawn: Tensor, size: int) -> Tensor:
    """Return masks (N, S, S) of rectangles inside the image, from uniform numbers (N, 4)."""
    side = _SMALLEST + (_LARGEST - _SMALLEST) * drawn[:, :2]
    start = drawn[:, 2:] * (1 - side)
    line = (torch.arange(size, device=drawn.device) + 0.5) / size
    x, y = ((line >= start[:, axis, None]) & (line < (start + side)[:, axis, None]) for axis in (0, 1))
    return y[:, :, None] & x[:, None, :]
