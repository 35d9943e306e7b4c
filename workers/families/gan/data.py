"""Real samples: images cut to one shape, or points; and training batches of them, pure functions of the step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from workers.engine.data import ShuffledBatches, step_generator
from workers.families.base import Placement
from workers.families.gan.config import Data, GanConfig
from workers.families.records import RecordSet, StoredImages
from workers.families.supervised import spread

FAMILIES = ("images", "classification", "face")
_GREY = (0.299, 0.587, 0.114)
"""Luma of ITU-R BT.601, as Pillow weighs colours."""
_LOOKED_AT = 16
_TRACE = 24
"""Most that the channels of a grey pixel differ."""
_SPOT = 0.005
"""Share of an image's pixels."""

Indices = np.ndarray[tuple[int], np.dtype[np.int64]]


def to_shape(image: Tensor, data: Data) -> Tensor:
    """Cut the largest middle part of the wanted proportions from a uint8 image (3, H, W) and scale it: (C, h, w)."""
    height, width = image.shape[-2:]
    tall, wide = data.image_size
    scale = min(height / tall, width / wide)
    crop = (min(height, round(tall * scale)), min(width, round(wide * scale)))
    top, left = (height - crop[0]) // 2, (width - crop[1]) // 2
    cut = image[:, top : top + crop[0], left : left + crop[1]]
    if crop != (tall, wide):
        cut = functional.interpolate(cut[None], (tall, wide), mode="bilinear", antialias=True)[0]
    if data.channels == 1:
        cut = (cut * torch.tensor(_GREY)[:, None, None]).sum(0, keepdim=True).round().to(torch.uint8)
    return cut


def to_input(pixels: Tensor) -> Tensor:
    """Turn uint8 images into the range of Tanh."""
    return pixels.float() / 127.5 - 1


def to_pixels(images: Tensor) -> Tensor:
    """Turn images of the range of Tanh into uint8."""
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def has_colour(records: RecordSet) -> bool:
    """Return whether any of a few images, spread over the set, has more than a trace of colour."""
    return any(_is_coloured(records.image(index)) for index in spread(len(records), _LOOKED_AT))


def _is_coloured(image: Tensor) -> bool:
    # Grey pictures have traces of colour after JPEG, and coloured ones may have little more than a spot of it.
    distance = image.amax(0) - image.amin(0)
    return float((distance > _TRACE).float().mean()) > _SPOT


class RealImages:
    """The images of a split, cut to shape, with whatever labels they have."""

    def __init__(self, records: RecordSet, *, data: Data, cache_mib: int) -> None:
        self.records = records
        shape = (data.channels, *data.image_size)
        self._stored = StoredImages(
            len(records), lambda index: to_shape(records.image(index), data), shape=shape, cache_mib=cache_mib
        )

    def __len__(self) -> int:
        return len(self.records)

    def gather(self, indices: Indices) -> Tensor:
        """Return uint8 images (N, C, H, W)."""
        return self._stored.gather(indices)

    def batches(self, size: int, *, limit: int) -> Iterator[Tensor]:
        """Yield the first `limit` images in order, as networks see them."""
        count = min(limit, len(self))
        for start in range(0, count, size):
            yield to_input(self.gather(np.arange(start, min(start + size, count))))


@dataclass(frozen=True, slots=True)
class Batch:
    """Real samples: uint8 images (N, C, H, W) until they are on the device, or points (N, D); classes int64 (N,)."""

    samples: Tensor
    labels: Tensor | None = None

    def to(self, placement: Placement) -> Batch:
        samples = self.samples.to(placement.device, non_blocking=True)
        if samples.dtype == torch.uint8:
            samples = to_input(samples).to(memory_format=placement.memory_format)
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
