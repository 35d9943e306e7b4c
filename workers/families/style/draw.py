"""What was painted, beside what it was made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from workers.families.images import to_pixels
from workers.families.pictures import captioned, lay_out, png

_GAP = 4
_SMALLEST, _LARGEST = 160, 384
"""Pixels of the longer side of a picture in the sheet."""
_MOST_STYLES = 4


@dataclass(frozen=True, slots=True)
class Case:
    """A content picture and what was made of it, uint8 (3, H, W) each."""

    content: Tensor
    painted: Tensor


def samples_page(cases: Sequence[Case], styles: Sequence[Tensor]) -> bytes:
    """Show the style pictures, and below them each content picture beside what was made of it, as one PNG."""
    shown = list(styles[:_MOST_STYLES])
    left_out = len(styles) - len(shown)
    captions = ["style", *[""] * (len(shown) - 1)]
    if left_out:
        captions[-1] = f"and {left_out} more"
    top = lay_out([_cell(one, word) for one, word in zip(shown, captions, strict=True)], columns=len(shown), gap=_GAP)
    pairs = [
        lay_out([_cell(case.content, "content"), _cell(case.painted, "painted")], columns=2, gap=_GAP) for case in cases
    ]
    columns = 1 if len(pairs) == 1 else 2
    return png(lay_out([top, lay_out(pairs, columns=columns, gap=3 * _GAP)], columns=1, gap=3 * _GAP))


def _cell(picture: Tensor, caption: str) -> Image.Image:
    shown = Image.fromarray(to_pixels(picture))
    shown.thumbnail((_LARGEST, _LARGEST))
    zoom = max(1, _SMALLEST // max(shown.size))
    shown = shown.resize((shown.width * zoom, shown.height * zoom), Image.Resampling.NEAREST)
    return captioned(shown, caption)
