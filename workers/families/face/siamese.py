"""A Siamese network: one encoder for both faces of a pair (Chopra et al. 2005; Koch et al. 2015)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from workers.families.base import Placement
from workers.families.face.config import PairData, SiameseConfig
from workers.families.face.data import PairBatch, PairBatches
from workers.families.face.network import FaceNetwork
from workers.families.face.recipe import FaceRecipe

_SMALLEST = 1e-6


class Difference(nn.Module):
    """Are two embeddings of one person? A logit that falls with their distance, the same for (a, b) as for (b, a).

    One weight for the whole distance, where Koch et al. have one for each number: so the pairs that the loss tells apart
    are told apart by the similarity alone, which is what galleries compare.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(-5.0))
        self.bias = nn.Parameter(torch.tensor(3.0))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.weight * distances(first, second) + self.bias


def distances(first: Tensor, second: Tensor) -> Tensor:
    """Return the distances (N,) of embeddings (N, D); where two are the same, the gradient is zero, not infinite."""
    return (first - second).square().sum(1).clamp(min=_SMALLEST).sqrt()


class Siamese(FaceRecipe[SiameseConfig, PairBatch]):
    """Trains embeddings by which pairs are of one person."""

    is_batch_divisible = True

    @property
    def data(self) -> PairData:
        return self.config.data

    def new_head(self) -> nn.Module | None:
        return Difference() if self.config.loss.name == "bce" else None

    def train_batches(self) -> PairBatches:
        return PairBatches(self.train_faces, self.data, seed=self.config.runtime.seed)

    def to_device(self, batch: PairBatch, placement: Placement) -> PairBatch:
        return batch.to(placement, self.config.augment)

    def losses(self, network: nn.Module, batch: PairBatch, placement: Placement) -> dict[str, Tensor]:
        assert isinstance(network, FaceNetwork)
        with placement.autocast():
            embeddings = network(batch.images.flatten(0, 1))
        first, second = embeddings.reshape(-1, 2, embeddings.shape[1]).unbind(1)
        is_same = self.truth(batch).float()
        if network.head is not None:
            logits = network.head(first, second)
            return {"pairs": functional.binary_cross_entropy_with_logits(logits, is_same)}
        return {"pairs": contrastive_loss(first, second, is_same, margin=self.config.loss.margin)}

    def truth(self, batch: PairBatch) -> Tensor:
        """Return which pairs of the batch are of one person, bool (N,)."""
        return batch.is_same


def contrastive_loss(first: Tensor, second: Tensor, is_same: Tensor, *, margin: float) -> Tensor:
    """Return the mean of d^2 for one person and max(0, margin - d)^2 for two (Hadsell et al. 2006, section 2.1)."""
    distance = distances(first, second)
    return (is_same * distance.square() + (1 - is_same) * (margin - distance).clamp(min=0).square()).mean()
