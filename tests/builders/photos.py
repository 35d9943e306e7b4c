"""Real photos that ship inside scikit-image, as a folder of images; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

from services.datasets.digit_scenes import photo

TRAIN = ("astronaut", "rocket", "coffee", "camera", "coins", "gravel", "brick", "grass", "moon", "hubble_deep_field",
         "immunohistochemistry", "retina")  # fmt: skip
VAL = ("chelsea", "stereo_motorcycle")

_LARGEST = 512
"""Pixels of a training photo's longer side, so that one vast photo is not most of what is learned."""


def write_photos(directory: Path) -> Path:
    """Write `train/*.png` and `val/*.png`; photos of training are cut to their middle where they are larger."""
    for split, names in (("train", TRAIN), ("val", VAL)):
        (directory / split).mkdir(parents=True, exist_ok=True)
        for name in names:
            picture = photo(name)
            if split == "train":
                left, top = (max(0, (length - _LARGEST) // 2) for length in picture.size)
                picture = picture.crop(
                    (
                        left,
                        top,
                        *(
                            min(length, _LARGEST + start)
                            for length, start in zip(picture.size, (left, top), strict=True)
                        ),
                    )
                )
            picture.save(directory / split / f"{name}.png")
    return directory
