"""Matches as people see them: a query, and the nearest faces of a gallery with their similarity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw
from torch import Tensor

from services.core.fonts import font
from workers.families.images import to_pixels

_SIDE = 96
_CAPTION = 20
_GAP = 12
_RIGHT, _WRONG, _QUERY = "#2e8b3d", "#d1193e", "#404040"


@dataclass(frozen=True, slots=True)
class Match:
    """A face of the gallery, uint8 (3, S, S); `is_accepted` tells whether it is as similar as the threshold asks."""

    face: Tensor
    similarity: float
    is_right: bool
    is_accepted: bool


def match_row(query: Tensor, matches: Sequence[Match]) -> Image.Image:
    """Show a query, a gap, and its matches from the nearest on: green where it is the same person, else red.

    A similarity in brackets is below the threshold.
    """
    page = Image.new("RGB", (_SIDE * (len(matches) + 1) + _GAP, _SIDE + _CAPTION), "white")
    _paste(page, query, x=0, text="query", colour=_QUERY)
    for place, match in enumerate(matches):
        text = f"{match.similarity:.2f}" if match.is_accepted else f"({match.similarity:.2f})"
        colour = _RIGHT if match.is_right else _WRONG
        _paste(page, match.face, x=_SIDE * (place + 1) + _GAP, text=text, colour=colour)
    return page


def _paste(page: Image.Image, face: Tensor, *, x: int, text: str, colour: str) -> None:
    picture = Image.fromarray(to_pixels(face)).resize((_SIDE - 4, _SIDE - 4), Image.Resampling.BICUBIC)
    canvas = ImageDraw.Draw(page)
    canvas.rectangle([x, 0, x + _SIDE - 1, _SIDE + _CAPTION - 1], fill=colour)
    page.paste(picture, (x + 2, 2))
    canvas.text((x + 6, _SIDE + _CAPTION / 2 - 1), text, fill="white", font=font(13), anchor="lm")
