"""The images of a split, each cut to one shape: what families without boxes or masks learn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from workers.families.records import RecordSet, StoredImages
from workers.families.supervised import spread

_GREY = (0.299, 0.587, 0.114)
"""Luma of ITU-R BT.601, as Pillow weighs colours."""
_LOOKED_AT = 16
_TRACE = 24
"""Most that the channels of a grey pixel differ."""
_SPOT = 0.005
"""Share of an image's pixels."""

Indices = np.ndarray[tuple[int], np.dtype[np.int64]]


class Shape(Protocol):
    """The shape that images are cut to: height and width in pixels, and 1 channel for grey or 3 for colour."""

    @property
    def image_size(self) -> tuple[int, int]: ...

    @property
    def channels(self) -> Literal[1, 3]: ...


@dataclass(frozen=True, slots=True)
class Cut:
    """A shape that no config says in these words."""

    image_size: tuple[int, int]
    channels: Literal[1, 3]


def to_shape(image: Tensor, shape: Shape) -> Tensor:
    """Cut the largest middle part of the wanted proportions from a uint8 image (3, H, W) and scale it: (C, h, w)."""
    height, width = image.shape[-2:]
    tall, wide = shape.image_size
    scale = min(height / tall, width / wide)
    crop = (min(height, round(tall * scale)), min(width, round(wide * scale)))
    top, left = (height - crop[0]) // 2, (width - crop[1]) // 2
    cut = image[:, top : top + crop[0], left : left + crop[1]]
    if crop != (tall, wide):
        cut = functional.interpolate(cut[None], (tall, wide), mode="bilinear", antialias=True)[0]
    if shape.channels == 1:
        cut = (cut * torch.tensor(_GREY)[:, None, None]).sum(0, keepdim=True).round().to(torch.uint8)
    return cut


def has_colour(records: RecordSet) -> bool:
    """Return whether any of a few images, spread over the set, has more than a trace of colour."""
    return any(_is_coloured(records.image(index)) for index in spread(len(records), _LOOKED_AT))


def grey_notices(records: RecordSet, shape: Shape) -> list[str]:
    """Return what people should hear before coloured images are learned in grey."""
    if shape.channels == 3 or not has_colour(records):
        return []
    return ["the images have colour, and data.channels=1 trains them in grey; set data.channels=3 for colour"]


def _is_coloured(image: Tensor) -> bool:
    # Grey pictures have traces of colour after JPEG, and coloured ones may have little more than a spot of it.
    distance = image.amax(0) - image.amin(0)
    return float((distance > _TRACE).float().mean()) > _SPOT


class ShapedImages:
    """The images of a split, cut to shape, with whatever labels they have."""

    def __init__(self, records: RecordSet, *, data: Shape, cache_mib: int) -> None:
        self.records = records
        shape = (data.channels, *data.image_size)
        self._stored = StoredImages(
            len(records), lambda index: to_shape(records.image(index), data), shape=shape, cache_mib=cache_mib
        )

    def __len__(self) -> int:
        return len(self.records)

    def gather(self, indices: np.ndarray[Any, np.dtype[np.int64]]) -> Tensor:
        """Return uint8 images (N, C, H, W)."""
        return self._stored.gather(indices)
