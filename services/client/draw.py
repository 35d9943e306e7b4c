"""Drawings of answers: boxes on the picture they belong to, and their files. Pillow only."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageOps

from services.core.fonts import Font, font
from workers.families.pictures import cut

# Told apart by hue and lightness, also by most colour-blind eyes (Okabe and Ito 2008, without black).
PALETTE = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
    (255, 255, 255),
)
_SMALL_SIDE, _LARGEST_SIDE = 320, 1600
_PAD = 6


def draw_detections(image: Image.Image, prediction: Mapping[str, Any]) -> Image.Image:
    """Return a copy with every box drawn; small pictures are enlarged first so that labels stay readable.

    `prediction` holds `boxes` as xyxy pixels of the sent picture, `labels`, `scores` and, where given,
    `label_ids`, which choose the colours.
    """
    picture = ImageOps.exif_transpose(image).convert("RGB")
    scale = enlargement(picture.size)
    if scale > 1:
        picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.LANCZOS)
    line = max(2, min(picture.size) // 200)
    size = max(12, min(picture.size) // 28)
    canvas = ImageDraw.Draw(picture)
    labels = [str(label) for label in prediction.get("labels", ())]
    ids = _colour_ids(prediction, labels)
    rows = list(zip(prediction.get("boxes", ()), labels, prediction.get("scores", ()), ids, strict=True))
    # The surest box is drawn last and stays on top.
    for box, label, score, colour_id in sorted(rows, key=lambda row: float(row[2])):
        colour = PALETTE[colour_id % len(PALETTE)]
        corners = _inside(box, scale, picture.size)
        canvas.rectangle(corners, outline=colour, width=line)
        text = cut(label, picture.width - _PAD, size=size, ending=f" {score:.2f}")
        _draw_label(canvas, corners, text, letters=font(size), colour=colour, size=picture.size)
    return picture


def enlargement(size: tuple[int, int]) -> int:
    """Return how many times larger a picture of so many pixels is shown: small ones to be seen, none beyond a screen."""
    return max(1, min(round(_SMALL_SIDE / max(1, min(size))), _LARGEST_SIDE // max(size)))


def draw_file(source: Path, prediction: Mapping[str, Any], target: Path) -> None:
    with Image.open(source) as image:
        draw_detections(image, prediction).save(target)


def save_as(content: bytes, target: Path) -> None:
    """Write a picture in the format that the target is named after: as it came where it has that one."""
    kind = Image.registered_extensions()[target.suffix.lower()]
    with Image.open(io.BytesIO(content)) as image:
        if image.format == kind:
            target.write_bytes(content)
        else:
            # Palettes and transparency are not in every format.
            (image if image.mode in ("L", "RGB") else image.convert("RGB")).save(target, kind)


def is_picture(path: Path) -> bool:
    """Return whether a path is named like a picture that can be written."""
    return Image.registered_extensions().get(path.suffix.lower()) in Image.SAVE


def drawing_path(target: Path, number: int, count: int, *, stem: str) -> Path:
    """Return where one of `count` drawings goes: `target` itself, beside it, or into it where it is a folder.

    Of several, one named like a picture gives `NAME-1.png`, `NAME-2.png`; any other name is a folder, which is made.
    """
    if target.is_dir() or (count > 1 and not is_picture(target)):
        target.mkdir(parents=True, exist_ok=True)
        return target / f"{number:03d}-{stem}.png"
    return target if count == 1 else target.with_name(f"{target.stem}-{number}{target.suffix}")


def _colour_ids(prediction: Mapping[str, Any], labels: Sequence[str]) -> list[int]:
    if ids := prediction.get("label_ids"):
        return [int(each) - 1 for each in ids]
    names = sorted(set(labels))
    return [names.index(label) for label in labels]


def _inside(box: Sequence[float], scale: int, size: tuple[int, int]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (float(value) * scale for value in box)
    left, top = min(max(x1, 0.0), size[0] - 1.0), min(max(y1, 0.0), size[1] - 1.0)
    return left, top, min(max(x2, left), size[0] - 1.0), min(max(y2, top), size[1] - 1.0)


def _draw_label(
    canvas: ImageDraw.ImageDraw,
    corners: tuple[float, float, float, float],
    text: str,
    *,
    letters: Font,
    colour: tuple[int, int, int],
    size: tuple[int, int],
) -> None:
    left, top, right, bottom = canvas.textbbox((0, 0), text, font=letters)
    width, height = right - left + _PAD, bottom - top + 4
    x = min(corners[0], size[0] - width)
    # Above the box where there is room, inside it otherwise.
    y = corners[1] - height if corners[1] >= height else corners[1]
    canvas.rectangle((x, y, x + width, y + height), fill=colour)
    canvas.text((x + 3 - left, y + 2 - top), text, font=letters, fill=_ink(colour))


def _ink(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    luminance = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    return (0, 0, 0) if luminance > 140 else (255, 255, 255)
