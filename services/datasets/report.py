"""The validation report kept with every version: what was imported, what was left aside, what to look at."""

from __future__ import annotations

from collections import Counter, defaultdict

from pydantic import BaseModel, ConfigDict

from services.datasets.checked import CheckedDataset, CheckedImage
from services.datasets.source import SPLITS

MAX_EXAMPLES = 20


class SplitCounts(BaseModel):
    """Figures of one split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: int
    boxes: int
    images_without_boxes: int
    boxes_per_class: dict[str, int]


class Finding(BaseModel):
    """Something that is no error but may surprise: how often, and the first few places."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int = 0
    examples: list[str] = []


class Report(BaseModel):
    """JSON-ready; stored with the dataset version and shown to its owner."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: str
    classes: list[str]
    splits: dict[str, SplitCounts]
    image_bytes: int
    crowd_boxes: int
    difficult_boxes: int
    dropped_zero_area_boxes: Finding
    clipped_boxes: Finding
    duplicate_images: Finding
    split_leakage: Finding
    empty_classes: list[str]
    ignored: dict[str, int]
    notes: list[str]


class Tally:
    """Counts places and keeps the first few."""

    def __init__(self) -> None:
        self.count = 0
        self.examples: list[str] = []

    def add(self, where: str) -> None:
        self.count += 1
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(where)

    def finding(self) -> Finding:
        return Finding(count=self.count, examples=self.examples)


def make_report(
    dataset: CheckedDataset, *, dropped: Tally, clipped: Tally, ignored: dict[str, int], notes: list[str]
) -> Report:
    """Count everything countable in a checked dataset."""
    splits = {split: _counts(dataset, images) for split in SPLITS if (images := dataset.of_split(split))}
    boxes = [box for image in dataset.images for box in image.boxes]
    duplicates, leaks = _repeats(dataset.images)
    used = {box.label for box in boxes}
    return Report(
        format=dataset.format,
        classes=list(dataset.classes),
        splits=splits,
        image_bytes=sum(image.facts.size_bytes for image in dataset.images),
        crowd_boxes=sum(box.is_crowd for box in boxes),
        difficult_boxes=sum(box.is_difficult for box in boxes),
        dropped_zero_area_boxes=dropped.finding(),
        clipped_boxes=clipped.finding(),
        duplicate_images=duplicates.finding(),
        split_leakage=leaks.finding(),
        empty_classes=[name for label, name in enumerate(dataset.classes, start=1) if label not in used],
        ignored={reason: count for reason, count in ignored.items() if count},
        notes=notes + _remarks(splits, leaks),
    )


def _counts(dataset: CheckedDataset, images: list[CheckedImage]) -> SplitCounts:
    labels = Counter(box.label for image in images for box in image.boxes)
    return SplitCounts(
        images=len(images),
        boxes=labels.total(),
        images_without_boxes=sum(not image.boxes for image in images),
        boxes_per_class={name: labels[label] for label, name in enumerate(dataset.classes, start=1)},
    )


def _repeats(images: tuple[CheckedImage, ...]) -> tuple[Tally, Tally]:
    """Find the same bytes twice in one split, and in two splits."""
    by_digest: dict[str, list[CheckedImage]] = defaultdict(list)
    for image in images:
        by_digest[image.facts.sha256].append(image)
    duplicates, leaks = Tally(), Tally()
    for group in by_digest.values():
        where = ", ".join(image.name for image in group[:3])
        if len({image.split for image in group}) > 1:
            leaks.add(where)
        if len({image.split for image in group}) < len(group):
            duplicates.add(where)
    return duplicates, leaks


def _remarks(splits: dict[str, SplitCounts], leaks: Tally) -> list[str]:
    notes = []
    if leaks.count:
        notes.append(f"{leaks.count} images occur in more than one split: evaluation will look better than it is.")
    if "train" in splits and "val" in splits:
        missing = [
            n for n, count in splits["val"].boxes_per_class.items() if count and not splits["train"].boxes_per_class[n]
        ]
        if missing:
            notes.append(f"{len(missing)} classes occur in val but never in train, such as {missing[0]!r}.")
    return notes
