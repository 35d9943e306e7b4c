"""Real handwritten digits (scikit-learn's 1,797 scans of 8x8) as image folders; nothing is downloaded.

A scan and everything made from it lie in one split only. The same arguments write the same files.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from services.datasets.digit_scenes import PHOTOS, photo

NUM_TRAIN = 1437
NUM_SOURCE = 1000
"""Of `write_source_digits`; the target's digits are all others."""

Pixels = npt.NDArray[np.uint8]


def write_digits(
    directory: Path, *, seed: int = 0, size: int = 28, train: int = NUM_TRAIN, val: int = 360, classes: int = 10
) -> Path:
    """Write `{train,val}/DIGIT/*.png`, grey images of `size` pixels, of the first `classes` digits only."""
    scans, labels = shuffled_digits(seed, classes)
    _write(directory / "train", ((n, enlarge(scans[n], size), labels[n]) for n in range(train)))
    first = min(train, NUM_TRAIN) if classes < 10 else NUM_TRAIN
    held_out = range(first, min(first + val, len(scans)))
    _write(directory / "val", ((n, enlarge(scans[n], size), labels[n]) for n in held_out))
    return directory


def write_source_digits(directory: Path, *, seed: int = 0, size: int = 16, val: int = 100) -> Path:
    """Write what a digit classifier is trained on before it is tuned: plain digits and their inverses.

    Uses the first `NUM_SOURCE` scans only; the last `val` of them are held out.
    """
    scans, labels = shuffled_digits(seed)
    for split, numbers in (("train", range(NUM_SOURCE - val)), ("val", range(NUM_SOURCE - val, NUM_SOURCE))):
        plain = ((n, enlarge(scans[n], size), labels[n]) for n in numbers)
        _write(directory / split, plain)
        inverse = ((n + len(scans), 255 - enlarge(scans[n], size), labels[n]) for n in numbers)
        _write(directory / split, inverse)
    return directory


def write_blended_digits(directory: Path, *, seed: int = 0, size: int = 16, shots: int = 20, val: int = 500) -> Path:
    """Write digits blended into photos: `shots` a class to train on, from scans the source never saw.

    Each image is the difference of a photo and a digit, as in MNIST-M (Ganin et al. 2016); photos of val
    do not occur in train. More of val than there are scans left show each in more places.
    """
    scans, labels = shuffled_digits(seed)
    chosen: dict[str, list[int]] = {"train": [], "val": []}
    for n in range(NUM_SOURCE, len(scans)):
        is_wanted = sum(labels[m] == labels[n] for m in chosen["train"]) < shots
        chosen["train" if is_wanted else "val"].append(n)
    for stream, (split, numbers) in enumerate(chosen.items()):
        photos = [photo(name) for name in PHOTOS[split]]
        count = len(numbers) if split == "train" else val
        shown = ((turn * len(scans) + n, n) for turn in range(count) for n in numbers)
        rng = np.random.default_rng([seed, 0xB1E4D, stream])
        _write(
            directory / split,
            ((name, _blend(scans[n], photos, size, rng), labels[n]) for name, n in islice(shown, count)),
        )
    return directory


def shuffled_digits(seed: int, classes: int = 10) -> tuple[npt.NDArray[np.float32], list[int]]:
    """Return scans (N, 8, 8) of values 0 to 1 and their digits, in the seed's order."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng([seed, 0xD161]).permutation(len(digits.images))
    order = order[digits.target[order] < classes]
    return (digits.images[order] / 16.0).astype(np.float32), [int(label) for label in digits.target[order]]


def enlarge(scan: npt.NDArray[np.float32], size: int) -> Pixels:
    """Return a scan as `size` x `size` grey pixels, white on black."""
    image = Image.fromarray(scan * 255)
    if size != len(scan):
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(image).round(), 0, 255).astype(np.uint8)


def _blend(scan: npt.NDArray[np.float32], photos: list[Image.Image], size: int, rng: np.random.Generator) -> Pixels:
    picture = photos[int(rng.integers(len(photos)))]
    side = 4 * size
    left, top = (int(rng.integers(length - side)) for length in picture.size)
    crop = picture.resize((size, size), Image.Resampling.BOX, box=(left, top, left + side, top + side))
    # Full contrast would hide many digits, even from people.
    ground = np.asarray(crop, dtype=np.float32) * 0.6
    return np.abs(ground - enlarge(scan, size)[..., None]).astype(np.uint8)


def _write(folder: Path, items: Iterable[tuple[int, Pixels, int]]) -> None:
    for number, pixels, label in items:
        target = folder / str(label)
        target.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(target / f"{number:05d}.png")
