"""Sheets of generated samples, for people."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from torch import Tensor

from workers.families import sheets
from workers.families.images import from_tanh
from workers.families.pictures import captioned, lay_out, png
from workers.families.sheets import BLOCK_GAP, GAP, cells

_MOST_ABREAST = 12
"""Classes side by side."""


def grid(images: Tensor, *, columns: int) -> bytes:
    """Return images (N, C, H, W) from -1 to 1 as one PNG."""
    return sheets.grid(from_tanh(images), columns=columns)


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
        captioned(lay_out(cells(from_tanh(images[labels == label][:each])), columns=columns, gap=GAP), classes[label])
        for label in shown
    ]
    return png(lay_out(blocks, columns=abreast, gap=BLOCK_GAP))


def compared(rows: Mapping[str, Tensor]) -> bytes:
    """Return rows of images, (N, C, H, W) each and from -1 to 1, under their captions as one PNG."""
    return sheets.compared({caption: from_tanh(row) for caption, row in rows.items()})
