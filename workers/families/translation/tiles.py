"""Pictures of any size through a network of one size: tiles with borders that only help to draw their middles."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Enlarge = Callable[[Tensor], Tensor]
"""Turns tiles (N, C, tile, tile) into the same, `scale` times as wide and high."""


def by_tiles(image: Tensor, enlarge: Enlarge, *, tile: int, margin: int, scale: int) -> Tensor:
    """Return a picture (C, H, W) enlarged a tile at a time; the outermost tiles see its edge continued."""
    height, width = image.shape[-2:]
    middle = tile - 2 * margin
    rows, columns = -(-height // middle), -(-width // middle)
    bottom, right = rows * middle - height, columns * middle - width
    padded = functional.pad(image[None], (margin, margin + right, margin, margin + bottom), mode="replicate")
    windows = padded[0].unfold(1, tile, middle).unfold(2, tile, middle)
    drawn = enlarge(windows.permute(1, 2, 0, 3, 4).reshape(-1, image.shape[0], tile, tile))
    first, last = scale * margin, scale * (margin + middle)
    middles = drawn[:, :, first:last, first:last].reshape(rows, columns, -1, scale * middle, scale * middle)
    whole = middles.permute(2, 0, 3, 1, 4).reshape(-1, rows * scale * middle, columns * scale * middle)
    return whole[:, : scale * height, : scale * width]


def shrunk(images: Tensor, scale: int) -> Tensor:
    """Return uint8 pictures (N, C, H, W) made small by bicubic interpolation that looks at every pixel."""
    height, width = (length // scale for length in images.shape[-2:])
    small = functional.interpolate(images.float(), (height, width), mode="bicubic", antialias=True)
    return small.round().clamp(0, 255).to(torch.uint8)
