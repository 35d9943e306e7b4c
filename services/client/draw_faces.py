"""Pictures of comparisons: a face beside whom it resembles, with similarities as bars against the threshold. Pillow only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from services.client.draw import PALETTE
from services.core.fonts import font
from workers.families.pictures import cut

SIDE = 240
_PANEL, _ROW, _EDGE, _SIZE = 420, 44, 16, 16
_PAPER, _INK, _FAINT = (250, 250, 250), (20, 20, 20), (215, 215, 215)
YES, NO, LIMIT = PALETTE[2], PALETTE[5], PALETTE[4]
"""Colours of what reaches the threshold, of what does not, and of the threshold."""


def draw_matches(image: Image.Image, matches: Sequence[tuple[str, float]], threshold: float) -> Image.Image:
    """Return the face beside a bar for each (label, similarity), in the order given."""
    height = max(SIDE, _ROW * (len(matches) + 1)) + 2 * _EDGE
    picture = Image.new("RGB", (SIDE + _PANEL + 3 * _EDGE, height), _PAPER)
    picture.paste(_square(image), (_EDGE, _EDGE))
    canvas, letters = ImageDraw.Draw(picture), font(_SIZE)
    left = SIDE + 2 * _EDGE
    is_known = any(similarity >= threshold for _, similarity in matches)
    title = f"known, threshold {threshold:.2f}" if is_known else f"unknown, threshold {threshold:.2f}"
    canvas.text((left, _EDGE), title, fill=_INK, font=letters)
    for row, (label, similarity) in enumerate(matches, start=1):
        _draw_bar(canvas, (left, _EDGE + row * _ROW), similarity, threshold)
        text = cut(label, _PANEL, size=_SIZE, ending=f"  {similarity:.3f}")
        canvas.text((left, _EDGE + row * _ROW), text, fill=_INK, font=letters)
    return picture


def draw_pair(
    image: Image.Image, other: Image.Image | None, *, label: str, similarity: float, threshold: float
) -> Image.Image:
    """Return two faces, or one and a label, over the verdict."""
    sides = 1 if other is None else 2
    size = (sides * SIDE + (sides + 1) * _EDGE, SIDE + 3 * _EDGE + _ROW)
    picture = Image.new("RGB", (max(size[0], _PANEL + 2 * _EDGE), size[1]), _PAPER)
    picture.paste(_square(image), (_EDGE, _EDGE))
    if other is not None:
        picture.paste(_square(other), (SIDE + 2 * _EDGE, _EDGE))
    canvas, letters = ImageDraw.Draw(picture), font(_SIZE)
    top = SIDE + 2 * _EDGE
    verdict = "same" if similarity >= threshold else "different"
    _draw_bar(canvas, (_EDGE, top), similarity, threshold)
    text = cut(f"{verdict} as {label}" if label else verdict, _PANEL, size=_SIZE, ending=f"  {similarity:.3f}")
    canvas.text((_EDGE, top), text, fill=_INK, font=letters)
    return picture


def load(path: Path) -> Image.Image:
    """Return an image file upright and in colour."""
    with Image.open(path) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def _square(image: Image.Image) -> Image.Image:
    return ImageOps.fit(ImageOps.exif_transpose(image).convert("RGB"), (SIDE, SIDE), Image.Resampling.LANCZOS)


def _draw_bar(canvas: ImageDraw.ImageDraw, at: tuple[int, int], similarity: float, threshold: float) -> None:
    """Draw a similarity below a line of text; the whole width is 1, and what is opposite has no bar."""
    left, top = at[0], at[1] + 22
    canvas.rectangle((left, top, left + _PANEL, top + 12), fill=_FAINT)
    filled = round(_PANEL * min(max(similarity, 0.0), 1.0))
    if filled:
        canvas.rectangle((left, top, left + filled, top + 12), fill=YES if similarity >= threshold else NO)
    limit = left + round(_PANEL * min(max(threshold, 0.0), 1.0))
    canvas.line((limit, top - 3, limit, top + 15), fill=LIMIT, width=3)
