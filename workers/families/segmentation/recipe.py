"""What the segmentation recipes share: data, the pixel loss, evaluation, samples and what serving needs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

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
from workers.families.images import MEAN, STD, normalise
from workers.families.letterbox import FILL
from workers.families.pictures import png
from workers.families.records import IGNORED_PIXEL, RecordSet
from workers.families.segmentation.config import SegmentationConfig
from workers.families.segmentation.data import FAMILIES, Batch, Squares, TrainBatches
from workers.families.segmentation.decision import to_image_size
from workers.families.segmentation.draw import Case, samples_page
from workers.families.segmentation.figures import Confusion
from workers.families.segmentation.handler import SegmentationHandler
from workers.families.supervised import SupervisedRecipe, in_eval_mode, served_network, spread

SegmentationConfigT = TypeVar("SegmentationConfigT", bound=SegmentationConfig)


def pixel_loss(
    scores: Tensor, masks: Tensor, *, mean_count: Callable[[Tensor], Tensor] = lambda count: count
) -> Tensor:
    """Return the mean cross entropy of scores (N, C, H, W) against masks (N, H, W), over the pixels not ignored.

    0 where all are: augmentation can shrink an image into a corner of its square, or move its labels out.
    `mean_count` is `Placement.mean_count`.
    """
    total = functional.cross_entropy(scores.float(), masks.long(), ignore_index=IGNORED_PIXEL, reduction="sum")
    return total / mean_count((masks != IGNORED_PIXEL).sum()).clamp(min=1)


class SegmentationRecipe(SupervisedRecipe[SegmentationConfigT, Batch], Generic[SegmentationConfigT]):
    """A segmentation recipe is its network; all else is here."""

    metric = "eval/miou"

    def __init__(self, config: SegmentationConfigT, dataset_dir: Path) -> None:
        super().__init__(config, dataset_dir)
        data = config.data
        self._train = RecordSet(dataset_dir, "train", families=FAMILIES)
        held_out = RecordSet(dataset_dir, "val", families=FAMILIES)
        self._held_out = Squares(held_out, size=data.image_size, cache_mib=data.cache_mib // 4)

    @property
    def num_classes(self) -> int:
        return len(self._train.meta.classes)

    @abstractmethod
    def new_network(self) -> nn.Module:
        """Return the network with fresh weights: normalised images in, scores (N, C, H, W) out."""

    def train_batches(self) -> TrainBatches:
        data = self.config.data
        squares = Squares(self._train, size=data.image_size, cache_mib=data.cache_mib)
        return TrainBatches(squares, data=data, augmentation=self.config.augment, seed=self.config.runtime.seed)

    def to_device(self, batch: Batch, placement: Placement) -> Batch:
        return batch.to(placement, self.config.augment)

    def losses(self, network: nn.Module, batch: Batch, placement: Placement) -> dict[str, Tensor]:
        with placement.autocast():
            scores = network(batch.images)
        return {"pixels": pixel_loss(scores, batch.masks, mean_count=placement.mean_count)}

    def evaluate(self, state: TrainState, placement: Placement) -> dict[str, float]:
        confusion = Confusion(self.num_classes)
        with in_eval_mode(served_network(state)) as network:
            for index, found in enumerate(self._predict(_placed(network, placement), range(len(self._held_out)))):
                confusion.add(self._held_out.records.mask(index), found)
        return confusion.figures()

    def sample(self, state: TrainState, placement: Placement) -> list[Picture]:
        places = spread(len(self._held_out), self.config.eval.num_samples)
        records = self._held_out.records
        with in_eval_mode(served_network(state)) as network:
            found = self._predict(_placed(network, placement), places)
        cases = [Case(records.image(n), records.mask(n), mask) for n, mask in zip(places, found, strict=True)]
        return [Picture(name="samples", png=png(samples_page(cases, self._train.meta.classes)))]

    def serving_module(self, state: TrainState) -> nn.Module:
        return served_network(state)

    def serving_spec(self) -> ServingSpec:
        size = self.config.data.image_size
        constants = {
            "classes": list(self._train.meta.classes),
            "normalisation": {"mean": list(MEAN), "std": list(STD)},
            "fill": list(FILL),
        }
        return ServingSpec(input_shape=(3, size, size), constants=constants)

    def golden(self, state: TrainState, placement: Placement, count: int) -> Golden:
        handler = SegmentationHandler(self.serving_spec())
        exact = Placement(placement.device, autocast_dtype=None, memory_format=placement.memory_format)
        inputs = [self._held_out.records.read(place) for place in spread(len(self._held_out), count)]
        with in_eval_mode(served_network(state)) as network:
            instances = [Instance(body=data, fields={}, params={}) for data in inputs]
            answers = handler.predict(instances, _placed(network, exact))
        good = [(data, one) for data, one in zip(inputs, answers, strict=True) if not isinstance(one, InstanceInvalid)]
        return Golden(inputs=tuple(data for data, _ in good), answers=tuple(one for _, one in good))

    def _predict(self, network: Network, places: range | list[int]) -> list[Tensor]:
        """Return masks of the images' own sizes, uint8 (H, W), from squares as serving makes them."""
        found: list[Tensor] = []
        size = self.config.eval.batch_size
        with torch.inference_mode():
            for start in range(0, len(places), size):
                rows = places[start : start + size]
                scores = network(normalise(self._held_out.images(np.asarray(rows))))
                assert isinstance(scores, Tensor)
                found += [
                    to_image_size(one, self._held_out.fit_of(row)).argmax(0).to(torch.uint8).cpu()
                    for row, one in zip(rows, scores, strict=True)
                ]
        return found


def _placed(network: nn.Module, placement: Placement) -> Network:
    def predict(images: Tensor) -> Tensor:
        with placement.autocast():
            scores: Tensor = network(images.to(placement.device, memory_format=placement.memory_format))
        return scores.float()

    return predict
