"""Content and style pictures of a dataset of two domains: the first is content, the second is style."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from services.core.errors import DatasetInvalid
from workers.engine.data import ShuffledBatches, step_generator
from workers.families.base import Placement
from workers.families.images import normalise
from workers.families.records import RecordSet, StoredImages, read_index
from workers.families.style.config import FastAugment, FastData

FAMILIES = ("domains",)
CONTENT, STYLE = 0, 1
"""The labels of the two domains."""
LEAST_SIDE = 32
"""Pixels that the deepest layers of a VGG need to see more than one place."""


@dataclass(frozen=True, slots=True)
class Domain:
    """The pictures of one domain in one split."""

    records: RecordSet
    rows: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def image(self, place: int) -> Tensor:
        """Decode a picture into uint8 RGB (3, H, W), upright."""
        return self.records.image(self.rows[place])

    def first(self, count: int, size: Callable[[int, int], tuple[int, int]]) -> list[Tensor]:
        """Decode the first pictures, scaled to what `size` makes of height and width."""
        images = (self.image(place) for place in range(min(count, len(self))))
        return [scaled(image, size(*image.shape[-2:])) for image in images]


def domains(directory: Path, split: str) -> tuple[Domain, Domain]:
    """Return content and style of a split, in which either may have no picture.

    Raises:
        DatasetInvalid: not a dataset of two domains, damaged, or without this split.
    """
    records = RecordSet(directory, split, families=FAMILIES)
    labels = records.labels.tolist()
    content, style = (
        Domain(records, tuple(row for row, label in enumerate(labels) if label == domain))
        for domain in (CONTENT, STYLE)
    )
    return content, style


def held_out_domains(directory: Path) -> tuple[Domain, Domain] | None:
    """Return content and style of the held-out split, if there is one: a picture alone leaves none."""
    has_any = bool(read_index(directory, FAMILIES).entries.get("val"))
    return domains(directory, "val") if has_any else None


def held_out_content(directory: Path) -> tuple[Domain, Domain]:
    """Return content and style of the held-out split, of which style may have no picture.

    Raises:
        DatasetInvalid: no content picture is held out.
    """
    held_out = held_out_domains(directory)
    if held_out is None or not held_out[CONTENT].rows:
        text = "no content picture is held out, and this recipe is judged by such: import two content pictures or more"
        raise DatasetInvalid(f"{text}, or some in train and some in val; style/gatys redraws a picture alone")
    return held_out


def require(domain: Domain, what: str) -> Domain:
    """Return a domain that has pictures.

    Raises:
        DatasetInvalid: it has none.
    """
    if domain.rows:
        return domain
    names = domain.records.meta.classes
    place = "first" if what == "content" else "second"
    text = f"the split '{domain.records.split}' has no picture of {what}, which is the {place} of the domains {names}"
    raise DatasetInvalid(f"{text}; import one or more")


def longer_side(size: int) -> Callable[[int, int], tuple[int, int]]:
    """Return what makes of a height and width those of the same shape with a longer side of `size`."""

    def fitted(height: int, width: int) -> tuple[int, int]:
        scale = size / max(height, width)
        return max(LEAST_SIDE, round(height * scale)), max(LEAST_SIDE, round(width * scale))

    return fitted


def shorter_side(size: int) -> Callable[[int, int], tuple[int, int]]:
    """Return what makes of a height and width those of a shorter side of `size`, at most four times as long as wide."""

    def fitted(height: int, width: int) -> tuple[int, int]:
        scale = size / min(height, width)
        return min(4 * size, round(height * scale)), min(4 * size, round(width * scale))

    return fitted


def scaled(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Scale a uint8 picture (3, H, W)."""
    if tuple(image.shape[-2:]) == size:
        return image
    return functional.interpolate(image[None], size, mode="bilinear", antialias=True)[0]


def square(image: Tensor, side: int) -> Tensor:
    """Cut the largest middle square from a uint8 picture (3, H, W) and scale it."""
    height, width = image.shape[-2:]
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    return scaled(image[:, top : top + edge, left : left + edge], (side, side))


class Squares:
    """The pictures of a domain as squares of one size, kept in memory up to a budget."""

    def __init__(self, domain: Domain, *, size: int, cache_mib: int) -> None:
        self.domain = domain
        self._stored = StoredImages(
            len(domain), lambda place: square(domain.image(place), size), shape=(3, size, size), cache_mib=cache_mib
        )

    def __len__(self) -> int:
        return len(self.domain)

    def gather(self, places: Sequence[int]) -> Tensor:
        """Return uint8 squares (N, 3, S, S)."""
        return self._stored.gather(np.asarray(places))


@dataclass(frozen=True, slots=True)
class Batch:
    """Content pictures: from the source uint8 (N, 3, S, S), on the device normalised."""

    images: Tensor

    def to(self, placement: Placement) -> Batch:
        images = self.images.to(placement.device, non_blocking=True)
        if images.dtype == torch.uint8:
            images = normalise(images).to(memory_format=placement.memory_format)
        return Batch(images)


class TrainBatches:
    """Batches of squares as a pure function of the step."""

    def __init__(self, squares: Squares, *, data: FastData, augment: FastAugment, seed: int) -> None:
        self._squares, self._augment, self._seed = squares, augment, seed
        self._order = ShuffledBatches(seed=seed, count=len(squares), batch_size=data.batch_size)
        self.steps_per_epoch, self.batch_size = self._order.steps_per_epoch, self._order.batch_size

    def batch(self, step: int) -> Batch:
        """Return the batch of a step: the same for the same data, config, seed and step."""
        images = self._squares.gather(self._order.indices(step))
        draws = torch.rand(len(images), generator=step_generator(self._seed, step))
        is_flipped = (draws < self._augment.flip)[:, None, None, None]
        return Batch(torch.where(is_flipped, images.flip(3), images))
