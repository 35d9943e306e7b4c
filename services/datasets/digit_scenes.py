"""Demo data: real handwritten digits on real photos, written as a COCO detection dataset.

The digits are scikit-learn's 8x8 scans, the photos ship inside scikit-image; nothing is downloaded.
No digit sample and no photo of the validation split occurs in training. Photos that show printed
characters are left out: their digits would be unlabelled objects.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

PHOTOS = {
    "train": (
        "astronaut",
        "chelsea",
        "rocket",
        "brick",
        "grass",
        "immunohistochemistry",
        "hubble_deep_field",
        "stereo_motorcycle",
    ),
    "val": ("coffee", "camera", "coins", "gravel", "retina", "moon"),
}
"""Source photos of scikit-image by split; the two lists share nothing."""

CLASSES = tuple(str(digit) for digit in range(10))
JPEG_QUALITY = 92
_TRAIN_SHARE = 0.8
_MAX_DIGITS = 6
_HEIGHT_SHARE = (20 / 128, 48 / 128)
_MAX_OVERLAP = 0.05
_PLACEMENT_TRIES = 20
_INK_THRESHOLD = 0.35

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Supply:
    """What one split may draw from."""

    digits: FloatArray
    labels: npt.NDArray[np.int64]
    photos: tuple[Image.Image, ...]


@dataclass(frozen=True, slots=True)
class _Glyph:
    """A digit ready to be inked: coverage in 0..1, cropped to what is visible."""

    coverage: FloatArray
    label: int


@dataclass(frozen=True, slots=True)
class _Mark:
    """Where a digit lies in its scene, in whole pixels, right and bottom exclusive."""

    x1: int
    y1: int
    x2: int
    y2: int
    label: int

    def overlap(self, other: _Mark) -> float:
        """Return the shared area as a fraction of the smaller of the two."""
        width = min(self.x2, other.x2) - max(self.x1, other.x1)
        height = min(self.y2, other.y2) - max(self.y1, other.y1)
        return max(0, width) * max(0, height) / min(self.area, other.area)

    @property
    def area(self) -> int:
        return (self.x2 - self.x1) * (self.y2 - self.y1)


def write_digit_scenes(directory: Path, *, seed: int, train_images: int, val_images: int, size: int = 128) -> Path:
    """Write `images/{train,val}` and `annotations/instances_{train,val}.json` under `directory` and return it.

    The same arguments write the same bytes; image n of a split does not depend on how many there are.
    """
    supplies = _supplies(seed)
    for index, (split, count) in enumerate((("train", train_images), ("val", val_images))):
        _write_split(directory, split, supplies[split], seed=(seed, index), count=count, size=size)
    return directory


def write_digit_scenes_zip(
    archive: Path, directory: Path, *, seed: int, train_images: int, val_images: int, size: int = 128
) -> Path:
    """Write the dataset under `directory` and pack it into `archive`, byte for byte the same each time."""
    write_digit_scenes(directory, seed=seed, train_images=train_images, val_images=val_images, size=size)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as packed:
        for path in sorted(p for p in directory.rglob("*") if p.is_file()):
            name = path.relative_to(directory).as_posix()
            packed.writestr(zipfile.ZipInfo(name), path.read_bytes())
    return archive


def _supplies(seed: int) -> dict[str, _Supply]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)
    order = np.random.default_rng([seed, 0xD161]).permutation(len(images))
    cut = int(len(order) * _TRAIN_SHARE)
    chosen = {"train": order[:cut], "val": order[cut:]}
    return {
        split: _Supply(
            digits=images[chosen[split]],
            labels=digits.target[chosen[split]].astype(np.int64),
            photos=tuple(photo(name) for name in names),
        )
        for split, names in PHOTOS.items()
    }


def photo(name: str) -> Image.Image:
    """Open a photo of scikit-image as RGB; of a stereo pair, the left view."""
    from skimage import data

    pixels = getattr(data, name)()
    return Image.fromarray(pixels[0] if isinstance(pixels, tuple) else pixels).convert("RGB")


def _write_split(directory: Path, split: str, supply: _Supply, *, seed: tuple[int, int], count: int, size: int) -> None:
    folder = directory / "images" / split
    folder.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        scene, marks = _scene(supply, np.random.default_rng([*seed, number]), size)
        name = f"{number:06d}.jpg"
        scene.save(folder / name, quality=JPEG_QUALITY, subsampling=0)
        images.append({"id": number, "file_name": name, "width": size, "height": size})
        annotations += [_annotation(len(annotations) + n, number, mark) for n, mark in enumerate(marks, start=1)]
    categories = [{"id": n, "name": name} for n, name in enumerate(CLASSES, start=1)]
    target = directory / "annotations" / f"instances_{split}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def _annotation(annotation_id: int, image_id: int, mark: _Mark) -> dict[str, Any]:
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": mark.label + 1,
        "bbox": [mark.x1, mark.y1, mark.x2 - mark.x1, mark.y2 - mark.y1],
        "area": mark.area,
        "iscrowd": 0,
    }


def _scene(supply: _Supply, rng: np.random.Generator, size: int) -> tuple[Image.Image, list[_Mark]]:
    """Compose one picture of 1 to 6 digits; a digit that finds no free place is left out."""
    canvas = _background(supply, rng, size)
    marks: list[_Mark] = []
    for _ in range(int(rng.integers(1, _MAX_DIGITS + 1))):
        glyph = _glyph(supply, rng, size)
        if (mark := _place(glyph, marks, rng, size)) is not None:
            _ink(canvas, glyph, mark, rng)
            marks.append(mark)
    return Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8)), marks


def _background(supply: _Supply, rng: np.random.Generator, size: int) -> FloatArray:
    """Cut a random square of a photo, perhaps mirrored, with its contrast and brightness varied."""
    photo = supply.photos[int(rng.integers(len(supply.photos)))]
    side = int(rng.uniform(size, min(photo.size)))
    left, top = int(rng.integers(photo.width - side + 1)), int(rng.integers(photo.height - side + 1))
    crop = photo.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    pixels = np.asarray(crop, dtype=np.float32)
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    mean = pixels.mean()
    varied: FloatArray = (pixels - mean) * rng.uniform(0.5, 0.9) + mean * rng.uniform(0.8, 1.2)
    return varied.astype(np.float32)


def _glyph(supply: _Supply, rng: np.random.Generator, size: int) -> _Glyph:
    """Enlarge a random scan smoothly to a random height, tilt it slightly and crop it to its ink."""
    pick = int(rng.integers(len(supply.digits)))
    height = rng.uniform(*_HEIGHT_SHARE) * size
    # The scans fill their 8 rows, so 8 rows become the wanted height; the margin keeps tilted corners.
    side = max(8, round(height * 12 / 8))
    padded = Image.fromarray(np.pad(supply.digits[pick], 2))
    large = padded.resize((side, side), Image.Resampling.BICUBIC)
    tilted = large.rotate(float(rng.uniform(-15, 15)), Image.Resampling.BICUBIC)
    # Enlarging blurs an edge over a whole source pixel; the ramp makes it a pen's edge again.
    coverage = np.clip((np.asarray(tilted, dtype=np.float32) - 0.2) / 0.4, 0, 1)
    visible = coverage > _INK_THRESHOLD
    rows, columns = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
    cropped = coverage[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return _Glyph(cropped, int(supply.labels[pick]))


def _place(glyph: _Glyph, taken: list[_Mark], rng: np.random.Generator, size: int) -> _Mark | None:
    height, width = glyph.coverage.shape
    for _ in range(_PLACEMENT_TRIES):
        x, y = int(rng.integers(size - width + 1)), int(rng.integers(size - height + 1))
        mark = _Mark(x, y, x + width, y + height, glyph.label)
        if all(mark.overlap(other) <= _MAX_OVERLAP for other in taken):
            return mark
    return None


def _ink(canvas: FloatArray, glyph: _Glyph, mark: _Mark, rng: np.random.Generator) -> None:
    """Paint the digit in a random colour that stands out from what lies under it."""
    patch = canvas[mark.y1 : mark.y2, mark.x1 : mark.x2]
    is_dark_ground = patch.mean() < 115
    low, high = (195, 256) if is_dark_ground else (0, 60)
    colour = rng.uniform(low, high, size=3)
    # One free channel gives saturated inks; the other two keep the contrast.
    colour[int(rng.integers(3))] = rng.uniform(0, 255)
    alpha = (glyph.coverage * rng.uniform(0.85, 1.0))[..., None]
    patch *= 1 - alpha
    patch += alpha * colour
