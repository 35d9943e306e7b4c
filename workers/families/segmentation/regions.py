"""A class's pixels as run lengths and as polygons."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

Binary = np.ndarray[tuple[int, int], np.dtype[np.bool_]]
Point = tuple[int, int]


def run_lengths(region: Binary) -> dict[str, Any]:
    """Return COCO's uncompressed run lengths: column by column, starting with the pixels outside."""
    flat = region.flatten(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    starts = np.concatenate([[0], edges, [flat.size]]) if not (flat.size and flat[0]) else [0, 0, *edges, flat.size]
    return {"size": list(region.shape), "counts": np.diff(starts).tolist()}


def polygons(region: Binary) -> list[list[Point]]:
    """Return the borders of a region as closed polygons of pixel corners (x, y), clockwise; holes counter-clockwise.

    They run along the pixels' edges, so filling them by the even-odd rule gives the region again exactly.
    """
    ways = _border_steps(region)
    found: list[list[Point]] = []
    while ways:
        start = min(ways)
        found.append(_corners(_walk(ways, start)))
    return found


def _border_steps(region: Binary) -> dict[Point, list[Point]]:
    """Return, for each corner, the corners that the border goes on to with the region on its right."""
    padded = np.pad(region, 1)
    inside, ways = padded[1:-1, 1:-1], defaultdict(list)
    for (dy, dx), begin, end in (
        ((-1, 0), (0, 0), (1, 0)),
        ((0, 1), (1, 0), (1, 1)),
        ((1, 0), (1, 1), (0, 1)),
        ((0, -1), (0, 1), (0, 0)),
    ):
        height, width = region.shape
        neighbour = padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
        for y, x in np.argwhere(inside & ~neighbour).tolist():
            ways[x + begin[0], y + begin[1]].append((x + end[0], y + end[1]))
    return dict(ways)


def _walk(ways: dict[Point, list[Point]], start: Point) -> list[Point]:
    path, here = [start], start
    before: Point | None = None
    while True:
        options = ways[here]
        step = options[0] if before is None or len(options) == 1 else _right_turn(before, here, options)
        options.remove(step)
        if not options:
            del ways[here]
        if step == start:
            return path
        path.append(step)
        before, here = here, step


def _right_turn(before: Point, here: Point, options: list[Point]) -> Point:
    """Where two pixels touch at a corner, keep to one of them."""
    dx, dy = here[0] - before[0], here[1] - before[1]
    right = (here[0] - dy, here[1] + dx)
    return right if right in options else options[0]


def _corners(path: list[Point]) -> list[Point]:
    kept = []
    for n, (x, y) in enumerate(path):
        (ax, ay), (bx, by) = path[n - 1], path[(n + 1) % len(path)]
        if (x - ax) * (by - y) != (y - ay) * (bx - x):
            kept.append((x, y))
    return kept
