"""Outlines of shapes with the shapes filled in, as aligned pairs; the same arguments write the same files."""

from __future__ import annotations

import colorsys
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

COLOURS = {"disc": (214, 48, 49), "box": (39, 174, 96), "triangle": (41, 98, 255)}
"""What each shape is filled with where the colour tells the shape."""
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)
_OVERSAMPLED = 4

Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]
Outline = tuple[str, Box]


def write_outlines(
    directory: Path,
    *,
    seed: int = 0,
    train: int = 800,
    val: int = 100,
    size: int = 32,
    hue: Literal["shape", "random"] = "shape",
) -> Path:
    """Write `A/{train,val}/*.png`, a black outline on white, and `B/...`, the same shape filled.

    Its colour is that of its kind or, where `hue` is random, any full colour: then one outline has many answers.
    """
    shown: set[Outline] = set()
    for stream, (split, count) in enumerate((("train", train), ("val", val))):
        rng = np.random.default_rng([seed, 0x0171, stream])
        for side in "AB":
            (directory / side / split).mkdir(parents=True, exist_ok=True)
        for number in range(1, count + 1):
            outline = _draw_outline(size, rng, apart_from=shown if split == "val" else frozenset())
            shown.add(outline)
            colour = COLOURS[outline[0]] if hue == "shape" else full_colour(rng.random())
            for side, fill in (("A", _WHITE), ("B", colour)):
                _draw(*outline, size, fill=fill).save(directory / side / split / f"{number:05d}.png")
    return directory


def _draw_outline(size: int, rng: np.random.Generator, *, apart_from: AbstractSet[Outline]) -> Outline:
    """Return a kind of shape and where it lies; nothing held out is shown in training."""
    while True:
        shape = tuple(COLOURS)[int(rng.integers(len(COLOURS)))]
        side = int(rng.integers(size // 2, size * 7 // 8))
        left, top = (int(place) for place in rng.integers(1, size - side, 2))
        outline = (shape, (left, top, left + side, top + side))
        if outline not in apart_from:
            return outline


def full_colour(hue: float) -> Colour:
    """Return the colour of a hue between 0 and 1."""
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.9, 0.9))
    return red, green, blue


def _draw(shape: str, box: Box, size: int, *, fill: Colour) -> Image.Image:
    picture = Image.new("RGB", (size * _OVERSAMPLED, size * _OVERSAMPLED), _WHITE)
    canvas = ImageDraw.Draw(picture)
    x1, y1, x2, y2 = (_OVERSAMPLED * edge for edge in box)
    if shape == "disc":
        canvas.ellipse((x1, y1, x2, y2), fill=fill, outline=_BLACK, width=_OVERSAMPLED)
    elif shape == "box":
        canvas.rectangle((x1, y1, x2, y2), fill=fill, outline=_BLACK, width=_OVERSAMPLED)
    else:
        canvas.polygon([(x1, y2), (x2, y2), ((x1 + x2) / 2, y1)], fill=fill, outline=_BLACK, width=_OVERSAMPLED)
    return picture.resize((size, size), Image.Resampling.BOX)
