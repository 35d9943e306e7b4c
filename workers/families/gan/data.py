"""Real samples: images cut to one shape, or points; and training batches of them, pure functions of the step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from workers.engine.data import ShuffledBatches, step_generator
from workers.families.base import Placement
from workers.families.gan.config import GanConfig
from workers.families.images import to_tanh
from workers.families.shaped import ShapedImages

FAMILIES = ("images", "classification", "face")


class RealImages(ShapedImages):
    """The images of a split, which generated ones are compared with."""

    def batches(self, size: int, *, limit: int) -> Iterator[Tensor]:
        """Yield the first `limit` images in order, as networks see them."""
        count = min(limit, len(self))
        for start in range(0, count, size):
            yield to_tanh(self.gather(np.arange(start, min(start + size, count))))


@dataclass(frozen=True, slots=True)
class Batch:
    """Real samples: uint8 images (N, C, H, W) until they are on the device, or points (N, D); classes int64 (N,)."""

    samples: Tensor
    labels: Tensor | None = None

    def to(self, placement: Placement) -> Batch:
        samples = self.samples.to(placement.device, non_blocking=True)
        if samples.dtype == torch.uint8:
            samples = to_tanh(samples).to(memory_format=placement.memory_format)
        labels = None if self.labels is None else self.labels.to(placement.device, non_blocking=True)
        return Batch(samples, labels)

    def parts(self, count: int) -> list[Batch]:
        """Return the batch in equal parts, one for each update of the discriminator.

        Each takes every `count`-th sample, so that an update sees the same ones however many processes share them.
        """
        return [
            Batch(self.samples[first::count], None if self.labels is None else self.labels[first::count])
            for first in range(count)
        ]


class TrainBatches:
    """Batches for one step: `data.batch_size` samples for every update of the discriminator."""

    def __init__(self, samples: RealImages | Tensor, config: GanConfig, *, labels: Tensor | None = None) -> None:
        self._samples, self._labels = samples, labels
        self._seed, self._flip = config.runtime.seed, config.data.flip
        size = config.data.batch_size * config.optim.discriminator_steps
        self._order = ShuffledBatches(seed=self._seed, count=len(samples), batch_size=size)
        self.steps_per_epoch, self.batch_size = self._order.steps_per_epoch, self._order.batch_size

    def batch(self, step: int) -> Batch:
        """Return the batch of a step: the same for the same data, config, seed and step."""
        indices = np.asarray(self._order.indices(step))
        where = torch.from_numpy(indices)
        labels = None if self._labels is None else self._labels[where]
        if isinstance(self._samples, Tensor):
            return Batch(self._samples[where], labels)
        images = self._samples.gather(indices)
        if self._flip:
            is_turned = torch.rand(len(images), generator=step_generator(self._seed, step)) < self._flip
            images[is_turned] = images[is_turned].flip(-1)
        return Batch(images, labels)
