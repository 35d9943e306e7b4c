"""Real handwritten digits whose pictures are tinted, each digit in its own hue; how light a pixel is tells nothing of it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from tests.builders.digits import NUM_TRAIN, enlarge, shuffled_digits
from workers.families.images import from_tanh, to_pixels
from workers.families.translation.lab import from_lab

CHROMA = 0.3
"""Over 110; every screen shows it in any hue at this lightness."""
_DARKEST, _LIGHTEST = 0.1, 0.5
"""Of the range of Tanh: between 55 and 75 of 100."""


def hue(digit: int) -> float:
    """Return the angle of a digit's colour."""
    return 2 * math.pi * digit / 10


def write_coloured_digits(
    directory: Path, *, seed: int = 0, size: int = 32, train: int = NUM_TRAIN, val: int = 360
) -> Path:
    """Write `{train,val}/DIGIT/*.png`."""
    scans, labels = shuffled_digits(seed)
    for split, first, count in (("train", 0, train), ("val", NUM_TRAIN, val)):
        for number in range(first, min(first + count, len(scans))):
            folder = directory / split / str(labels[number])
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(tinted(enlarge(scans[number], size), labels[number])).save(folder / f"{number:05d}.png")
    return directory


def tinted(grey: npt.NDArray[np.uint8], digit: int) -> npt.NDArray[np.uint8]:
    """Return a grey picture (H, W) in the digit's hue, (H, W, 3)."""
    light = _DARKEST + torch.from_numpy(grey).float()[None, None] / 255 * (_LIGHTEST - _DARKEST)
    colour = torch.tensor([math.cos(hue(digit)), math.sin(hue(digit))]).reshape(1, 2, 1, 1) * CHROMA
    return to_pixels(from_tanh(from_lab(light, colour.expand(-1, -1, *grey.shape)))[0])
