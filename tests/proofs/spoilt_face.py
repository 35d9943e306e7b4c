"""Face recipes with one part spoilt: a proof that they pass proves nothing."""

from __future__ import annotations

from torch import Tensor, nn

from workers.families.base import Placement
from workers.families.face.data import Batch, PairBatch
from workers.families.face.mining import squared_distances
from workers.families.face.siamese import Siamese
from workers.families.face.triplet import Triplet


class TripletWithRolesSwapped(Triplet):
    """Anchor and negative of every triplet are exchanged: what should part comes together."""

    def losses(self, network: nn.Module, batch: Batch, placement: Placement) -> dict[str, Tensor]:
        with placement.autocast():
            embeddings = network(batch.images)
        distances = squared_distances(embeddings)
        chosen = self.chosen(distances.detach(), batch)
        anchors, positives = batch.pairs.unbind(1)
        # Anchor n, positive p, negative a: max(0, |n - p|^2 - |n - a|^2 + margin)
        excess = (distances[positives] - distances[anchors] + self.config.loss.margin).clamp(min=0)
        return {"triplets": (excess * chosen).sum() / chosen.sum().clamp(min=1)}


class SiameseWithTruthSwapped(Siamese):
    """Pairs of one person are taught as pairs of two, and the other way round."""

    def truth(self, batch: PairBatch) -> Tensor:
        return ~batch.is_same
