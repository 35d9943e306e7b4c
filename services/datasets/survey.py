"""Counts what a checked dataset holds, and looks for what may surprise its owner."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from services.datasets.checked import CheckedDataset, CheckedImage
from services.datasets.copies import copies
from services.datasets.near import look_alikes
from services.datasets.report import ImageSizes, Report, SplitCounts, Tally
from services.datasets.source import SPLITS

_IMBALANCE = 10
_CONFLICT = "{} images occur with more than one label: no network can learn both."
_CONFLICTS = {
    "pairs": "{} images occur with more than one target: without noise no network can learn both.",
    "domains": "{} images lie in both domains: there is nothing to turn them into.",
}


def make_report(
    dataset: CheckedDataset, *, dropped: Tally, clipped: Tally, ignored: Mapping[str, int], notes: list[str]
) -> Report:
    """Count everything countable in a checked dataset."""
    splits = {split: _counts(dataset, images) for split in SPLITS if (images := dataset.of_split(split))}
    boxes = [box for image in dataset.images for box in image.boxes]
    findings = _repeats(dataset.images) | {"near_duplicates": _near_duplicates(dataset)}
    return Report(
        format=dataset.format,
        family=dataset.family,
        classes=[] if dataset.family == "face" else list(dataset.classes),
        attributes=list(dataset.attributes),
        splits=splits,
        image_bytes=sum(image.size_bytes for image in dataset.images),
        image_sizes=_sizes(dataset.images),
        crowd_boxes=sum(box.is_crowd for box in boxes),
        difficult_boxes=sum(box.is_difficult for box in boxes),
        dropped_zero_area_boxes=dropped.finding(),
        clipped_boxes=clipped.finding(),
        verification_pairs=sum(len(fold) for fold in dataset.folds),
        empty_classes=_empty_classes(dataset, splits),
        ignored={reason: count for reason, count in ignored.items() if count},
        notes=notes + _remarks(dataset, splits, findings),
        **{name: tally.finding() for name, tally in findings.items()},
    )


def _counts(dataset: CheckedDataset, images: list[CheckedImage]) -> SplitCounts:
    figures: dict[str, Any] = {"images": len(images)}
    if dataset.family == "detection":
        boxes = Counter(box.label - 1 for image in images for box in image.boxes)
        figures["boxes"] = boxes.total()
        figures["images_without_boxes"] = sum(not image.boxes for image in images)
        figures["boxes_per_class"] = _by_name(dataset.classes, boxes)
    elif dataset.family == "face":
        people = Counter(image.label for image in images)
        figures["identities"] = len(people)
        figures["images_per_identity"] = (min(people.values()), max(people.values()))
    elif dataset.family == "segmentation":
        *pixels, figures["ignored_pixels"] = _pixels(images)
        figures["pixels_per_class"] = dict(zip(dataset.classes, pixels, strict=True))
    elif dataset.classes:
        figures["images_per_class"] = _by_name(dataset.classes, Counter(image.label for image in images))
    if dataset.attributes:
        sums = [sum(column) for column in zip(*(image.attributes for image in images), strict=True)]
        figures["images_per_attribute"] = dict(zip(dataset.attributes, sums, strict=True))
    return SplitCounts(**figures)


def _by_name(classes: tuple[str, ...], counts: Mapping[Any, int]) -> dict[str, int]:
    return {name: counts.get(label, 0) for label, name in enumerate(classes)}


def _pixels(images: list[CheckedImage]) -> list[int]:
    return [sum(column) for column in zip(*(image.mask.pixels for image in images if image.mask), strict=True)]


def _sizes(images: tuple[CheckedImage, ...]) -> ImageSizes:
    widths, heights = {image.facts.width for image in images}, {image.facts.height for image in images}
    return ImageSizes(width=(min(widths), max(widths)), height=(min(heights), max(heights)))


def _repeats(images: tuple[CheckedImage, ...]) -> dict[str, Tally]:
    """Find the same bytes twice in one split, in two splits, and under two labels or targets."""
    by_digest: dict[str, list[CheckedImage]] = defaultdict(list)
    by_copy: dict[str, list[CheckedImage]] = defaultdict(list)
    leader = copies(images)
    for image in images:
        by_digest[image.facts.sha256].append(image)
        by_copy[leader[image.facts.sha256]].append(image)
    duplicates, leaks, conflicts = Tally(), Tally(), Tally()
    for group in by_copy.values():
        if len({image.split for image in group}) > 1:
            leaks.add(_names(group))
    for group in by_digest.values():
        if len({image.split for image in group}) < len(group):
            duplicates.add(_names(group))
        if len({(image.label, image.digests[1:]) for image in group}) > 1:
            conflicts.add(_names(group))
    return {"duplicate_images": duplicates, "split_leakage": leaks, "conflicting_labels": conflicts}


def _names(group: list[CheckedImage]) -> str:
    return ", ".join(image.name for image in group[:3])


def _near_duplicates(dataset: CheckedDataset) -> Tally:
    """Find images of other splits that look like one of train without being the same bytes."""
    train = dataset.of_split("train")
    digests = {image.facts.sha256 for image in train}
    others = [image for image in dataset.images if image.split != "train" and image.facts.sha256 not in digests]
    found = Tally()
    pairs = look_alikes([image.facts.look for image in train], [image.facts.look for image in others])
    for other, one in pairs:
        found.add(f"{others[other].name} looks like {train[one].name}")
    return found


def _per_class(counts: SplitCounts) -> dict[str, int]:
    return counts.boxes_per_class or counts.images_per_class or counts.pixels_per_class or {}


def _empty_classes(dataset: CheckedDataset, splits: Mapping[str, SplitCounts]) -> list[str]:
    if dataset.family == "face":
        return []
    return [name for name in dataset.classes if not any(_per_class(counts).get(name) for counts in splits.values())]


def _remarks(dataset: CheckedDataset, splits: Mapping[str, SplitCounts], findings: Mapping[str, Tally]) -> list[str]:
    notes = []
    if leaks := findings["split_leakage"].count:
        notes.append(f"{leaks} images occur in more than one split: evaluation will look better than it is.")
    if alike := findings["near_duplicates"].count:
        notes.append(f"{alike} held-out images look like images of train: evaluation may look better than it is.")
    if conflicts := findings["conflicting_labels"].count:
        notes.append(_CONFLICTS.get(dataset.family, _CONFLICT).format(conflicts))
    train, val = (_per_class(splits[split]) if split in splits else {} for split in ("train", "val"))
    missing = [name for name, count in val.items() if count and not train.get(name)]
    if missing:
        notes.append(f"{len(missing)} classes occur in val but never in train, such as {missing[0]!r}.")
    if dataset.family == "classification":
        notes += _imbalance(train)
    if dataset.family == "domains" and "val" in splits:
        held_out = [name for name in dataset.classes if not val.get(name)]
        notes += [f"val holds no image of the domain {name!r}: nothing of it is evaluated." for name in held_out]
    return notes


def _imbalance(train: Mapping[str, int]) -> list[str]:
    least, most = min(train, key=lambda name: train[name]), max(train, key=lambda name: train[name])
    if train[most] < _IMBALANCE * max(1, train[least]):
        return []
    figures = f"{train[most]} images of {most!r} but {train[least]} of {least!r}"
    return [f"Classes are unbalanced: train has {figures}; accuracy will hide how the rare ones do."]
