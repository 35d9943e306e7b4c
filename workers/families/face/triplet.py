"""FaceNet (Schroff et al. 2015): triplets mined in each batch; or, over the same network, ArcFace (Deng et al. 2019)."""

from __future__ import annotations

from torch import Tensor, nn

from workers.families.base import Placement
from workers.families.face.arcface import ArcFace, arcface_loss
from workers.families.face.config import PeopleData, TripletConfig
from workers.families.face.data import Batch, TrainBatches
from workers.families.face.mining import mine, squared_distances, triplet_loss
from workers.families.face.network import FaceNetwork
from workers.families.face.recipe import FaceRecipe


class Triplet(FaceRecipe[TripletConfig, Batch]):
    """Trains embeddings by who is nearer to whom."""

    @property
    def data(self) -> PeopleData:
        return self.config.data

    def new_head(self) -> nn.Module | None:
        if self.config.loss.name == "triplet":
            return None
        return ArcFace(self.config.model.dim, int(self.train_faces.labels.max()) + 1)

    def train_batches(self) -> TrainBatches:
        by_people = self.config.loss.name == "triplet"
        return TrainBatches(self.train_faces, self.data, by_people=by_people, seed=self.config.runtime.seed)

    def to_device(self, batch: Batch, placement: Placement) -> Batch:
        return batch.to(placement, self.config.augment)

    def losses(self, network: nn.Module, batch: Batch, placement: Placement) -> dict[str, Tensor]:
        assert isinstance(network, FaceNetwork)
        with placement.autocast():
            embeddings = network(batch.images)
        loss = self.config.loss
        if network.head is not None:
            return {
                "angles": arcface_loss(
                    network.head(embeddings), batch.labels, scale=loss.arc_scale, margin=loss.arc_margin
                )
            }
        distances = squared_distances(embeddings)
        return {
            "triplets": triplet_loss(distances, batch.pairs, self.chosen(distances.detach(), batch), margin=loss.margin)
        }

    def chosen(self, distances: Tensor, batch: Batch) -> Tensor:
        """Return which negatives each pair of the batch is trained with, bool (M, N)."""
        loss = self.config.loss
        return mine(distances, batch.labels, batch.pairs, mining=loss.mining, margin=loss.margin)
