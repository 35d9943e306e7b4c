"""Pictures for people: boxes with class names and scores, and sheets of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw
from torch import Tensor

from services.core.fonts import Font, font
from workers.families.images import to_pixels
from workers.families.pictures import LINE, PALETTE, cut, lay_out, write

_TRUTH = "#ffffff"
_SHORT_SIDE = 320
_GAP = 6
_LEGEND = "thin and white: true; coloured: predicted, with class and score"


@dataclass(frozen=True, slots=True)
class Box:
    """A box to draw, xyxy in pixels of the image; without a score it is a truth: thin and white."""

    xyxy: Sequence[float]
    label: int
    name: str
    score: float | None = None


def draw_boxes(image: Tensor, boxes: Sequence[Box]) -> Image.Image:
    """Draw boxes on a uint8 image (3, H, W), enlarged if it is small."""
    picture = Image.fromarray(to_pixels(image))
    zoom = max(1, -(-_SHORT_SIDE // min(picture.size)))
    picture = picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST)
    canvas = ImageDraw.Draw(picture)
    size = max(12, min(picture.size) // 24)
    for box in sorted(boxes, key=lambda b: b.score or 0.0):
        corners = [value * zoom for value in box.xyxy]
        if box.score is None:
            canvas.rectangle(corners, outline=_TRUTH, width=1)
            continue
        colour = PALETTE[(box.label - 1) % len(PALETTE)]
        canvas.rectangle(corners, outline=colour, width=max(2, min(picture.size) // 160))
        text = cut(box.name, picture.width - 4, size=size, ending=f" {box.score:.2f}")
        _draw_caption(canvas, text, corner=(corners[0], corners[1]), colour=colour, letters=font(size))
    return picture


def samples_page(pictures: Sequence[Image.Image]) -> Image.Image:
    """Lay out pictures with their boxes, and below them what the boxes mean."""
    page = lay_out(pictures, columns=3, gap=_GAP)
    legend = Image.new("RGB", (page.width, LINE), "white")
    write(legend, _LEGEND, place=(_GAP, LINE / 2), width=page.width - _GAP, anchor="lm")
    return lay_out([page, legend], columns=1, gap=_GAP)


def _draw_caption(
    canvas: ImageDraw.ImageDraw,
    text: str,
    *,
    corner: tuple[float, float],
    colour: str,
    letters: Font,
) -> None:
    left, top, right, bottom = canvas.textbbox((0, 0), text, font=letters)
    height = bottom - top + 4
    y = corner[1] - height if corner[1] >= height else corner[1]
    x = max(0.0, min(corner[0], canvas.im.size[0] - (right - left) - 4))
    canvas.rectangle([x, y, x + right - left + 4, y + height], fill=colour)
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    ink = "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 140 else "white"
    canvas.text((x + 2 - left, y + 2 - top), text, fill=ink, font=letters)
