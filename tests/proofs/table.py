"""What each recipe must reach on its small data, and what must not reach it.

Thresholds, data and controls are those of the families' specification; a broken variant that passed
would show that a proof proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.datasets.shape_scenes import write_shape_scenes


@dataclass(frozen=True, slots=True)
class Bound:
    """One figure and the side of the threshold it must be on."""

    metric: str
    threshold: float
    direction: str = "min"

    def passes(self, value: float) -> bool:
        return value >= self.threshold if self.direction == "min" else value <= self.threshold


@dataclass(frozen=True, slots=True)
class Proof:
    """A recipe's tiny preset, its data, its bounds, and two runs that must miss them."""

    recipe: str
    data: Callable[[Path], object]
    bounds: tuple[Bound, ...]
    baseline: Mapping[str, Any]
    """Overrides of the trivial run that every bound must be clear of."""
    control: Mapping[str, Any]
    """Overrides of the crippled run that must miss the first bound."""
    seeds: tuple[int, ...] = field(default=(0, 1, 2))


def _shape_scenes(folder: Path) -> object:
    return write_shape_scenes(folder, seed=0, train_images=600, val_images=150)


_ONE_STEP = {"limits": {"max_steps": 1}}

PROOFS = (
    Proof(
        "detection/yolo_v1",
        _shape_scenes,
        (Bound("eval/ap50", 0.92), Bound("eval/ap", 0.55)),
        baseline=_ONE_STEP,
        control={"limits": {"max_steps": 180}},
    ),
    Proof(
        "detection/ssd",
        _shape_scenes,
        (Bound("eval/ap50", 0.80), Bound("eval/ap", 0.45)),
        baseline=_ONE_STEP,
        control={"limits": {"max_steps": 40}},
    ),
)
