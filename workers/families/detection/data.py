"""Reads a detection dataset in canonical form, and makes training batches from it.

Images are read in place from the tar shards, fitted into the square once and kept as uint8 up to a
memory budget. `TrainBatches` is a pure function of the step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from services.core.errors import DatasetInvalid
from workers.engine.data import ShuffledBatches, step_generator
from workers.families import warp
from workers.families.base import Placement
from workers.families.detection import augment
from workers.families.detection.config import Augment, Data
from workers.families.images import ImageInvalid
from workers.families.letterbox import Fit, fit, read_square
from workers.families.records import ANNOTATIONS, Span, StoredImages, damaged, read_index

# Padded shapes of rich datasets vary in these strides, so that kernels meet few of them.
_TRUTHS_STRIDE = 8


@dataclass(frozen=True, slots=True)
class Record:
    """One image of a split and its truth; boxes are xyxy in stored pixels, labels from 1.

    `is_crowd` marks what is neither wanted nor wrong: crowds of COCO, difficult objects of VOC.
    """

    span: Span
    height: int
    width: int
    boxes: Tensor
    labels: Tensor
    is_crowd: Tensor
    area: Tensor

    @property
    def member(self) -> str:
        return self.span.member

    def read(self) -> bytes:
        """Return the encoded image."""
        return self.span.read()


@dataclass(frozen=True, slots=True)
class Dataset:
    """Class names, where label i is `classes[i-1]`, and the records of each split."""

    classes: tuple[str, ...]
    splits: Mapping[str, tuple[Record, ...]]


def read_dataset(directory: Path) -> Dataset:
    """Read the index of a dataset version; reads no image.

    Raises:
        DatasetInvalid: not a detection dataset in canonical form, or without training or held-out images.
    """
    index = read_index(directory, ("detection",))
    try:
        splits = {split: [_record(directory, entry) for entry in entries] for split, entries in index.entries.items()}
    except (KeyError, RuntimeError, TypeError, ValueError) as err:
        # RuntimeError is how torch says that there are not as many boxes as labels.
        raise damaged(ANNOTATIONS, err) from err
    for split in ("train", "val"):
        if not splits.get(split):
            raise DatasetInvalid(f"the dataset has no image in the split '{split}'; import one with both train and val")
    if not any((record.labels > 0).any() for record in splits["train"]):
        raise DatasetInvalid("no training image has a box; import annotations with the images")
    _check_labels(splits, len(index.meta.classes))
    return Dataset(classes=index.meta.classes, splits={name: tuple(records) for name, records in splits.items()})


def _record(directory: Path, entry: Mapping[str, Any]) -> Record:
    labels = torch.tensor(entry["labels"], dtype=torch.int64)
    return Record(
        span=Span.of(directory, entry),
        height=int(entry["height"]),
        width=int(entry["width"]),
        boxes=torch.tensor(entry["boxes"], dtype=torch.float32).reshape(len(labels), 4),
        labels=labels,
        is_crowd=_flags(entry, "iscrowd", len(labels)) | _flags(entry, "difficult", len(labels)),
        area=torch.tensor(entry["area"], dtype=torch.float32).reshape(len(labels)),
    )


def _flags(entry: Mapping[str, Any], name: str, count: int) -> Tensor:
    return torch.tensor(entry.get(name, [0] * count), dtype=torch.bool).reshape(count)


def _check_labels(splits: Mapping[str, Sequence[Record]], num_classes: int) -> None:
    for name, records in splits.items():
        for record in records:
            if bool(((record.labels < 1) | (record.labels > num_classes)).any()):
                raise DatasetInvalid(f"{record.member} in '{name}' has a label outside 1 to {num_classes}")


class SquareImages:
    """The images of a split fitted into squares: the first ones stay in memory, up to a budget."""

    def __init__(self, records: Sequence[Record], *, size: int, cache_mib: int) -> None:
        self.records = records
        self.size = size
        self._stored = StoredImages(len(records), self._load, shape=(3, size, size), cache_mib=cache_mib)

    def __len__(self) -> int:
        return len(self.records)

    def fit_of(self, index: int) -> Fit:
        """Return where the image lies in its square; reads nothing."""
        return fit(self.records[index].height, self.records[index].width, self.size)

    def gather(self, indices: np.ndarray[Any, np.dtype[np.int64]]) -> Tensor:
        """Return images by index, uint8 (N, 3, S, S)."""
        return self._stored.gather(indices)

    def _load(self, index: int) -> Tensor:
        record = self.records[index]
        try:
            square, placed = read_square(record.read(), self.size, upright=False)
        except ImageInvalid as err:
            raise DatasetInvalid(f"{record.member}: {err}; import the dataset again without it") from err
        if placed != self.fit_of(index):
            raise DatasetInvalid(f"{record.member} is not {record.width} x {record.height}; import the dataset again")
        return square


@dataclass(frozen=True, slots=True)
class Batch:
    """Images with their truths, padded to the same number: a label of 0 is no box.

    From the source, `images` are uint8 (N, 3, S, S) still to be changed as `drawn`; on the device
    they are changed and normalised, and `drawn` is None. `boxes` (N, M, 4) are xyxy in pixels of
    the changed square; `labels` are (N, M).
    """

    images: Tensor
    boxes: Tensor
    labels: Tensor
    drawn: warp.Draw | None

    def to(self, placement: Placement, config: Augment) -> Batch:
        """Move to the device and apply there what was drawn."""
        device = placement.device
        images = self.images.to(device, non_blocking=True)
        if self.drawn is not None:
            images = warp.render(images, self.drawn.to(device), config)
        return Batch(
            images=images.to(memory_format=placement.memory_format),
            boxes=self.boxes.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
            drawn=None,
        )


class TrainBatches:
    """Augmented batches as a pure function of the step; crowds are no truths."""

    def __init__(self, records: Sequence[Record], *, data: Data, augmentation: Augment, seed: int) -> None:
        self._images = SquareImages(records, size=data.image_size, cache_mib=data.cache_mib)
        self._data, self._augmentation, self._seed = data, augmentation, seed
        self._boxes, self._labels = _pad(self._images)
        self._order = ShuffledBatches(seed=seed, count=len(records), batch_size=data.batch_size)
        self.steps_per_epoch, self.batch_size = self._order.steps_per_epoch, self._order.batch_size

    def batch(self, step: int) -> Batch:
        """Return the batch of a step: the same for the same data, config, seed and step."""
        return self.rows(step, slice(None))

    def rows(self, step: int, rows: slice) -> Batch:
        """Return some rows of the batch of a step; no image of the others is read."""
        indices = np.asarray(self._order.indices(step))
        places = torch.from_numpy(indices)
        boxes, labels = _trim(self._boxes[places], self._labels[places])
        drawn = warp.draw(len(indices), self._augmentation, step_generator(self._seed, step))
        size, min_visible = self._data.image_size, self._augmentation.min_visible
        boxes, labels = augment.move_boxes(boxes, labels, drawn, size=size, min_visible=min_visible)
        return Batch(
            images=self._images.gather(indices[rows]), boxes=boxes[rows], labels=labels[rows], drawn=drawn.rows(rows)
        )


def _pad(images: SquareImages) -> tuple[Tensor, Tensor]:
    kept = [record.labels[~record.is_crowd] for record in images.records]
    most = max(1, *(len(labels) for labels in kept)) if kept else 1
    boxes, labels = torch.zeros(len(kept), most, 4), torch.zeros(len(kept), most, dtype=torch.int64)
    for row, record in enumerate(images.records):
        labels[row, : len(kept[row])] = kept[row]
        boxes[row, : len(kept[row])] = images.fit_of(row).to_square(record.boxes[~record.is_crowd])
    return boxes, labels


def _trim(boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    most = int((labels > 0).sum(1).max())
    rounded = max(1, -(-most // _TRUTHS_STRIDE)) * _TRUTHS_STRIDE
    return boxes[:, :rounded], labels[:, :rounded]
