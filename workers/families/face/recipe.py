"""What the face recipes share: data, evaluation on people never seen, samples and what serving needs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from workers.families.base import (
    Golden,
    Instance,
    InstanceInvalid,
    Network,
    Picture,
    Placement,
    ServingSpec,
    TrainState,
)
from workers.families.face import held_out, verification
from workers.families.face.config import Data, FaceConfig
from workers.families.face.data import FAMILIES, Faces
from workers.families.face.draw import Match, match_row
from workers.families.face.handler import FaceHandler
from workers.families.face.network import Embedder, FaceNetwork, ServedNetwork
from workers.families.images import MEAN, STD, normalise
from workers.families.pictures import sheet
from workers.families.records import RecordSet
from workers.families.supervised import SupervisedRecipe, in_eval_mode, served_network, spread

FaceConfigT = TypeVar("FaceConfigT", bound=FaceConfig)
BatchT = TypeVar("BatchT")

_NUM_MATCHES = 6
_FEW_PEOPLE = 10
"""With fewer held out than these, one person more or less moves every figure."""


class FaceRecipe(SupervisedRecipe[FaceConfigT, BatchT], Generic[FaceConfigT, BatchT]):
    """A face recipe is its batches and its loss; all else is here."""

    metric = "eval/accuracy"

    def __init__(self, config: FaceConfigT, dataset_dir: Path) -> None:
        super().__init__(config, dataset_dir)
        records = {split: RecordSet(dataset_dir, split, families=FAMILIES) for split in ("train", "val")}
        cache_mib = self.data.cache_mib
        self.train_faces = Faces(records["train"], data=self.data, cache_mib=cache_mib)
        self._held_out = Faces(records["val"], data=self.data, cache_mib=cache_mib // 4)
        self._folds = records["val"].pairs() or held_out.folds_of(
            self._held_out.labels.tolist(), pairs=config.eval.pairs
        )
        self._calibrated: tuple[TrainState, int, float] | None = None

    @property
    @abstractmethod
    def data(self) -> Data:
        """Return the section `data` of the config."""

    def new_head(self) -> nn.Module | None:
        """Return what the loss needs beside embeddings, with fresh weights."""
        return None

    def new_network(self) -> FaceNetwork:
        return FaceNetwork(Embedder(self.config.model, self.data.image_size), self.new_head())

    def notices(self) -> list[str]:
        num_people = len(set(self._held_out.labels.tolist()))
        if num_people >= _FEW_PEOPLE:
            return []
        is_same = [same for fold in self._folds for _, _, same in fold]
        people = "only one person is" if num_people == 1 else f"only {num_people} people are"
        pairs = f"the figures rest on them and on {len(is_same)} pairs of their pictures, {sum(is_same)} of one person"
        remedy = f"import the data with {_FEW_PEOPLE} people or more in val before you trust them"
        return [f"{people} held out: {pairs}; {remedy}"]

    def evaluate(self, state: TrainState, placement: Placement) -> dict[str, float]:
        embeddings = self._embeddings(state, placement)
        folds = self._judged(embeddings)
        threshold = verification.similarity_threshold(folds)
        self._calibrated = (state, state.step, threshold)
        rank_one = held_out.rank_one(embeddings, self._held_out.labels, enrolled=self.config.eval.enrolled)
        return {**verification.figures(folds), "eval/rank1": rank_one, "eval/threshold": threshold}

    def sample(self, state: TrainState, placement: Placement) -> list[Picture]:
        embeddings = self._embeddings(state, placement)
        threshold = verification.similarity_threshold(self._judged(embeddings))
        places = spread(len(self._held_out), self.config.eval.num_samples)
        rows = [self._matches(place, embeddings, threshold) for place in places]
        return [Picture(name="matches", png=sheet(rows, columns=1))]

    def serving_module(self, state: TrainState) -> nn.Module:
        return ServedNetwork(_embedder(state), self._threshold(state))

    def serving_spec(self) -> ServingSpec:
        size = self.data.image_size
        constants = {
            "dim": self.config.model.dim,
            "crop": self.data.crop,
            "normalisation": {"mean": list(MEAN), "std": list(STD)},
        }
        return ServingSpec(input_shape=(3, size, size), constants=constants)

    def golden(self, state: TrainState, placement: Placement, count: int) -> Golden:
        handler = FaceHandler(self.serving_spec())
        exact = Placement(placement.device, autocast_dtype=None, memory_format=placement.memory_format)
        inputs = [self._held_out.records.read(place) for place in spread(len(self._held_out), count)]
        served = ServedNetwork(_embedder(state), self._threshold(state)).to(placement.device)
        with in_eval_mode(served):
            answers = handler.predict([Instance(data, {}, {}) for data in inputs], _placed(served, exact))
        good = [(data, one) for data, one in zip(inputs, answers, strict=True) if not isinstance(one, InstanceInvalid)]
        return Golden(inputs=tuple(data for data, _ in good), answers=tuple(one for _, one in good))

    @classmethod
    def load_serving_module(cls, config: FaceConfigT, spec: ServingSpec) -> nn.Module:
        return ServedNetwork(Embedder(config.model, spec.input_shape[-1]))

    def _threshold(self, state: TrainState) -> float:
        """Return the threshold of these weights: that of the latest evaluation, or of one made now."""
        if self._calibrated is None or self._calibrated[0] is not state or self._calibrated[1] != state.step:
            device = next(_embedder(state).parameters()).device
            embeddings = self._embeddings(state, Placement(device, None, torch.contiguous_format))
            self._calibrated = (state, state.step, verification.similarity_threshold(self._judged(embeddings)))
        return self._calibrated[2]

    def _embeddings(self, state: TrainState, placement: Placement) -> Tensor:
        """Return embeddings of all held-out faces, float32 (N, D), on the host."""
        rows = []
        size = self.config.eval.batch_size
        with in_eval_mode(_embedder(state)) as embedder, torch.inference_mode():
            network = _placed(embedder, placement)
            for start in range(0, len(self._held_out), size):
                places = np.arange(start, min(start + size, len(self._held_out)))
                found = network(normalise(self._held_out.gather(places)))
                assert isinstance(found, Tensor)
                rows.append(found.cpu())
        return torch.cat(rows)

    def _judged(self, embeddings: Tensor) -> list[verification.Fold]:
        return [judged(embeddings, fold) for fold in self._folds]

    def _matches(self, place: int, embeddings: Tensor, threshold: float) -> Image.Image:
        similarities, found = held_out.nearest(embeddings, place, count=_NUM_MATCHES)
        faces = self._held_out.gather(np.asarray([place, *found]))
        labels = self._held_out.labels
        matches = [
            Match(face, similarity, bool(labels[other] == labels[place]), similarity >= threshold)
            for face, similarity, other in zip(faces[1:], similarities, found, strict=True)
        ]
        return match_row(faces[0], matches)


def judged(embeddings: Tensor, pairs: Sequence[held_out.Pair]) -> verification.Fold:
    """Return the squared distances of pairs of embeddings of length 1."""
    first, second, is_same = (list(column) for column in zip(*pairs, strict=True))
    distances = (embeddings[first].double() - embeddings[second].double()).square().sum(1)
    return verification.Fold(distances.numpy(), np.asarray(is_same, dtype=np.bool_))


def _embedder(state: TrainState) -> Embedder:
    network = served_network(state)
    assert isinstance(network, FaceNetwork)
    return network.embedder


def _placed(network: nn.Module, placement: Placement) -> Network:
    def predict(images: Tensor) -> Tensor | tuple[Tensor, ...]:
        with placement.autocast():
            out = network(images.to(placement.device, memory_format=placement.memory_format))
        return tuple(one.float() for one in out) if isinstance(out, tuple) else out.float()

    return predict
