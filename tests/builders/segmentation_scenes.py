"""Coloured shapes on noise with the class of every pixel, as pairs of images and masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from services.datasets.shape_scenes import CLASSES, draw_masked_scene

NAMES = ("background", *CLASSES)


def write_segmentation_scenes(
    directory: Path, *, seed: int = 0, train: int = 400, val: int = 100, size: int = 64
) -> Path:
    """Write `images/{train,val}/*.png`, masks of the same names under `masks/`, and `classes.txt`."""
    for stream, (split, count) in enumerate((("train", train), ("val", val))):
        rng = np.random.default_rng([seed, stream])
        for kind in ("images", "masks"):
            (directory / kind / split).mkdir(parents=True, exist_ok=True)
        for number in range(1, count + 1):
            picture, _, mask = draw_masked_scene(size, rng)
            picture.save(directory / "images" / split / f"{number:05d}.png")
            mask.save(directory / "masks" / split / f"{number:05d}.png")
    (directory / "classes.txt").write_text("".join(f"{name}\n" for name in NAMES))
    return directory
