"""Which split an image belongs to, when the source says so and when it does not."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from services.datasets.checked import CheckedImage
from services.datasets.problem import ProblemKind, Problems

_VAL_SHARE = 0.1


def assign_splits(images: list[CheckedImage], problems: Problems) -> tuple[list[CheckedImage], list[str]]:
    """Return the images with splits that hold at least train and val, and notes on what was decided.

    Where val is missing, a tenth of train becomes val, picked by content: the same images give the same
    split, whatever their names and order.
    """
    found = Counter(image.split for image in images)
    if found[""] and len(found) > 1:
        _refuse_strays(images, problems)
        return [], []
    if len(found) == 1:
        images = [replace(image, split="train") for image in images]
    elif "train" not in found:
        problems.add(ProblemKind.SPLIT, "dataset", f"has {' and '.join(sorted(found))} but no train split; add one")
        return [], []
    elif "val" in found:
        return images, []
    return _carve(images, problems)


def _refuse_strays(images: list[CheckedImage], problems: Problems) -> None:
    for image in images:
        if not image.split:
            text = "belongs to no split while others do; put it into train, val or test"
            problems.add(ProblemKind.SPLIT, image.name, text)


def _carve(images: list[CheckedImage], problems: Problems) -> tuple[list[CheckedImage], list[str]]:
    digests = sorted({image.facts.sha256 for image in images if image.split == "train"})
    if len(digests) < 2:
        text = "needs at least two different images, one to train on and one to evaluate on; add more"
        problems.add(ProblemKind.SPLIT, "dataset", text)
        return [], []
    chosen = set(digests[: max(1, round(len(digests) * _VAL_SHARE))])
    moved = [
        replace(image, split="val") if image.split == "train" and image.facts.sha256 in chosen else image
        for image in images
    ]
    count = sum(image.split == "val" for image in moved)
    return moved, [f"The dataset has no val split: {count} of {len(images)} images were set aside by content hash."]
