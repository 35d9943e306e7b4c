"""From outlines and run lengths to pixels, by COCO's conventions.

A pixel belongs to a polygon when its middle lies inside (even-odd rule), with corners in continuous
coordinates whose origin is the image's upper left corner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.datasets.source import MaskUnusable

Shape = npt.NDArray[np.bool_]
_EDGES_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Patch:
    """Pixels of a part of an image, from its row `top` and column `left` on."""

    top: int
    left: int
    shape: Shape

    def paint(self, mask: npt.NDArray[np.uint8], value: int) -> None:
        """Give the pixels of the patch a value."""
        rows, columns = self.shape.shape
        mask[self.top : self.top + rows, self.left : self.left + columns][self.shape] = value


def polygon_area(corners: Sequence[float]) -> float:
    """Return the area inside x1, y1, x2, y2, ... in pixels (shoelace formula)."""
    x, y = np.asarray(corners, dtype=np.float64).reshape(-1, 2).T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


def fill_polygon(corners: Sequence[float], width: int, height: int) -> Patch:
    """Return the pixels inside x1, y1, x2, y2, ...; what lies outside the image is cut off."""
    points = np.asarray(corners, dtype=np.float64).reshape(-1, 2)
    limits = (width, height)
    left, top = (int(np.clip(np.floor(side), 0, most)) for side, most in zip(points.min(0), limits, strict=True))
    right, bottom = (int(np.clip(np.ceil(side), 0, most)) for side, most in zip(points.max(0), limits, strict=True))
    columns, rows = right - left, bottom - top
    if columns <= 0 or rows <= 0:
        return Patch(0, 0, np.zeros((0, 0), dtype=np.bool_))
    starts = points - (left, top)
    stops = np.roll(starts, -1, axis=0)
    crossings = np.zeros((rows, columns + 1), dtype=np.int32)
    middles = np.arange(rows) + 0.5
    for first in range(0, len(points), _EDGES_AT_ONCE):
        (x1, y1), (x2, y2) = (ends[first : first + _EDGES_AT_ONCE].T for ends in (starts, stops))
        edge, row = np.nonzero((y1[:, None] <= middles) != (y2[:, None] <= middles))
        x = x1[edge] + (middles[row] - y1[edge]) * (x2[edge] - x1[edge]) / (y2[edge] - y1[edge])
        # From the first pixel whose middle is not left of the edge, inside and outside swap.
        np.add.at(crossings, (row, np.clip(np.ceil(x - 0.5), 0, columns).astype(np.intp)), 1)
    inside: Shape = np.cumsum(crossings, axis=1, dtype=np.int32)[:, :columns] % 2 == 1
    return Patch(top, left, inside)


def fill_runs(counts: Sequence[int], width: int, height: int) -> Patch:
    """Return the pixels of run lengths: off, on, off, ... down the columns.

    Raises:
        MaskUnusable: the runs do not cover the image exactly.
    """
    runs = np.asarray(counts, dtype=np.int64)
    if (runs < 0).any() or int(runs.sum()) != width * height:
        text = f"run lengths add up to {int(runs.sum())}, the image has {width * height} pixels"
        raise MaskUnusable(f"{text}; export the annotations for this file")
    values = np.arange(len(runs)) % 2 == 1
    return Patch(0, 0, np.repeat(values, runs).reshape(width, height).T)


def unpack_runs(text: str, limit: int) -> list[int]:
    """Return the run lengths that COCO packs into a string: five bits a character, differences from the third on.

    Raises:
        MaskUnusable: other characters, a string cut short, or more than `limit` runs.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 30:
            raise MaskUnusable("its packed run lengths are damaged; export the annotations again")
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
        if len(runs) > limit:
            raise MaskUnusable(f"has more than {limit} run lengths; export the annotations again")
    if shift:
        raise MaskUnusable("its packed run lengths are cut short; export the annotations again")
    return runs
