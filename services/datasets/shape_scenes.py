"""Generated scenes of coloured shapes as a COCO folder: a detection set that needs no download.

One to three discs, boxes and triangles lie on a noisy gradient; the same seed gives the same files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ("disc", "box", "triangle")

_RNG = np.random.Generator
_PLACEMENTS = 20
_MAX_OVERLAP = 0.1


def write_shape_scenes(
    directory: Path, *, seed: int, train_images: int = 600, val_images: int = 150, size: int = 64
) -> Path:
    """Write `images/{train,val}` and `annotations/instances_{train,val}.json` under `directory` and return it.

    The same arguments write the same bytes.
    """
    for stream, (split, count) in enumerate((("train", train_images), ("val", val_images))):
        _write_split(directory, split, count=count, size=size, rng=np.random.default_rng([seed, stream]))
    return directory


def _write_split(directory: Path, split: str, *, count: int, size: int, rng: _RNG) -> None:
    (directory / "images" / split).mkdir(parents=True, exist_ok=True)
    (directory / "annotations").mkdir(exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id in range(1, count + 1):
        picture, shapes = draw_scene(size, rng)
        name = f"{image_id:05d}.png"
        picture.save(directory / "images" / split / name)
        images.append({"id": image_id, "file_name": name, "width": size, "height": size})
        for category, (x1, y1, x2, y2) in shapes:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES, start=1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (directory / "annotations" / f"instances_{split}.json").write_text(json.dumps(content), encoding="utf-8")


def draw_scene(size: int, rng: _RNG) -> tuple[Image.Image, list[tuple[int, tuple[int, int, int, int]]]]:
    """Return a scene and its shapes as (category id from 1, xyxy in pixels, right and bottom exclusive)."""
    picture, shapes, _ = draw_masked_scene(size, rng)
    return picture, shapes


def draw_masked_scene(
    size: int, rng: _RNG
) -> tuple[Image.Image, list[tuple[int, tuple[int, int, int, int]]], Image.Image]:
    """Return a scene, its shapes as `draw_scene` does, and the category of every pixel, 0 for the background."""
    picture, mask = Image.fromarray(_background(size, rng)), Image.new("L", (size, size))
    canvas, mask_canvas = ImageDraw.Draw(picture), ImageDraw.Draw(mask)
    shapes: list[tuple[int, tuple[int, int, int, int]]] = []
    for _ in range(int(rng.integers(1, 4))):
        box = _free_place(size, [taken for _, taken in shapes], rng)
        if box is None:
            break
        category = int(rng.integers(1, len(CLASSES) + 1))
        _draw_shape(canvas, category, box, _colour(picture, box, rng))
        _draw_shape(mask_canvas, category, box, category)
        shapes.append((category, box))
    noisy = np.asarray(picture, dtype=np.float64) + rng.normal(0, 8, (size, size, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)), shapes, mask


def _background(size: int, rng: _RNG) -> np.ndarray[Any, np.dtype[np.uint8]]:
    start, stop = rng.uniform(30, 225, (2, 3))
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:size, 0:size] / (size - 1) - 0.5
    along = np.clip(x * np.cos(angle) + y * np.sin(angle) + 0.5, 0, 1)[..., None]
    return np.asarray(start + (stop - start) * along, dtype=np.uint8)


def _free_place(size: int, taken: list[tuple[int, int, int, int]], rng: _RNG) -> tuple[int, int, int, int] | None:
    for _ in range(_PLACEMENTS):
        width, height = (int(v) for v in rng.integers(size // 5, size // 2, 2))
        # Long thin shapes cannot be told apart at this size.
        height = int(np.clip(height, width * 0.6, width / 0.6))
        x, y = int(rng.integers(0, size - width + 1)), int(rng.integers(0, size - height + 1))
        box = (x, y, x + width, y + height)
        if all(_overlap(box, other) <= _MAX_OVERLAP for other in taken):
            return box
    return None


def _overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    smaller = min((b[2] - b[0]) * (b[3] - b[1]) for b in (one, other))
    return width * height / smaller


def _colour(picture: Image.Image, box: tuple[int, int, int, int], rng: _RNG) -> tuple[int, int, int]:
    """Draw a colour that stands out from what lies under the box."""
    under = np.asarray(picture.crop(box), dtype=np.float64).mean((0, 1))
    while True:
        colour = rng.integers(0, 256, 3)
        if float(np.abs(colour - under).max()) >= 80:
            return int(colour[0]), int(colour[1]), int(colour[2])


def _draw_shape(
    canvas: ImageDraw.ImageDraw, category: int, box: tuple[int, int, int, int], colour: tuple[int, int, int] | int
) -> None:
    x1, y1, x2, y2 = box[0], box[1], box[2] - 1, box[3] - 1
    if CLASSES[category - 1] == "disc":
        canvas.ellipse((x1, y1, x2, y2), fill=colour)
    elif CLASSES[category - 1] == "box":
        canvas.rectangle((x1, y1, x2, y2), fill=colour)
    else:
        canvas.polygon([(x1, y2), (x2, y2), ((x1 + x2) / 2, y1)], fill=colour)
