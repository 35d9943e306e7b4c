"""What each family asks of a dataset as a whole, once every image has its split."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace

from services.datasets.checked import CheckedImage
from services.datasets.problem import ProblemKind, Problems, listing
from services.datasets.source import IGNORED_PIXEL

Images = list[CheckedImage]


def check_demands(
    family: str, images: Images, classes: tuple[str, ...], problems: Problems, *, is_split_stated: bool
) -> None:
    """Tell what keeps a dataset from being trained on and evaluated; `images` have their final splits.

    `is_split_stated` is False where we chose the val split; what that leaves out is no mistake of the owner.
    """
    if family == "classification" and is_split_stated:
        _check_classes_in_both(images, classes, problems)
    if (check := _CHECKS.get(family)) is not None and images:
        check(images, classes, problems)


def order_identities(images: Images, classes: tuple[str, ...]) -> tuple[Images, tuple[str, ...]]:
    """Return faces whose labels count the people of train first, so that a training head needs no gaps."""
    is_held_out = dict.fromkeys(range(len(classes)), True)
    is_held_out |= {image.label: False for image in images if image.split == "train" and image.label is not None}
    order = sorted(range(len(classes)), key=lambda label: (is_held_out[label], label))
    new = {old: label for label, old in enumerate(order)}
    moved = [replace(image, label=new[image.label]) for image in images if image.label is not None]
    return moved, tuple(classes[old] for old in order)


def _check_detection(images: Images, classes: tuple[str, ...], problems: Problems) -> None:
    del classes
    if not any(image.boxes for image in images if image.split == "train"):
        problems.add(ProblemKind.BOX, "dataset", "no image of the train split has a box; annotate some objects")


def _check_classification(images: Images, classes: tuple[str, ...], problems: Problems) -> None:
    del images
    if len(classes) < 2:
        text = f"has one class, {classes[0]!r}; a classifier needs two or more folders" if classes else "has no class"
        problems.add(ProblemKind.CLASS, "dataset", f"{text}; put the images of each class into a folder of its name")


def _check_classes_in_both(images: Images, classes: tuple[str, ...], problems: Problems) -> None:
    shown = {split: {image.label for image in images if image.split == split} for split in ("train", "val")}
    for split, other in (("train", "val"), ("val", "train")):
        for label in sorted(label for label in shown[split] - shown[other] if label is not None):
            text = f"has images in {split} but none in {other}; add some or remove the class"
            problems.add(ProblemKind.CLASS, f"class {classes[label]!r}", text)


def _check_segmentation(images: Images, classes: tuple[str, ...], problems: Problems) -> None:
    masks = [image.mask for image in images if image.split == "train" and image.mask is not None]
    shown = {label for mask in masks for label, count in enumerate(mask.pixels[:-1]) if count}
    if len(shown) < 2:
        found = f"only {classes[next(iter(shown))]!r}" if shown else "no class at all"
        text = f"the masks of the train split show {found}; a segmentation needs two classes or more"
        text = f"{text}, such as background and one other"
        if any(mask.pixels[-1] for mask in masks):
            # Masks of 0 and 255 are how many tools draw one object on black.
            text += (
                f". Pixels of value {IGNORED_PIXEL} are ignored, they are no class: store objects as 1, 2, ... in the order "
                "of the list of classes (classes.txt)"
            )
        problems.add(ProblemKind.MASK, "dataset", text)


def _check_domains(images: Images, classes: tuple[str, ...], problems: Problems) -> None:
    if len(classes) != 2:
        text = f"has {len(classes)} domains ({listing(classes)})" if classes else "has no domain"
        problems.add(ProblemKind.CLASS, "dataset", f"{text}; give it two folders of images, one a domain")
        return
    shown = {image.label for image in images if image.split == "train"}
    for label, name in enumerate(classes):
        if label not in shown:
            text = "has no image in train; add some, one at least"
            problems.add(ProblemKind.CLASS, f"domain {name!r}", text)


def _check_face(images: Images, classes: tuple[str, ...], problems: Problems) -> None:
    people: dict[str, Counter[int]] = defaultdict(Counter)
    for image in images:
        if image.label is not None:
            people[image.split][image.label] += 1
    for split in ("val", "test"):
        shared = [classes[label] for label in people[split] if label in people["train"]]
        if shared:
            text = f"shares {len(shared)} people with train: {listing(shared)}; keep every person in one split"
            problems.add(ProblemKind.SPLIT, split, text)
    for split in ("train", "val"):
        if len(people[split]) < 2 or max(people[split].values()) < 2:
            text = "needs two people or more, and two images or more of one of them; add images, or set others aside"
            text += " (val_fraction, split_seed)" if split == "val" else ""
            problems.add(ProblemKind.LABEL, split, text)


_CHECKS: dict[str, Callable[[Images, tuple[str, ...], Problems], None]] = {
    "detection": _check_detection,
    "classification": _check_classification,
    "segmentation": _check_segmentation,
    "domains": _check_domains,
    "face": _check_face,
}
