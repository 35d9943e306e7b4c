"""Squares cut from images, and training batches made of them; a pure function of the step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from workers.engine.data import ShuffledBatches, seeded_rng
from workers.families.base import Placement
from workers.families.classification.augment import Exchange, ImageAugment
from workers.families.classification.config import ClassificationConfig, Data
from workers.families.images import normalise_
from workers.families.records import RecordSet, StoredImages

FAMILIES = ("classification",)
GREY = (0.299, 0.587, 0.114)
"""Luma of ITU-R BT.601, as Pillow weighs colours."""


def to_square(image: Tensor, data: Data) -> Tensor:
    """Cut the middle square of a uint8 image (3, H, W) and scale it: (C, stored_size, stored_size)."""
    height, width = image.shape[-2:]
    side, size = min(height, width), data.stored_size
    top, left = (height - side) // 2, (width - side) // 2
    square = image[:, top : top + side, left : left + side]
    if side != size:
        square = functional.interpolate(square[None], (size, size), mode="bilinear", antialias=True)[0]
    if data.channels == 1:
        weights = torch.tensor(GREY)[:, None, None]
        square = (square * weights).sum(0, keepdim=True).round().to(torch.uint8)
    return square


def central(squares: Tensor, data: Data) -> Tensor:
    """Return the middle of stored squares (N, C, R, R) as evaluation and serving see it, (N, C, S, S)."""
    start = (data.stored_size - data.image_size) // 2
    return squares[..., start : start + data.image_size, start : start + data.image_size]


def to_input(images: Tensor) -> Tensor:
    """Turn float images from 0 to 1 into what networks see: grey as it is, colour normalised."""
    return images if images.shape[1] == 1 else normalise_(images * 255)


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
        self._augment = ImageAugment(
            config.augment, config.data, num_classes=num_classes, max_steps=config.limits.max_steps
        )
        self._order = ShuffledBatches(seed=self._seed, count=len(squares), batch_size=config.data.batch_size)
        self.steps_per_epoch, self.batch_size = self._order.steps_per_epoch, self._order.batch_size

    def batch(self, step: int) -> Batch:
        """Return the batch of a step: the same for the same data, config, seed and step."""
        indices = np.asarray(self._order.indices(step))
        squares, labels = self._squares.gather(indices), self._labels[torch.from_numpy(indices)]
        with seeded_rng(self._seed, step):
            images, targets, exchange = self._augment(squares, labels, step=step)
        return Batch(images=images, targets=targets, exchange=exchange)
