"""Patches of images and which of them are hidden. Patches are counted row by row; pixels of one are (p, q, c)."""

from __future__ import annotations

import torch
from torch import Tensor

_LEAST_VARIANCE = 1e-6


def to_patches(images: Tensor, patch: int) -> Tensor:
    """Cut images (N, C, H, W) into patches (N, L, p * p * C)."""
    count, channels, height, width = images.shape
    grid = images.reshape(count, channels, height // patch, patch, width // patch, patch)
    return grid.permute(0, 2, 4, 3, 5, 1).reshape(count, -1, patch * patch * channels)


def to_images(patches: Tensor, patch: int, size: tuple[int, int]) -> Tensor:
    """Put patches (N, L, p * p * C) together into images (N, C, H, W)."""
    rows, columns = size[0] // patch, size[1] // patch
    grid = patches.reshape(len(patches), rows, columns, patch, patch, -1)
    return grid.permute(0, 5, 1, 3, 2, 4).reshape(len(patches), -1, *size)


def moments(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Return each patch's mean and standard deviation over its pixels, (N, L, 1)."""
    mean = patches.mean(-1, keepdim=True)
    return mean, (patches.var(-1, keepdim=True) + _LEAST_VARIANCE).sqrt()


def seen_first(noise: Tensor, num_seen: int) -> tuple[Tensor, Tensor]:
    """Return the places of seen patches (N, K) and which are hidden (N, L): the patches of least noise (N, L) are seen."""
    seen = noise.argsort(1)[:, :num_seen]
    hidden = torch.ones_like(noise, dtype=torch.bool).scatter_(1, seen, torch.zeros_like(seen, dtype=torch.bool))
    return seen, hidden
