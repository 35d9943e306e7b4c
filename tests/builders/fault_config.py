"""Configs of the recipe with faults, and its line in the catalog. Torch-free, as the real ones are: API servers read it."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from workers.families.catalog import Entry
from workers.families.config import RecipeConfig, Section

NAME = "detection/patterns"
"""Of the family whose data sets the platform can import; it does not look at the data."""

How = Literal[
    "",
    "kill",
    "segv",
    "bus",
    "exit",
    "raise",
    "gpu",
    "nan",
    "hang",
    "memory",
    "image",
    "disk",
    "unbuildable",
    "exhaust",
]


class Faults(Section):
    how: How = ""
    where: Literal["step", "loader", "build", "golden"] = "step"
    at_step: int = 0
    tokens: tuple[int, ...] = (1,)
    """Attempts it happens in; empty: all."""
    memory_mib: int = 0


class PatternData(Section):
    samples: int = 48
    batch_size: int = 8
    noise: float = 0.2


class PatternModel(Section):
    width: int = 8
    ballast_mib: int = 0
    """More weights, for checkpoints that take a while to store."""
    is_divisible: bool = True
    most_rows: int = 0
    """Samples the device has the memory for; 0: any number."""


class PatternConfig(RecipeConfig):
    """Patterns, at a pace."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"limits": {"max_steps": 6}}}

    data: PatternData = PatternData()
    model: PatternModel = PatternModel()
    faults: Faults = Faults()
    pace_ms: float = 0.0
    golden_ms: float = 0.0
    clip: float | None = 1.0


CATALOG = {
    NAME: Entry(
        config=f"{__name__}:PatternConfig",
        recipe="tests.builders.fault_recipe:Patterns",
        handler="tests.builders.toy_recipe:ToyHandler",
        summary="Patterns, at a pace, with faults.",
    )
}
