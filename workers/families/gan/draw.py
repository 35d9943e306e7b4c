"""Sheets of generated samples, for people."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from PIL import Image
from torch import Tensor

from workers.families.gan.data import to_pixels
from workers.families.images import to_pixels as to_array
from workers.families.pictures import captioned, lay_out, png, sheet

_MIN_CELL = 48
"""Pixels of a sample's side in the picture; smaller ones are enlarged."""
_GAP = 2
_CLASS_GAP = 8
_MOST_ABREAST = 12
"""Classes side by side."""


def grid(images: Tensor, *, columns: int) -> bytes:
    """Return images (N, C, H, W) from -1 to 1 as one PNG."""
    return sheet(_cells(images), columns=columns, gap=_GAP)


def by_class(images: Tensor, labels: Tensor, classes: Sequence[str]) -> bytes:
    """Return images (N, C, H, W) of classes (N,) as one PNG: those of a class stand together under its name.

    Each class has as many, in whole rows; what is left over of some is left out.
    """
    counts = Counter(labels.tolist())
    shown, each = sorted(counts), min(counts.values())
    rows = math.ceil(len(shown) / _MOST_ABREAST)
    abreast = math.ceil(len(shown) / rows)
    # As many columns a class as make the whole page somewhat wider than high.
    columns = math.ceil((each * rows / abreast) ** 0.5)
    each -= each % columns
    blocks = [
        captioned(lay_out(_cells(images[labels == label][:each]), columns=columns, gap=_GAP), classes[label])
        for label in shown
    ]
    return png(lay_out(blocks, columns=abreast, gap=_CLASS_GAP))


def compared(rows: Mapping[str, Tensor]) -> bytes:
    """Return rows of images, (N, C, H, W) each, under their captions as one PNG."""
    blocks = [captioned(lay_out(_cells(row), columns=len(row), gap=_GAP), caption) for caption, row in rows.items()]
    return png(lay_out(blocks, columns=1, gap=_CLASS_GAP))


def _cells(images: Tensor) -> list[Image.Image]:
    pixels = to_pixels(images.cpu()).expand(-1, 3, -1, -1)
    zoom = max(1, -(-_MIN_CELL // max(images.shape[2:])))
    size = (images.shape[3] * zoom, images.shape[2] * zoom)
    return [Image.fromarray(to_array(one)).resize(size, Image.Resampling.NEAREST) for one in pixels]
