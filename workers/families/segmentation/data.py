"""Squares of images with their masks, and training batches made of them; a pure function of the step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from workers.engine.data import ShuffledBatches, step_generator
from workers.families import warp
from workers.families.base import Placement
from workers.families.letterbox import Fit, fit, letterbox
from workers.families.records import IGNORED_PIXEL, RecordSet, StoredImages
from workers.families.sections import Warp
from workers.families.segmentation.config import Data

FAMILIES = ("segmentation",)


class Squares:
    """The images and masks of a split, fitted into squares; what no image covers is ignored in the mask."""

    def __init__(self, records: RecordSet, *, size: int, cache_mib: int) -> None:
        self.records = records
        self._size = size
        count = len(records)
        # A mask has one byte a pixel where an image has three.
        self._images = StoredImages(count, self._image, shape=(3, size, size), cache_mib=cache_mib * 3 // 4)
        self._masks = StoredImages(count, self._mask, shape=(size, size), cache_mib=cache_mib // 4)

    def __len__(self) -> int:
        return len(self.records)

    def gather(self, indices: np.ndarray[tuple[int], np.dtype[np.int64]]) -> tuple[Tensor, Tensor]:
        """Return uint8 images (N, 3, S, S) and masks (N, S, S)."""
        return self._images.gather(indices), self._masks.gather(indices)

    def images(self, indices: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Tensor:
        return self._images.gather(indices)

    def fit_of(self, index: int) -> Fit:
        record = self.records.records[index]
        return fit(record.height, record.width, self._size)

    def _image(self, index: int) -> Tensor:
        return letterbox(self.records.image(index), self._size)[0]

    def _mask(self, index: int) -> Tensor:
        placed = self.fit_of(index)
        height, width = placed.inner
        inner = functional.interpolate(self.records.mask(index)[None, None], (height, width), mode="nearest-exact")
        square = torch.full((self._size, self._size), IGNORED_PIXEL, dtype=torch.uint8)
        square[placed.top : placed.top + height, placed.left : placed.left + width] = inner[0, 0]
        return square


@dataclass(frozen=True, slots=True)
class Batch:
    """Images with their masks of class indices.

    From the source, `images` are uint8 (N, 3, S, S), still to be changed as `drawn`, and so are `masks`
    (N, S, S); on the device both are changed, the images normalised, and `drawn` is None.
    """

    images: Tensor
    masks: Tensor
    drawn: warp.Draw | None

    def to(self, placement: Placement, config: Warp) -> Batch:
        """Move to the device and apply there what was drawn."""
        device = placement.device
        images = self.images.to(device, non_blocking=True)
        masks = self.masks.to(device, non_blocking=True)
        if self.drawn is not None:
            drawn = self.drawn.to(device)
            images = warp.render(images, drawn, config)
            masks = warp.render_masks(masks, drawn, config, outside=IGNORED_PIXEL)
        return Batch(images=images.to(memory_format=placement.memory_format), masks=masks, drawn=None)


class TrainBatches:
    """Augmented batches as a pure function of the step."""

    def __init__(self, squares: Squares, *, data: Data, augmentation: Warp, seed: int) -> None:
        self._squares, self._augmentation, self._seed = squares, augmentation, seed
        self._order = ShuffledBatches(seed=seed, count=len(squares), batch_size=data.batch_size)
        self.steps_per_epoch, self.batch_size = self._order.steps_per_epoch, self._order.batch_size

    def batch(self, step: int) -> Batch:
        """Return the batch of a step: the same for the same data, config, seed and step."""
        indices = np.asarray(self._order.indices(step))
        images, masks = self._squares.gather(indices)
        drawn = warp.draw(len(indices), self._augmentation, step_generator(self._seed, step))
        return Batch(images=images, masks=masks, drawn=drawn)
