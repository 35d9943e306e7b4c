"""Sheets of translated pictures, for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from PIL import Image
from torch import Tensor

from workers.families.images import from_tanh, to_pixels
from workers.families.pictures import captioned, lay_out, png

_SMALLEST, _LARGEST = 96, 256
"""Pixels of a picture's side in the sheet."""
_GAP = 4
_WIDEST = 1200
"""Pixels of a page: cases stand side by side as long as they fit."""


def compared(columns: Mapping[str, Iterable[Tensor]]) -> bytes:
    """Return pictures of the range of Tanh, (N, 3, H, W) by their captions, as one PNG: a case a line."""
    cases = zip(*columns.values(), strict=True)
    lines = [
        lay_out(
            [captioned(_cell(one), word) for word, one in zip(columns, case, strict=True)],
            columns=len(columns),
            gap=_GAP,
        )
        for case in cases
    ]
    abreast = max(1, (_WIDEST + 3 * _GAP) // (lines[0].width + 3 * _GAP))
    return png(lay_out(lines, columns=abreast, gap=3 * _GAP))


def _cell(image: Tensor) -> Image.Image:
    picture = Image.fromarray(to_pixels(from_tanh(image.cpu())))
    picture.thumbnail((_LARGEST, _LARGEST))
    zoom = max(1, -(-_SMALLEST // max(picture.size)))
    return picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST)
