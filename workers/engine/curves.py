"""The curves of a finished training as one picture, where matplotlib is installed."""

from __future__ import annotations

import importlib.util
import io
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curves = Mapping[str, Sequence[Sequence[float]]]
Label = Callable[[str], str]

MOST_TIMES_HIGHER = 25.0
"""A curve so much higher than another would press it flat, so they get panels of their own."""

HIGHEST_SHARE = 2.0
"""Shares are up to 1, and ratios, such as of diversities, about that."""
MOST_ABREAST = 3
_LINES = 20
"""Lines of text of the common size that a panel is high; more are written smaller."""


def can_draw() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def draw(curves: Curves, *, label: Label = str) -> bytes:
    """Return a PNG of the panels; `label` says what a curve is called in it, by its name."""
    buffer = io.BytesIO()
    figure(curves, label=label).savefig(buffer, format="png")
    return buffer.getvalue()


def figure(curves: Curves, *, label: Label = str) -> Figure:
    """Lay the panels out, three abreast."""
    from matplotlib.figure import Figure

    shown = panels(curves)
    columns, rows = max(1, min(MOST_ABREAST, len(shown))), max(1, math.ceil(len(shown) / MOST_ABREAST))
    page = Figure(figsize=(6.4 * columns, 4.2 * rows), layout="constrained")
    for number, names in enumerate(shown, start=1):
        axes = page.add_subplot(rows, columns, number)
        some = {label(name): curves[name] for name in names}
        if all(len(curve) == 1 for curve in some.values()):
            _print_values(axes, some)
        else:
            _draw_lines(axes, some)
        axes.grid(alpha=0.3)
    return page


def _draw_lines(axes: Axes, curves: Curves) -> None:
    for name, curve in curves.items():
        steps, values = zip(*curve, strict=True)
        axes.plot(steps, values, label=name, marker="o" if len(steps) < 20 else None, markersize=3)
        if len(curve) == 1:
            axes.annotate(f"  {values[0]:.4g}", (steps[0], values[0]), va="center", fontsize="small")
    axes.set_xlabel("step")
    axes.legend(fontsize="small")


def _print_values(axes: Axes, curves: Curves) -> None:
    """Mark each value on a line of its own, with its number: one point has no course that an axis of steps could show."""
    steps, values = zip(*(curve[0] for curve in curves.values()), strict=True)
    places, size = range(len(curves)), min(10.0, _LINES / len(curves) * 10)
    axes.hlines(places, 0, values, alpha=0.3)
    axes.plot(values, places, "o")
    for place, value in zip(places, values, strict=True):
        at = value if math.isfinite(value) else 0.0
        axes.annotate(f"  {value:.4g}", (at, place), va="center", fontsize=size)
    axes.set_yticks(places, list(curves), fontsize=size)
    axes.set_ylim(len(curves) - 0.5, -0.5)
    low, high = (choose([0.0, *filter(math.isfinite, values)]) for choose in (min, max))
    # To the right there must be room for the number.
    reach = high - low or 1.0
    axes.set_xlim(low - 0.02 * reach, high + 0.25 * reach)
    first, last = min(steps), max(steps)
    axes.set_xlabel(f"value at step {last:g}" if first == last else f"value at steps {first:g} to {last:g}")


def panels(curves: Curves) -> list[list[str]]:
    """Return the names that share a panel: those of one prefix, such as `train/`, and of heights that can be seen together.

    Figures of an evaluation share one only with their kind: three classes would press shares flat, too. Counts that
    never changed, such as of classes, are left out: a flat line shows no more than the number among the figures.
    """

    def kind(name: str) -> tuple[str, str]:
        prefix = name.partition("/")[0]
        return prefix, _measure(curves[name]) if prefix == "eval" else ""

    found: list[list[str]] = []
    shown = [name for name, curve in curves.items() if kind(name) != ("eval", "count") or _changes(curve)]
    for _, group in groupby(sorted(shown, key=kind), key=kind):
        highest = math.inf
        for name in sorted(group, key=lambda name: (-_height(curves[name]), name)):
            height = _height(curves[name])
            if height * MOST_TIMES_HIGHER < highest:
                found.append([])
                highest = height
            found[-1].append(name)
    return found


def _changes(curve: Sequence[Sequence[float]]) -> bool:
    return len({value for _, value in curve}) > 1


def _measure(curve: Sequence[Sequence[float]]) -> str:
    height = _height(curve)
    if height > 1 and all(float(value).is_integer() for _, value in curve if math.isfinite(value)):
        return "count"
    return "share" if height <= HIGHEST_SHARE else "distance"


def _height(curve: Sequence[Sequence[float]]) -> float:
    return max((abs(value) for _, value in curve if math.isfinite(value)), default=0.0)
