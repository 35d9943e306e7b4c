"""Triplets of a batch, chosen on its device from one matrix of distances."""

from __future__ import annotations

import torch
from torch import Tensor


def squared_distances(embeddings: Tensor) -> Tensor:
    """Return squared distances (N, N) of embeddings of length 1, (N, D)."""
    return (2 - 2 * embeddings @ embeddings.T).clamp(min=0)


def positive_pairs(labels: Tensor) -> Tensor:
    """Return all (anchor, positive) of one person, int64 (M, 2)."""
    is_same = labels[:, None] == labels[None]
    return is_same.fill_diagonal_(False).nonzero()


def mine(distances: Tensor, labels: Tensor, pairs: Tensor, *, mining: str, margin: float) -> Tensor:
    """Return which negatives each pair is trained with, bool (M, N).

    `distances` are squared, (N, N). Shapes depend on the batch alone, never on what is found, so that a GPU need
    not wait for the host. (Schroff et al. 2015, section 3.2; batch_hard: Hermans et al. 2017, section 2)
    """
    anchors, positives = pairs.unbind(1)
    is_other = labels[anchors][:, None] != labels[None]
    near = distances[anchors, positives][:, None]
    far = distances[anchors]
    if mining == "semi_hard":
        return is_other & (far > near) & (far - near < margin)
    if mining == "violating":
        return is_other & (far - near < margin)
    is_hardest_positive = near == _largest_by_anchor(near[:, 0], anchors, len(labels))[anchors][:, None]
    nearest = far.masked_fill(~is_other, torch.inf).amin(1, keepdim=True)
    return is_other & is_hardest_positive & (far == nearest)


def triplet_loss(distances: Tensor, pairs: Tensor, chosen: Tensor, *, margin: float) -> Tensor:
    """Return the mean over chosen triplets of max(0, near - far + margin); 0 where none is chosen."""
    anchors, positives = pairs.unbind(1)
    excess = (distances[anchors, positives][:, None] - distances[anchors] + margin).clamp(min=0)
    return (excess * chosen).sum() / chosen.sum().clamp(min=1)


def _largest_by_anchor(values: Tensor, anchors: Tensor, count: int) -> Tensor:
    return values.new_full((count,), -torch.inf).scatter_reduce(0, anchors, values, "amax")
