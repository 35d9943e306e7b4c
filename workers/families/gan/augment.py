"""DiffAugment (Zhao et al. 2020): differentiable changes of whole batches, drawn anew for every image.

Real and generated images pass the same kinds of change, so the generator never learns to draw them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from workers.families.gan.config import Augment


def diff_augment(images: Tensor, config: Augment) -> Tensor:
    """Change images (N, C, H, W) at random, with draws from the device's global generator."""
    if config.colour:
        images = _recolour(images)
    if config.translation > 0:
        images = _translate(images, config.translation)
    if config.cutout > 0:
        images = _cut_out(images, config.cutout)
    return images


def _recolour(images: Tensor) -> Tensor:
    brightness, saturation, contrast = torch.rand(3, len(images), 1, 1, 1, device=images.device, dtype=images.dtype)
    images = images + (brightness - 0.5)
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * (2 * saturation)
    middle = images.mean((1, 2, 3), keepdim=True)
    changed: Tensor = middle + (images - middle) * (contrast + 0.5)
    return changed


def _translate(images: Tensor, most: float) -> Tensor:
    """Shift by whole pixels; what comes in from outside is 0, the middle of the range."""
    count, _, height, width = images.shape
    rows, columns = (_places(length, count, images.device) for length in (height, width))
    down, right = (_draw(round(length * most), count, images.device) for length in (height, width))
    padded = functional.pad(images, (1, 1, 1, 1))
    # Index 0 and the last are the border of zeros.
    rows, columns = (rows + down + 1).clamp(0, height + 1), (columns + right + 1).clamp(0, width + 1)
    sample = torch.arange(count, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _cut_out(images: Tensor, side: float) -> Tensor:
    count, _, height, width = images.shape
    is_inside = images.new_ones(count, 1, height, width)
    hidden = []
    for length in (height, width):
        size = round(length * side)
        middle = torch.randint(0, length + (1 - size % 2), (count, 1), device=images.device)
        distance = _places(length, count, images.device) - middle + size // 2
        hidden.append((distance >= 0) & (distance < size))
    blank = hidden[0][:, None, :, None] & hidden[1][:, None, None, :]
    return images * (is_inside - blank.to(images.dtype))


def _places(length: int, count: int, device: torch.device) -> Tensor:
    return torch.arange(length, device=device).expand(count, -1)


def _draw(most: int, count: int, device: torch.device) -> Tensor:
    return torch.randint(-most, most + 1, (count, 1), device=device)
