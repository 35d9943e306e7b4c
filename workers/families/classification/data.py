"""Squares cut from images, and training batches made of them; a pure function of the step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from workers.engine.data import ShuffledBatches, seeded_rng
from workers.families.base import Placement
from workers.families.classification.augment import Exchange, ImageAugment
from workers.families.classification.config import ClassificationConfig, Data
from workers.families.classification.squares import to_input, to_square
from workers.families.records import RecordSet, StoredImages

FAMILIES = ("classification",)


class Squares:
    """The stored squares of a split with their labels."""

    def __init__(self, records: RecordSet, *, data: Data, cache_mib: int) -> None:
        self.records = records
        shape = (data.channels, data.stored_size, data.stored_size)
        self._stored = StoredImages(
            len(records), lambda index: to_square(records.image(index), data), shape=shape, cache_mib=cache_mib
        )

    def __len__(self) -> int:
        return len(self.records)

    def gather(self, indices: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Tensor:
        """Return uint8 squares (N, C, R, R)."""
        return self._stored.gather(indices)


@dataclass(frozen=True, slots=True)
class Batch:
    """Float images (N, C, S, S), from 0 to 1 until they are on the device; soft labels (N, K)."""

    images: Tensor
    targets: Tensor
    exchange: Exchange | None

    def to(self, placement: Placement) -> Batch:
        """Move to the device and normalise there."""
        device = placement.device
        images = to_input(self.images.to(device, non_blocking=True))
        exchange = self.exchange
        if exchange is not None:
            exchange = Exchange(exchange.partner.to(device), exchange.weight)
        return Batch(
            images=images.to(memory_format=placement.memory_format),
            targets=self.targets.to(device, non_blocking=True),
            exchange=exchange,
        )


class TrainBatches:
    """Augmented batches as a pure function of the step."""

    def __init__(self, squares: Squares, config: ClassificationConfig, *, num_classes: int) -> None:
        self._squares, self._seed = squares, config.runtime.seed
        self._labels = squares.records.labels
        self._order = ShuffledBatches(seed=self._seed, count=len(squares), batch_size=config.data.batch_size)
        self.steps_per_epoch, self.batch_size = self._order.steps_per_epoch, self._order.batch_size
        self._augment = ImageAugment(
            config.augment,
            config.data,
            num_classes=num_classes,
            max_steps=config.limits.max_steps,
            steps_per_epoch=self.steps_per_epoch,
        )

    def batch(self, step: int) -> Batch:
        """Return the batch of a step: the same for the same data, config, seed and step."""
        indices = np.asarray(self._order.indices(step))
        squares, labels = self._squares.gather(indices), self._labels[torch.from_numpy(indices)]
        with seeded_rng(self._seed, step):
            images, targets, exchange = self._augment(squares, labels, step=step)
        return Batch(images=images, targets=targets, exchange=exchange)
