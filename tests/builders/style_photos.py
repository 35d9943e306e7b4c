"""Photos as content and one photo as style, all of those that scikit-image bundles: no network is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

_CONTENT = ("chelsea", "coffee", "rocket")
_HELD_OUT = "astronaut"
_STYLE = "immunohistochemistry"
_CROP = 0.6
"""Of the shorter side of a photo."""


def write_one_photo(directory: Path, *, size: int = 128) -> Path:
    """Write `{train,val}/content/*.png` and `train/style/*.png`.

    An astronaut, stained tissue in whose look it is to be redrawn, and held out other photos to compare it with.
    """
    places = {"train/content": (_HELD_OUT,), "train/style": (_STYLE,), "val/content": _CONTENT}
    for place, names in places.items():
        for name in names:
            _save(_middle(_photo(name)), directory / place / f"{name}.png", size)
    return directory


def write_style_photos(directory: Path, *, seed: int = 0, train: int = 60, val: int = 12, size: int = 96) -> Path:
    """Write `{train,val}/content/*.png`, crops of photos, those held out of another one, and one picture of style.

    The held-out style picture is of the same tissue, beside the one that is learned from.
    """
    rng = np.random.default_rng(seed)
    for split, names, count in (("train", _CONTENT, train), ("val", (_HELD_OUT,), val)):
        for number in range(count):
            photo = _photo(names[number % len(names)])
            _save(_crop(photo, rng), directory / split / "content" / f"{number:04d}.png", size)
    tissue = _photo(_STYLE)
    half = tissue.shape[1] // 2
    for split, pixels in (("train", tissue[:, :half]), ("val", tissue[:, half:])):
        _save(_middle(pixels), directory / split / "style" / "tissue.png", size)
    return directory


def _photo(name: str) -> npt.NDArray[np.uint8]:
    from skimage import data

    photo: npt.NDArray[np.uint8] = getattr(data, name)()
    return photo


def _crop(photo: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    height, width = photo.shape[:2]
    side = int(min(height, width) * _CROP)
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    return photo[top : top + side, left : left + side]


def _middle(photo: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    height, width = photo.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return photo[top : top + side, left : left + side]


def _save(pixels: npt.NDArray[Any], path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).resize((size, size), Image.Resampling.LANCZOS).save(path)
