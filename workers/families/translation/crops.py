"""Crops of pictures and the same made small; batches are pure functions of the step."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from workers.engine.data import ShuffledBatches, step_generator
from workers.families.records import RecordSet
from workers.families.translation.data import Batch
from workers.families.translation.srgan_config import Crops
from workers.families.translation.tiles import shrunk


class WholePictures:
    """Decoded pictures of any size, the first ones in memory up to a budget; none is smaller than `least` pixels a side."""

    def __init__(self, records: RecordSet, *, least: int, cache_mib: int) -> None:
        self.records, self._least = records, least
        self._room = cache_mib * 2**20
        self._stored: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.records)

    def get(self, index: int) -> Tensor:
        """Return a picture, uint8 (3, H, W)."""
        if (stored := self._stored.get(index)) is not None:
            return stored
        picture = at_least(self.records.image(index), self._least)
        if picture.numel() <= self._room:
            self._room -= picture.numel()
            self._stored[index] = picture
        return picture


def at_least(image: Tensor, side: int) -> Tensor:
    """Enlarge a uint8 picture (3, H, W) whose shorter side has fewer pixels."""
    height, width = image.shape[-2:]
    if min(height, width) >= side:
        return image
    factor = side / min(height, width)
    size = (max(side, round(height * factor)), max(side, round(width * factor)))
    return functional.interpolate(image[None], size, mode="bilinear", antialias=True)[0]


class CropBatches:
    """Crops laid in one of their eight ways, and the same made small."""

    def __init__(self, pictures: WholePictures, data: Crops, *, scale: int, seed: int) -> None:
        self._pictures, self._data, self._scale, self._seed = pictures, data, scale, seed
        self._order = ShuffledBatches(seed=seed, count=len(pictures), batch_size=data.batch_size)
        self.steps_per_epoch, self.batch_size = self._order.steps_per_epoch, self._order.batch_size

    def batch(self, step: int) -> Batch:
        """Return the batch of a step: the same for the same data, config, seed and step."""
        generator = step_generator(self._seed, step)
        indices = self._order.indices(step)
        places = torch.rand(len(indices), 2, generator=generator).tolist()
        ways = torch.randint(8, (len(indices),), generator=generator).tolist()
        crops = torch.stack(
            [self._crop(index, place, way) for index, place, way in zip(indices, places, ways, strict=True)]
        )
        return Batch(shrunk(crops, self._scale), crops)

    def _crop(self, index: int, place: list[float], way: int) -> Tensor:
        picture, side = self._pictures.get(index), self._data.image_size
        top, left = (int(at * (length - side + 1)) for at, length in zip(place, picture.shape[-2:], strict=True))
        crop = picture[:, top : top + side, left : left + side]
        return laid(crop, way) if self._data.turn else crop


def laid(image: Tensor, way: int) -> Tensor:
    """Return a picture laid in one of its eight ways: turned by quarters, and mirrored from the fifth on."""
    turned = image.rot90(way % 4, (-2, -1))
    return turned.flip(-1) if way >= 4 else turned


def middle(image: Tensor, side: int) -> Tensor:
    """Return the middle of a picture (..., H, W), at most `side` pixels wide and high."""
    height, width = image.shape[-2:]
    top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
    return image[..., top : top + side, left : left + side]
