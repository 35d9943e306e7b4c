"""A softmax over people with a margin in angle (Deng et al. 2019, section 3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

_SMALLEST = 1e-7


class ArcFace(nn.Module):
    """One direction a person."""

    def __init__(self, dim: int, num_people: int) -> None:
        super().__init__()
        self.directions = nn.Parameter(torch.empty(num_people, dim))
        nn.init.normal_(self.directions, std=0.01)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return cosines (N, K) of embeddings of length 1, (N, D)."""
        return embeddings @ functional.normalize(self.directions.float()).T


def arcface_loss(cosines: Tensor, labels: Tensor, *, scale: float, margin: float) -> Tensor:
    """Return the mean cross entropy of the scaled cosines (N, K), the right person's with the margin on its angle.

    Beyond pi - margin the cosine of the larger angle would grow again; from there on a line goes on falling.
    """
    right = cosines.gather(1, labels[:, None])
    sines = (1 - right.square()).clamp(min=_SMALLEST).sqrt()
    widened = right * math.cos(margin) - sines * math.sin(margin)
    fallen = right - margin * math.sin(math.pi - margin)
    harder = torch.where(right > math.cos(math.pi - margin), widened, fallen)
    return functional.cross_entropy(scale * cosines.scatter(1, labels[:, None], harder), labels)
