"""Real handwritten digits as two domains: grey ones, and others inverted and tinted; no scan is in both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from tests.builders.digits import enlarge, shuffled_digits

TINT = (250, 170, 70)
"""What the inverse's white is tinted with."""

Pixels = npt.NDArray[np.uint8]


def write_two_digits(directory: Path, *, seed: int = 0, train: int = 700, val: int = 150, size: int = 32) -> Path:
    """Write `{train,val}A/*.png`, digits white on black, and `{train,val}B/*.png`, other digits dark on the tint.

    `train` and `val` count each domain. A comes from the first half of the scans, B from the other.
    """
    scans, labels = shuffled_digits(seed)
    half = len(scans) // 2
    for domain, first in (("A", 0), ("B", half)):
        for split, start, count in (("train", 0, train), ("val", train, val)):
            folder = directory / f"{split}{domain}"
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(first + start, first + min(start + count, half)):
                grey = enlarge(scans[number], size)
                pixels = grey if domain == "A" else to_other_domain(grey)
                Image.fromarray(pixels).save(folder / f"{labels[number]}-{number:05d}.png")
    return directory


def to_other_domain(grey: Pixels) -> Pixels:
    """Return what a digit of domain A looks like in domain B, (H, W) to (H, W, 3): what is to be found out unpaired."""
    tinted = (255.0 - grey)[..., None] * np.array(TINT) / 255
    return tinted.round().astype(np.uint8)
