"""Which split an image belongs to, when the source says so and when it does not."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace

from services.datasets.checked import CheckedImage
from services.datasets.copies import copies
from services.datasets.problem import ProblemKind, Problems
from services.datasets.split_rule import SplitRule

Unit = Callable[[CheckedImage], str]
_NOTHING_HELD_OUT = (
    "The dataset has no val split, and no domain has two different images of which one could be set aside: all are trained "
    "on, and only recipes that need none held out take it, such as style/gatys."
)


def assign_splits(
    images: list[CheckedImage], problems: Problems, rule: SplitRule, *, family: str
) -> tuple[list[CheckedImage], list[str]]:
    """Return the images with splits that hold at least train and val, and notes on what was decided.

    Where val is missing, a share of train becomes val, picked by content: the same images give the same
    split, whatever their names and order. The same bytes never end in both. Every class gives its share;
    of faces, whole people are set aside. Of two domains there may be no val at all: one picture of each is
    all that the transfer of a style takes.
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
    return _carve(images, problems, rule, family=family)


def _refuse_strays(images: list[CheckedImage], problems: Problems) -> None:
    for image in images:
        if not image.split:
            text = "belongs to no split while others do; put it into train, val or test"
            problems.add(ProblemKind.SPLIT, image.name, text)


def _carve(
    images: list[CheckedImage], problems: Problems, rule: SplitRule, *, family: str
) -> tuple[list[CheckedImage], list[str]]:
    train = [image for image in images if image.split == "train"]
    is_face = family == "face"
    unit = _by_person if is_face else _by_copy(train)
    chosen = _draw_people(train, rule) if is_face else _draw_images(train, rule, unit)
    moved = [
        replace(image, split="val") if image.split == "train" and unit(image) in chosen else image for image in images
    ]
    count = sum(image.split == "val" for image in moved)
    if not count and family == "domains":
        return images, [_NOTHING_HELD_OUT]
    if not 0 < count < len(train):
        text = "needs at least two different images, one to train on and one to evaluate on; add more"
        problems.add(ProblemKind.SPLIT, "dataset", text)
        return [], []
    what = f"{len(chosen)} people with " if is_face else ""
    by = "name" if is_face else "content hash"
    return moved, [f"The dataset has no val split: {what}{count} of {len(images)} images were set aside by {by}."]


def _by_person(image: CheckedImage) -> str:
    return str(image.label)


def _by_copy(images: list[CheckedImage]) -> Unit:
    """Return what names all copies of an image, which are moved as a whole."""
    leader = copies(images)
    return lambda image: leader[image.facts.sha256]


def _draw_people(images: list[CheckedImage], rule: SplitRule) -> set[str]:
    # One person alone cannot be taken for another.
    return rule.draw({_by_person(image) for image in images}, least=2)


def _draw_images(images: list[CheckedImage], rule: SplitRule, unit: Unit) -> set[str]:
    """Draw from every class on its own; images without classes are one."""
    classes: dict[int | None, set[str]] = defaultdict(set)
    owner: dict[str, int | None] = {}
    for image in images:
        digest = unit(image)
        classes[owner.setdefault(digest, image.label)].add(digest)
    return set().union(*(rule.draw(digests) for digests in classes.values()))
