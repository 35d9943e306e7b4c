"""How far pictures of the range of Tanh, (N, C, H, W), are apart: from their targets, or as two heaps of pictures."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from workers.families.similarity import structural_similarity

_RANGE = 2.0
_PATCH, _DIRECTIONS, _MOST_PATCHES = 7, 128, 65_536
_SEED = 1_000_003


def l1(one: Tensor, other: Tensor) -> Tensor:
    """Return the mean absolute difference of each pair, (N,)."""
    return (one - other).abs().flatten(1).mean(1)


def psnr(one: Tensor, other: Tensor) -> Tensor:
    """Return the ratio of peak to noise of each pair in decibels, (N,); at most 100, which equal pictures have."""
    return psnr_of((one - other).double().square().flatten(1).mean(1))


def psnr_of(error: Tensor) -> Tensor:
    """Return the ratio of peak to noise for mean squared errors, (N,)."""
    return (10 * torch.log10(_RANGE**2 / error)).clamp(max=100)


def ssim(one: Tensor, other: Tensor) -> Tensor:
    """Return the structural similarity of each pair, (N,)."""
    return structural_similarity(one, other, data_range=_RANGE)


def colourfulness(images: Tensor) -> Tensor:
    """Return how much colour each picture shows, (N,): 0 of grey ones (Hasler and Suesstrunk 2003, equation 5).

    Its unit is the range of Tanh: 127.5 times as much is theirs.
    """
    red, green, blue = images.flatten(2).unbind(1)
    opponents = torch.stack([red - green, (red + green) / 2 - blue])
    spread, middle = opponents.std(2, correction=0), opponents.mean(2)
    shown: Tensor = torch.linalg.vector_norm(spread, dim=0) + 0.3 * torch.linalg.vector_norm(middle, dim=0)
    return shown


def sliced_distance(real: Tensor, fake: Tensor) -> float:
    """Return how far the patches of two heaps of pictures are apart: the sliced Wasserstein distance.

    As Karras et al. (2018), section 5, have it, at one scale and of patches as they are: colours count here. Patches of
    7 x 7 are cast on random directions, on each of which the distance is that of the sorted values. In units of the range
    of Tanh; 0 for equal heaps, and comparable between trainings on pictures of one size.
    """
    generator = torch.Generator().manual_seed(_SEED)
    directions = torch.randn(real.shape[1] * _PATCH**2, _DIRECTIONS, generator=generator)
    directions = functional.normalize(directions, dim=0)
    one, other = (_cast(images.cpu(), directions) for images in (real, fake))
    count = min(len(one), len(other))
    one, other = (_quantiles(values, count) for values in (one, other))
    return float((one - other).abs().mean())


def _cast(images: Tensor, directions: Tensor) -> Tensor:
    """Return where patches lie on each direction, sorted, (M, directions)."""
    generator = torch.Generator().manual_seed(_SEED)
    patches_each = max(1, _MOST_PATCHES // len(images))
    height, width = (length - _PATCH + 1 for length in images.shape[2:])
    kept = []
    for image in images.float():
        places = torch.randperm(height * width, generator=generator)[:patches_each]
        patches = functional.unfold(image[None], _PATCH)[0].T
        kept.append(patches[places] @ directions)
    return torch.cat(kept).sort(dim=0).values


def _quantiles(values: Tensor, count: int) -> Tensor:
    """Return `count` values at even distances of sorted ones."""
    return values[torch.linspace(0, len(values) - 1, count).round().long()]


def mean(values: list[Tensor]) -> float:
    """Return the mean of batches of figures (N,)."""
    return float(torch.cat(values).double().mean()) if values else math.nan
