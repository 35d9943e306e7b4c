"""Pictures as squares, in pairs or in two domains; and training batches of them, pure functions of the step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from services.core.errors import DatasetInvalid
from workers.engine.data import ShuffledBatches, derived_seed, step_generator
from workers.families.base import Placement
from workers.families.images import to_pixels, to_tanh
from workers.families.pictures import png
from workers.families.records import RecordSet, StoredImages, read_index
from workers.families.translation.config import Data

PAIRS, DOMAINS = ("pairs",), ("domains",)
_BOTH = "import two or more of both domains, of which one can be set aside, or some in train and some in val"

Indices = np.ndarray[tuple[int], np.dtype[np.int64]]


def to_square(image: Tensor, side: int) -> Tensor:
    """Scale a uint8 image (C, H, W) to a square, whatever its shape was, as the paper's code does."""
    if image.shape[-2:] == (side, side):
        return image
    return functional.interpolate(image[None], (side, side), mode="bilinear", antialias=True)[0]


@dataclass(frozen=True, slots=True)
class Batch:
    """Inputs and what they should become: of pairs the same scenes, of domains any. uint8 until on the device."""

    a: Tensor
    b: Tensor

    def to(self, placement: Placement) -> Batch:
        moved = (images.to(placement.device, non_blocking=True) for images in (self.a, self.b))
        return Batch(*(to_tanh(images).to(memory_format=placement.memory_format) for images in moved))

    def parts(self, count: int) -> list[Batch]:
        """Return the batch in equal parts, each of every `count`-th sample, as however many processes share them."""
        return [Batch(self.a[first::count], self.b[first::count]) for first in range(count)]


class Pairs:
    """The pairs of a split as squares: uint8 (N, 2, 3, side, side), the input and its target."""

    def __init__(self, records: RecordSet, *, side: int, cache_mib: int) -> None:
        self.records = records

        def load(index: int) -> Tensor:
            return torch.stack([to_square(one, side) for one in records.pair(index)])

        self._stored = StoredImages(len(records), load, shape=(2, 3, side, side), cache_mib=cache_mib)

    def __len__(self) -> int:
        return len(self.records)

    def gather(self, indices: Indices) -> Tensor:
        return self._stored.gather(indices)

    def read(self, index: int) -> bytes:
        """Return an encoded input, as people would send it."""
        if not self.records.records[index].is_side_by_side:
            return self.records.read(index)
        return png(Image.fromarray(to_pixels(self.records.image(index))))

    def read_target(self, index: int) -> bytes:
        """Return a target as a PNG."""
        return png(Image.fromarray(to_pixels(self.records.target(index))))


class Domain:
    """The pictures of one of two domains of a split as squares: uint8 (N, 3, side, side)."""

    def __init__(self, records: RecordSet, label: int, *, side: int, cache_mib: int) -> None:
        self.records = records
        self.places = np.flatnonzero(records.labels.numpy() == label)
        if not len(self.places):
            name = records.meta.classes[label]
            raise DatasetInvalid(f"the split '{records.split}' has no picture of {name!r}; {_BOTH}")

        def load(index: int) -> Tensor:
            return to_square(records.image(int(self.places[index])), side)

        self._stored = StoredImages(len(self.places), load, shape=(3, side, side), cache_mib=cache_mib)

    def __len__(self) -> int:
        return len(self.places)

    def gather(self, indices: Indices) -> Tensor:
        return self._stored.gather(indices)

    def read(self, index: int) -> bytes:
        """Return an encoded picture."""
        return self.records.read(int(self.places[index]))


def open_domains(directory: Path, split: str, *, side: int, cache_mib: int) -> tuple[Domain, Domain]:
    """Return both domains of a split; reads no picture.

    Raises:
        DatasetInvalid: the dataset has not two domains, or one is empty in this split.
    """
    if not read_index(directory, DOMAINS).entries.get(split):
        raise DatasetInvalid(f"the dataset has no picture in the split '{split}'; {_BOTH}")
    records = RecordSet(directory, split, families=DOMAINS)
    if (count := len(records.meta.classes)) != 2:
        raise DatasetInvalid(f"the dataset has {count} domains; import one that has two")
    one, other = (Domain(records, label, side=side, cache_mib=cache_mib // 2) for label in range(2))
    return one, other


class PairBatches:
    """Batches of pairs, cut and mirrored alike."""

    def __init__(self, pairs: Pairs, data: Data, *, seed: int) -> None:
        self._pairs, self._data, self._seed = pairs, data, seed
        self._order = ShuffledBatches(seed=seed, count=len(pairs), batch_size=data.batch_size)
        self.steps_per_epoch, self.batch_size = self._order.steps_per_epoch, self._order.batch_size

    def batch(self, step: int) -> Batch:
        """Return the batch of a step: the same for the same data, config, seed and step."""
        pairs = self._pairs.gather(np.asarray(self._order.indices(step)))
        varied = vary(pairs, self._data, step_generator(self._seed, step))
        return Batch(varied[:, 0], varied[:, 1])


class DomainBatches:
    """Batches of as many pictures of either domain, each in an order of its own.

    `parts`: how many updates share a batch, each with `data.batch_size` pictures of either domain.
    """

    def __init__(self, domains: tuple[Domain, Domain], data: Data, *, seed: int, parts: int = 1) -> None:
        self._domains, self._data, self._seed = domains, data, seed
        size = parts * data.batch_size
        seeds = (seed, derived_seed("other domain", seed))
        self._orders = [
            ShuffledBatches(seed=own, count=len(domain), batch_size=size)
            for own, domain in zip(seeds, domains, strict=True)
        ]
        self.steps_per_epoch = max(order.steps_per_epoch for order in self._orders)
        self.batch_size = size

    def batch(self, step: int) -> Batch:
        """Return the batch of a step: the same for the same data, config, seed and step."""
        generator = step_generator(self._seed, step)
        a, b = (
            vary(domain.gather(np.asarray(order.indices(step))), self._data, generator)
            for domain, order in zip(self._domains, self._orders, strict=True)
        )
        return Batch(a, b)


def vary(images: Tensor, data: Data, generator: torch.Generator) -> Tensor:
    """Cut a square at a random place of each sample (N, ..., load, load), and mirror some."""
    side, room = data.image_size, data.load_size - data.image_size
    if room:
        places = torch.randint(room + 1, (len(images), 2), generator=generator).tolist()
        images = torch.stack([one[..., y : y + side, x : x + side] for one, (y, x) in zip(images, places, strict=True)])
    if data.flip:
        is_turned = torch.rand(len(images), generator=generator) < data.flip
        images = torch.where(is_turned.reshape(-1, *[1] * (images.ndim - 1)), images.flip(-1), images)
    return images
