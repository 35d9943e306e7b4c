"""The curves of a finished training as one picture, where matplotlib is installed."""

from __future__ import annotations

import importlib.util
import io
import math
from collections.abc import Mapping, Sequence
from itertools import groupby

Curves = Mapping[str, Sequence[Sequence[float]]]

MOST_TIMES_HIGHER = 25.0
"""A curve so much higher than another would press it flat, so they get panels of their own."""

HIGHEST_SHARE = 2.0
"""Shares are up to 1, and ratios, such as of diversities, about that."""
MOST_ABREAST = 3


def can_draw() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def draw(curves: Curves) -> bytes:
    """Return a PNG of the panels, three abreast."""
    from matplotlib.figure import Figure

    shown = panels(curves)
    columns, rows = max(1, min(MOST_ABREAST, len(shown))), max(1, math.ceil(len(shown) / MOST_ABREAST))
    figure = Figure(figsize=(6.4 * columns, 4.2 * rows), layout="constrained")
    for number, names in enumerate(shown, start=1):
        axes = figure.add_subplot(rows, columns, number)
        for name in names:
            steps, values = zip(*curves[name], strict=True)
            axes.plot(steps, values, label=name, marker="o" if len(steps) < 20 else None, markersize=3)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def panels(curves: Curves) -> list[list[str]]:
    """Return the names that share a panel: those of one prefix, such as `train/`, and of heights that can be seen together.

    Figures of an evaluation share one only with their kind: three classes would press shares flat, too.
    """

    def kind(name: str) -> tuple[str, str]:
        prefix = name.partition("/")[0]
        return prefix, _measure(curves[name]) if prefix == "eval" else ""

    found: list[list[str]] = []
    for _, group in groupby(sorted(curves, key=kind), key=kind):
        highest = math.inf
        for name in sorted(group, key=lambda name: (-_height(curves[name]), name)):
            height = _height(curves[name])
            if height * MOST_TIMES_HIGHER < highest:
                found.append([])
                highest = height
            found[-1].append(name)
    return found


def _measure(curve: Sequence[Sequence[float]]) -> str:
    height = _height(curve)
    if height > 1 and all(float(value).is_integer() for _, value in curve if math.isfinite(value)):
        return "count"
    return "share" if height <= HIGHEST_SHARE else "distance"


def _height(curve: Sequence[Sequence[float]]) -> float:
    return max((abs(value) for _, value in curve if math.isfinite(value)), default=0.0)
