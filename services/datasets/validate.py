"""Holds the parsed dataset against its own files: every image decodes, its boxes and its mask fit it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from services.datasets.checked import CheckedBox, CheckedDataset, CheckedImage, CheckedMask, CheckedTarget
from services.datasets.demand import check_demands, order_identities
from services.datasets.image import ImageFacts, ImageUnusable, inspect_image
from services.datasets.limits import ImportLimits
from services.datasets.mask import store_mask
from services.datasets.problem import ProblemKind, Problems
from services.datasets.report import Report, Tally
from services.datasets.source import MaskUnusable, Reading, SourceBox, SourceDataset, SourceImage, SourceTarget
from services.datasets.split import assign_splits
from services.datasets.split_rule import SplitRule
from services.datasets.survey import make_report

# Rounding in exporters puts edges a fraction of a pixel outside; more than this is a wrong box.
_TOLERANCE_PIXELS = 1.0
_MAX_CLASS_NAME = 200


@dataclass(slots=True)
class _Check:
    """One pass over a dataset."""

    limits: ImportLimits
    problems: Problems
    scratch: Path
    num_classes: int
    on_image: Callable[[str], None] | None = None
    dropped: Tally = field(default_factory=Tally)
    clipped: Tally = field(default_factory=Tally)
    _facts: dict[Path, ImageFacts | None] = field(default_factory=dict)

    def image(self, source: SourceImage) -> CheckedImage | None:
        facts = self._inspect(source)
        if facts is None or not self._is_size_true(source, facts):
            return None
        if len(source.boxes) > self.limits.max_boxes_per_image:
            text = f"{len(source.boxes)} boxes, the limit is {self.limits.max_boxes_per_image}"
            self.problems.add(ProblemKind.BOX, source.where, text)
            return None
        boxes = [checked for box in source.boxes if (checked := self._box(box, facts)) is not None]
        mask = self._mask(source, facts)
        if source.mask is not None and mask is None:
            return None
        target = self._target(source, facts)
        if (source.target is not None and target is None) or not self._halves(source, facts):
            return None
        return CheckedImage(
            source.split,
            source.path,
            source.name,
            facts,
            tuple(boxes),
            source.label,
            source.attributes,
            mask,
            source.landmarks,
            target,
            source.is_side_by_side,
        )

    def _mask(self, source: SourceImage, facts: ImageFacts) -> CheckedMask | None:
        if source.mask is None:
            return None
        if self.on_image is not None:
            self.on_image(source.mask.where)
        try:
            indices = source.mask.indices(facts.width, facts.height)
            return store_mask(indices, self.scratch, num_classes=self.num_classes)
        except MaskUnusable as err:
            self.problems.add(ProblemKind.MASK, source.mask.where, str(err))
            return None

    def _target(self, source: SourceImage, facts: ImageFacts) -> CheckedTarget | None:
        if source.target is None or (found := self._inspect(source.target)) is None:
            return None
        if found.upright_size != facts.upright_size:
            sizes = "is {}x{}, but its partner is {}x{}".format(*found.upright_size, *facts.upright_size)
            self.problems.add(ProblemKind.PAIR, source.target.name, f"{sizes}; store both at one size")
            return None
        return CheckedTarget(source.target.path, source.target.name, found)

    def _halves(self, source: SourceImage, facts: ImageFacts) -> bool:
        """Tell whether the file is one image or two of equal width."""
        width, _ = facts.upright_size
        if not source.is_side_by_side or width % 2 == 0:
            return True
        text = f"has an odd width, {width}, so its halves differ; store A on the left and B on the right, equally wide"
        self.problems.add(ProblemKind.PAIR, source.name, text)
        return False

    def _inspect(self, source: SourceImage | SourceTarget) -> ImageFacts | None:
        if source.path not in self._facts:
            if self.on_image is not None:
                self.on_image(source.name)
            try:
                self._facts[source.path] = inspect_image(source.path, self.limits)
            except ImageUnusable as err:
                self.problems.add(ProblemKind.IMAGE, source.name, str(err))
                self._facts[source.path] = None
        return self._facts[source.path]

    def _is_size_true(self, source: SourceImage, facts: ImageFacts) -> bool:
        """Refuse an image of another size than annotated: its boxes would be at the wrong scale."""
        if not source.width or not source.height or (source.width, source.height) == (facts.width, facts.height):
            return True
        text = (
            f"annotated as {source.width}x{source.height}, but {source.name} is {facts.width}x{facts.height}; "
            "export the annotations for this file (a photo turned by its EXIF tag must be stored turned)"
        )
        self.problems.add(ProblemKind.ANNOTATION, source.where, text)
        return False

    def _box(self, box: SourceBox, facts: ImageFacts) -> CheckedBox | None:
        scale_x, scale_y = (facts.width, facts.height) if box.is_normalised else (1, 1)
        x1, x2, y1, y2 = box.x1 * scale_x, box.x2 * scale_x, box.y1 * scale_y, box.y2 * scale_y
        if (fault := _fault((x1, y1, x2, y2), facts)) is not None:
            self.problems.add(ProblemKind.BOX, box.where, fault)
            return None
        inside = (max(0.0, x1), max(0.0, y1), min(float(facts.width), x2), min(float(facts.height), y2))
        if inside[2] <= inside[0] or inside[3] <= inside[1]:
            self.dropped.add(box.where)
            return None
        is_clipped = inside != (x1, y1, x2, y2)
        if is_clipped:
            self.clipped.add(box.where)
        extent = (inside[2] - inside[0]) * (inside[3] - inside[1])
        area = box.area if box.area is not None and not is_clipped else extent
        return CheckedBox(*inside, box.label + 1, area, is_crowd=box.is_crowd, is_difficult=box.is_difficult)


def validate(
    source: SourceDataset,
    reading: Reading,
    rule: SplitRule,
    *,
    on_image: Callable[[str], None] | None = None,
) -> tuple[CheckedDataset, Report]:
    """Return the dataset fit for the canonical form and its report.

    Raises:
        DatasetInvalid: with everything wrong in the whole dataset, the importer's problems included.
    """
    problems = reading.problems
    _check_classes(source, reading.limits, problems)
    if not source.images and not problems.total:
        problems.add(ProblemKind.LAYOUT, "dataset", "lists no image; add images and their annotations")
    check = _Check(reading.limits, problems, reading.scratch, len(source.classes), on_image)
    checked = [image for item in source.images if (image := check.image(item)) is not None]
    problems.raise_if_any()
    images, notes = assign_splits(checked, problems, rule, family=source.family)
    check_demands(source.family, images, source.classes, problems, is_split_stated=not notes)
    problems.raise_if_any()
    dataset = _dataset(source, images)
    report = make_report(dataset, dropped=check.dropped, clipped=check.clipped, ignored=source.ignored, notes=notes)
    return dataset, report


def _dataset(source: SourceDataset, images: list[CheckedImage]) -> CheckedDataset:
    classes = source.classes
    if source.family == "face":
        images, classes = order_identities(images, classes)
    return CheckedDataset(source.format, source.family, classes, tuple(images), source.attributes, source.folds)


def _check_classes(source: SourceDataset, limits: ImportLimits, problems: Problems) -> None:
    what, limit = {
        "face": ("people", limits.max_identities),
        "segmentation": ("classes", limits.max_mask_classes),
    }.get(source.family, ("classes", limits.max_classes))
    if len(source.classes) > limit:
        problems.add(ProblemKind.CLASS, what, f"{len(source.classes)} {what}, the limit is {limit}; split the dataset")
    for name in source.classes:
        if len(name) > _MAX_CLASS_NAME or not name.isprintable():
            text = f"{name!r} must be at most {_MAX_CLASS_NAME} printable characters; rename it"
            problems.add(ProblemKind.CLASS, "classes", text)


def _fault(box: tuple[float, float, float, float], facts: ImageFacts) -> str | None:
    """Say what is wrong with a box in pixels, or return None; zero area is no fault, it is dropped."""
    x1, y1, x2, y2 = box
    # Formats differ in what they write: corners, or a corner or the middle with width and height.
    shown = f"the box from x {x1:g}, y {y1:g} to x {x2:g}, y {y2:g}"
    if not all(math.isfinite(side) for side in box):
        return f"{shown} is not finite; write four numbers"
    if x2 < x1 or y2 < y1:
        return f"{shown} has a negative width or height; correct it"
    low, right, bottom = -_TOLERANCE_PIXELS, facts.width + _TOLERANCE_PIXELS, facts.height + _TOLERANCE_PIXELS
    if x1 < low or y1 < low or x2 > right or y2 > bottom:
        return f"{shown} reaches out of its {facts.width}x{facts.height} image; cut it off there or remove it"
    return None
