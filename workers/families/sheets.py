"""Sheets of small images from tensors: cells large enough to be seen, in rows under their captions."""

from __future__ import annotations

from collections.abc import Mapping

from PIL import Image
from torch import Tensor

from workers.families.images import to_pixels
from workers.families.pictures import captioned, lay_out, png, sheet

GAP = 2
BLOCK_GAP = 8
_MIN_CELL = 48
"""Pixels of an image's longer side in a sheet; smaller ones are enlarged."""


def cells(images: Tensor) -> list[Image.Image]:
    """Return uint8 images (N, C, H, W) as pictures, small ones enlarged by a whole number."""
    pixels = images.cpu().expand(-1, 3, -1, -1)
    zoom = max(1, -(-_MIN_CELL // max(images.shape[2:])))
    size = (images.shape[3] * zoom, images.shape[2] * zoom)
    return [Image.fromarray(to_pixels(one)).resize(size, Image.Resampling.NEAREST) for one in pixels]


def grid(images: Tensor, *, columns: int) -> bytes:
    """Return uint8 images (N, C, H, W) as one PNG."""
    return sheet(cells(images), columns=columns, gap=GAP)


def compared(rows: Mapping[str, Tensor]) -> bytes:
    """Return rows of uint8 images, (N, C, H, W) each, under their captions as one PNG."""
    blocks = [captioned(lay_out(cells(row), columns=len(row), gap=GAP), caption) for caption, row in rows.items()]
    return png(lay_out(blocks, columns=1, gap=BLOCK_GAP))
