"""COCO json as index masks: polygons and run lengths painted into one picture, 0 where no object is.

Where objects overlap the smaller one lies in front. Crowds are regions to be ignored, but an object
painted over one counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from services.datasets.coco import (
    FORMAT,
    by_image,
    class_of,
    is_number,
    list_images,
    parse_files,
    unlisted_images,
)
from services.datasets.problem import ProblemKind, Problems
from services.datasets.raster import Patch, fill_polygon, fill_runs, polygon_area, unpack_runs
from services.datasets.source import IGNORED_PIXEL, IndexMask, MaskUnusable, Reading, SourceDataset

_MAX_NUMBERS = 2_000_000


@dataclass(frozen=True, slots=True)
class _Object:
    """One annotation: polygons, or run lengths with the size (height, width) they are of."""

    where: str
    label: int
    is_crowd: bool
    polygons: Sequence[Sequence[float]] = ()
    runs: Sequence[int] | str = ()
    size: tuple[int, int] | None = None

    def patches(self, width: int, height: int) -> tuple[Patch, ...]:
        if self.size is not None:
            if self.size != (height, width):
                text = f"is of a {self.size[1]}x{self.size[0]} image, the file is {width}x{height}"
                raise MaskUnusable(f"{self.where}: {text}; export the annotations for this file")
            return (fill_runs(self._counts(), width, height),)
        return tuple(fill_polygon(corners, width, height) for corners in self.polygons)

    def area(self) -> float:
        """Return the pixels it covers, of polygons those of their outlines whether inside the image or not."""
        return float(sum(self._counts()[1::2])) if self.size else sum(map(polygon_area, self.polygons))

    def _counts(self) -> Sequence[int]:
        if not isinstance(self.runs, str):
            return self.runs
        assert self.size is not None
        return unpack_runs(self.runs, self.size[0] * self.size[1] + 1)


@dataclass(frozen=True, slots=True)
class _Objects:
    """All objects of one image as its mask."""

    where: str
    objects: tuple[_Object, ...]

    def indices(self, width: int, height: int) -> IndexMask:
        """Paint the crowds first, then the objects, large ones before small ones; see SourceMask."""
        mask = np.zeros((height, width), dtype=np.uint8)
        for thing in sorted(self.objects, key=lambda thing: (not thing.is_crowd, -thing.area())):
            # One at a time: kept together, the objects of a crowded picture would fill the memory.
            for patch in thing.patches(width, height):
                patch.paint(mask, IGNORED_PIXEL if thing.is_crowd else thing.label + 1)
        return mask


def read(reading: Reading) -> SourceDataset:
    """Parse every COCO file of the tree; what is wrong goes to the problems."""
    files, categories = parse_files(reading)
    index = {category_id: n for n, category_id in enumerate(categories)}
    images = []
    for file in files:
        objects = by_image(file, lambda entry, where: _object(entry, where, index, reading.problems), reading.problems)
        images += [
            replace(image, mask=_Objects(image.where, found)) for image, found in list_images(reading, file, objects)
        ]
    background = "unlabelled" if "background" in categories.values() else "background"
    classes = (background, *categories.values())
    return SourceDataset(FORMAT, classes, tuple(images), unlisted_images(reading.tree, images), family="segmentation")


def _object(entry: dict[str, Any], where: str, index: dict[int, int], problems: Problems) -> _Object | None:
    label = class_of(entry, where, index, problems)
    if label is None:
        return None
    outline, is_crowd = entry.get("segmentation"), entry.get("iscrowd") in (1, True)
    if isinstance(outline, list) and outline and all(_is_polygon(corners) for corners in outline):
        return _Object(where, label, is_crowd, polygons=outline)
    if isinstance(outline, dict) and _is_size(outline.get("size")) and _are_runs(outline.get("counts")):
        return _Object(where, label, is_crowd, runs=outline["counts"], size=tuple(outline["size"]))
    text = "must be polygons of three corners or more, or {size, counts} run lengths; export masks, not boxes alone"
    problems.add(ProblemKind.MASK, f"{where}.segmentation", text)
    return None


def _is_polygon(corners: Any) -> bool:
    return (
        isinstance(corners, list)
        and 6 <= len(corners) <= _MAX_NUMBERS
        and len(corners) % 2 == 0
        and all(is_number(side) for side in corners)
    )


def _is_size(size: Any) -> bool:
    return isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)


def _are_runs(counts: Any) -> bool:
    if isinstance(counts, str):
        return True
    return isinstance(counts, list) and all(type(run) is int and 0 <= run < 2**32 for run in counts)
