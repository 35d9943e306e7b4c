"""Faces cut from images, and training batches made of them; pure functions of the step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from services.core.errors import DatasetInvalid
from workers.engine.data import ShuffledBatches, derived_seed, step_generator
from workers.families.base import Placement
from workers.families.face import augment
from workers.families.face.align import LandmarksUnusable, to_face
from workers.families.face.config import Augment, Data, PairData, PeopleData
from workers.families.face.mining import positive_pairs
from workers.families.records import RecordSet, StoredImages

FAMILIES = ("face",)
Indices = np.ndarray[tuple[int, ...], np.dtype[np.int64]]


class Faces:
    """The faces of a split with the people they are of."""

    def __init__(self, records: RecordSet, *, data: Data, cache_mib: int) -> None:
        self.records = records
        self.labels = records.labels
        self._data = data
        shape = (3, data.image_size, data.image_size)
        self._stored = StoredImages(len(records), self._face, shape=shape, cache_mib=cache_mib)

    def __len__(self) -> int:
        return len(self.records)

    def gather(self, indices: Indices) -> Tensor:
        """Return uint8 faces (N, 3, S, S)."""
        return self._stored.gather(indices)

    def _face(self, index: int) -> Tensor:
        data, record = self._data, self.records.records[index]
        try:
            return to_face(self.records.image(index), data.image_size, crop=data.crop, landmarks=record.landmarks)
        except LandmarksUnusable as err:
            raise DatasetInvalid(f"{record.member}: {err}; import the dataset again without them") from err


@dataclass(frozen=True, slots=True)
class Batch:
    """Faces with the people they are of.

    From the source, `images` are uint8 (N, 3, S, S), still to be changed as `drawn` (N, 8); on the device they are
    changed and normalised, and `drawn` is None. `pairs` are all (anchor, positive), int64 (M, 2).
    """

    images: Tensor
    labels: Tensor
    pairs: Tensor
    drawn: Tensor | None

    def to(self, placement: Placement, config: Augment) -> Batch:
        """Move to the device and apply there what was drawn."""
        labels, pairs = (one.to(placement.device, non_blocking=True) for one in (self.labels, self.pairs))
        return Batch(_changed(self.images, self.drawn, placement, config), labels, pairs, None)


@dataclass(frozen=True, slots=True)
class PairBatch:
    """Pairs of faces, and whether both are of one person, (N,).

    From the source, `images` are uint8 (N, 2, 3, S, S), still to be changed as `drawn` (N, 2, 8); on the device they
    are changed and normalised, and `drawn` is None.
    """

    images: Tensor
    is_same: Tensor
    drawn: Tensor | None

    def to(self, placement: Placement, config: Augment) -> PairBatch:
        """Move to the device and apply there what was drawn."""
        drawn = self.drawn.flatten(0, 1) if self.drawn is not None else None
        images = _changed(self.images.flatten(0, 1), drawn, placement, config)
        return PairBatch(
            images.reshape(-1, 2, *images.shape[1:]), self.is_same.to(placement.device, non_blocking=True), None
        )


def _changed(images: Tensor, drawn: Tensor | None, placement: Placement, config: Augment) -> Tensor:
    images = images.to(placement.device, non_blocking=True)
    if drawn is not None:
        images = augment.render(images, drawn.to(placement.device, non_blocking=True), config)
    return images.contiguous(memory_format=placement.memory_format)


class PeopleOrder:
    """Which images form the batch of a step: `shots` each of as many people as fit.

    People come in shuffled epochs, and so do the pictures of each: everybody comes equally often, and so do all of a
    person's pictures. Whoever has one picture only is left out, since it has no pair.
    """

    def __init__(self, labels: Tensor, *, seed: int, batch_size: int, shots: int) -> None:
        places = _by_person(labels)
        self._places = [images for images in places.values() if len(images) > 1]
        self._seed, self._shots, self._num_people = seed, shots, batch_size // shots
        self._people = ShuffledBatches(seed=seed, count=len(self._places), batch_size=self._num_people)
        self.batch_size = batch_size
        self.steps_per_epoch = -(-sum(map(len, self._places)) // batch_size)

    def indices(self, step: int) -> list[int]:
        """Return the images of the batch of `step`, person by person."""
        found: list[int] = []
        for place, person in enumerate(self._people.indices(step), start=step * self._num_people):
            images = self._places[person]
            order = ShuffledBatches(
                seed=derived_seed("shots", self._seed, person), count=len(images), batch_size=self._shots
            )
            found += [images[shot] for shot in order.indices(place // len(self._places))]
        return found


class PairOrder:
    """Which images form the pairs of a step: every other pair is of one person.

    First images come in shuffled epochs; the second is drawn anew for each.
    """

    def __init__(self, labels: Tensor, *, seed: int, batch_size: int) -> None:
        self._labels = labels.tolist()
        self._places = _by_person(labels)
        self._seed = seed
        self._order = ShuffledBatches(seed=seed, count=len(labels), batch_size=batch_size)
        self.steps_per_epoch, self.batch_size = self._order.steps_per_epoch, self._order.batch_size

    def pairs(self, step: int) -> list[tuple[int, int]]:
        """Return the pairs of the batch of `step`."""
        rng = np.random.default_rng(derived_seed("pairs", self._seed, step))
        return [
            (first, self._second(first, rng, place % 2 == 0)) for place, first in enumerate(self._order.indices(step))
        ]

    def _second(self, first: int, rng: np.random.Generator, is_same: bool) -> int:
        own = self._places[self._labels[first]]
        if is_same and len(own) > 1:
            others = [index for index in own if index != first]
            return others[int(rng.integers(len(others)))]
        # Everybody else's images, without a list of them.
        number = int(rng.integers(len(self._labels) - len(own)))
        for place in own:
            if place > number:
                break
            number += 1
        return number


class TrainBatches:
    """Augmented batches of single faces; of `shots` each where people are wanted, else in shuffled epochs."""

    def __init__(self, faces: Faces, data: PeopleData, *, by_people: bool, seed: int) -> None:
        self._faces, self._seed = faces, seed
        count, size = len(faces), data.batch_size
        self._order: PeopleOrder | ShuffledBatches = (
            PeopleOrder(faces.labels, seed=seed, batch_size=size, shots=data.shots)
            if by_people
            else ShuffledBatches(seed=seed, count=count, batch_size=size)
        )
        self.steps_per_epoch, self.batch_size = self._order.steps_per_epoch, self._order.batch_size

    def batch(self, step: int) -> Batch:
        """Return the batch of a step: the same for the same data, config, seed and step."""
        indices = np.asarray(self._order.indices(step))
        labels = self._faces.labels[torch.from_numpy(indices)]
        drawn = augment.draw(len(indices), step_generator(self._seed, step))
        return Batch(self._faces.gather(indices), labels, positive_pairs(labels), drawn)


class PairBatches:
    """Augmented batches of pairs."""

    def __init__(self, faces: Faces, data: PairData, *, seed: int) -> None:
        self._faces, self._seed = faces, seed
        self._order = PairOrder(faces.labels, seed=seed, batch_size=data.batch_size)
        self.steps_per_epoch, self.batch_size = self._order.steps_per_epoch, self._order.batch_size

    def batch(self, step: int) -> PairBatch:
        """Return the batch of a step: the same for the same data, config, seed and step."""
        pairs = np.asarray(self._order.pairs(step))
        people = self._faces.labels[torch.from_numpy(pairs)]
        drawn = augment.draw(pairs.size, step_generator(self._seed, step)).reshape(*pairs.shape, -1)
        images = self._faces.gather(pairs.reshape(-1))
        return PairBatch(images.reshape(*pairs.shape, *images.shape[1:]), people[:, 0] == people[:, 1], drawn)


def _by_person(labels: Tensor) -> dict[int, list[int]]:
    """Return the places of each person's images, in order."""
    places: dict[int, list[int]] = {}
    for place, label in enumerate(labels.tolist()):
        places.setdefault(label, []).append(place)
    return places
