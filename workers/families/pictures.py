"""Pictures for people: sheets of images as one PNG, their captions, and colours to tell classes apart.

The same pictures give the same bytes, since a resume is compared with what it continues.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw

from services.core.fonts import font, legible

# Twelve colours told apart on light and dark grounds.
PALETTE = (
    *("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080"),
    *("#f032e6", "#9a6324", "#808000", "#ffe119", "#42d4f4", "#bfef45"),
)
TEXT_SIZE = 12
LINE = 18
"""Height of a line of text in pixels."""
_CUT = ".."


def sheet(pictures: Sequence[Image.Image], *, columns: int = 3, gap: int = 6) -> bytes:
    """Lay pictures out in rows and return one PNG."""
    return png(lay_out(pictures, columns=columns, gap=gap))


def lay_out(pictures: Sequence[Image.Image], *, columns: int, gap: int) -> Image.Image:
    """Lay pictures out in rows on a white page."""
    columns = min(columns, len(pictures))
    rows = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
    width = max(sum(p.width for p in row) + gap * (len(row) - 1) for row in rows)
    height = sum(max(p.height for p in row) for row in rows) + gap * (len(rows) - 1)
    page = Image.new("RGB", (width, height), "white")
    y = 0
    for row in rows:
        x = 0
        for picture in row:
            page.paste(picture, (x, y))
            x += picture.width + gap
        y += max(p.height for p in row) + gap
    return page


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def line_height(size: int) -> int:
    """Return the height of a line of letters of so many pixels."""
    return LINE * size // TEXT_SIZE


def captioned(picture: Image.Image, text: str, *, size: int = TEXT_SIZE) -> Image.Image:
    """Put a line of text above a picture, cut where it is wider; `size` is that of its letters in pixels."""
    line = line_height(size)
    page = Image.new("RGB", (picture.width, picture.height + line), "white")
    page.paste(picture, (0, line))
    write(page, text, place=(picture.width / 2, line / 2), width=picture.width, size=size)
    return page


def write(
    page: Image.Image,
    text: str,
    *,
    place: tuple[float, float],
    width: float,
    anchor: str = "mm",
    size: int = TEXT_SIZE,
) -> None:
    """Write a line of text in black, cut to a width; the anchor is Pillow's and says which point of it is at `place`."""
    ImageDraw.Draw(page).text(place, cut(text, width, size=size), fill="black", font=font(size), anchor=anchor)


def cut(text: str, width: float, *, size: int = TEXT_SIZE, ending: str = "") -> str:
    """Return the text on one line and legible, with an ending; its last letters are left out where both are wider.

    The width is in pixels.
    """
    text = " ".join(legible(text).split())
    if text_width(text + ending, size=size) <= width:
        return text + ending
    while text and text_width(text + _CUT + ending, size=size) > width:
        text = text[:-1].rstrip()
    return (text + _CUT if text else "") + ending


def text_width(text: str, *, size: int = TEXT_SIZE) -> float:
    """Return how many pixels wide a line of text is."""
    return font(size).getlength(legible(text))
