"""The terms of style transfer: features, Gram matrices and total variation (Gatys et al. 2016, section 2).

Everything is a mean, so that the weights hold for every size: of features over their elements, of Gram matrices
X X^T / (C H W) over theirs, as in "Dive into Deep Learning", section 14.12.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional


def gram(features: Tensor) -> Tensor:
    """Return how channels go together, wherever they do: (N, C, H, W) to (N, C, C), over C H W."""
    count, channels, height, width = features.shape
    rows = features.reshape(count, channels, height * width)
    return rows @ rows.transpose(1, 2) / (channels * height * width)


def total_variation(images: Tensor) -> Tensor:
    """Return half the mean absolute difference of neighbours, down and across."""
    down = (images[..., 1:, :] - images[..., :-1, :]).abs().mean()
    across = (images[..., 1:] - images[..., :-1]).abs().mean()
    return 0.5 * (down + across)


def content_distance(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], layers: Sequence[str]) -> Tensor:
    """Return the mean squared difference of features, summed over layers."""
    return torch.stack([functional.mse_loss(ours[name], theirs[name]) for name in layers]).sum()


def style_distance(ours: Mapping[str, Tensor], grams: Mapping[str, Tensor], layers: Sequence[str]) -> Tensor:
    """Return the mean squared difference of Gram matrices, summed over layers, in the mean over samples.

    `grams` hold one matrix (C, C) a layer.
    """
    return torch.stack([(gram(ours[name]) - grams[name]).square().mean() for name in layers]).sum()


def mean_grams(pictures: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean (C, C) of each layer's Gram matrices (1, C, C) over pictures; nothing of none."""
    if not pictures:
        return {}
    return {name: torch.cat([grams[name] for grams in pictures]).mean(0) for name in pictures[0]}
