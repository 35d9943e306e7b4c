"""Pictures without targets, from which recipes make their own inputs; batches are pure functions of the step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from workers.engine.data import ShuffledBatches, step_generator
from workers.families.records import RecordSet, StoredImages
from workers.families.translation.config import Data
from workers.families.translation.data import Batch, Indices, to_square, vary

PICTURES = ("images", "classification", "face")

Make = Callable[[Tensor, torch.Generator], Batch]
"""Makes inputs and targets of uint8 pictures (N, 3, side, side)."""


class Pictures:
    """The pictures of a split as squares: uint8 (N, 3, side, side)."""

    def __init__(self, records: RecordSet, *, side: int, cache_mib: int) -> None:
        self.records = records

        def load(index: int) -> Tensor:
            return to_square(records.image(index), side)

        self._stored = StoredImages(len(records), load, shape=(3, side, side), cache_mib=cache_mib)

    def __len__(self) -> int:
        return len(self.records)

    def gather(self, indices: Indices) -> Tensor:
        return self._stored.gather(indices)


class PictureBatches:
    """Batches of pictures, cut and mirrored, made into inputs and targets."""

    def __init__(self, pictures: Pictures, data: Data, *, seed: int, make: Make) -> None:
        self._pictures, self._data, self._seed, self._make = pictures, data, seed, make
        self._order = ShuffledBatches(seed=seed, count=len(pictures), batch_size=data.batch_size)
        self.steps_per_epoch, self.batch_size = self._order.steps_per_epoch, self._order.batch_size

    def batch(self, step: int) -> Batch:
        """Return the batch of a step: the same for the same data, config, seed and step."""
        generator = step_generator(self._seed, step)
        pictures = self._pictures.gather(np.asarray(self._order.indices(step)))
        return self._make(vary(pictures, self._data, generator), generator)
