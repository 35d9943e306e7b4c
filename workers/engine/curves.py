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


def can_draw() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def draw(curves: Curves) -> bytes:
    """Return a PNG of the panels side by side."""
    from matplotlib.figure import Figure

    shown = panels(curves)
    figure = Figure(figsize=(6.4 * max(1, len(shown)), 4.2), layout="constrained")
    for number, names in enumerate(shown, start=1):
        axes = figure.add_subplot(1, len(shown), number)
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
    """Return the names that share a panel: those of one prefix, such as `train/`, and of heights that can be seen together."""
    found: list[list[str]] = []
    for _, group in groupby(sorted(curves), key=lambda name: name.partition("/")[0]):
        highest = math.inf
        for name in sorted(group, key=lambda name: (-_height(curves[name]), name)):
            height = _height(curves[name])
            if height * MOST_TIMES_HIGHER < highest:
                found.append([])
                highest = height
            found[-1].append(name)
    return found


def _height(curve: Sequence[Sequence[float]]) -> float:
    return max((abs(value) for _, value in curve if math.isfinite(value)), default=0.0)
