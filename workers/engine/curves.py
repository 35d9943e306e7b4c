"""The curves of a finished training as one picture, where matplotlib is installed."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping, Sequence
from itertools import groupby

Curves = Mapping[str, Sequence[Sequence[float]]]


def can_draw() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def draw(curves: Curves) -> bytes:
    """Return a PNG with one panel for each prefix of names, such as `train/` and `eval/`."""
    from matplotlib.figure import Figure

    panels = [list(names) for _, names in groupby(sorted(curves), key=lambda name: name.partition("/")[0])]
    figure = Figure(figsize=(6.4 * max(1, len(panels)), 4.2), layout="constrained")
    for number, names in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), number)
        for name in names:
            steps, values = zip(*curves[name], strict=True)
            axes.plot(steps, values, label=name, marker="o" if len(steps) < 20 else None, markersize=3)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
