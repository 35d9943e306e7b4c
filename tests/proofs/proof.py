"""What a proof is: runs of a recipe's small preset, bounds on their figures, and runs that must miss them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from workers.families.catalog import CATALOG

THIS = ""
"""The name of the run that a proof is about."""
ONE_STEP: Mapping[str, Any] = {"limits": {"max_steps": 1}}
"""Overrides of a run that learns next to nothing."""

Write = Callable[[Path], object]
"""Writes a dataset into a folder, in a format that the platform imports."""
Measure = Callable[[Path], Mapping[str, float]]
"""Finds more figures in a model's downloaded bundle; they join those of the last evaluation."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A figure of a run, or what it has over another run's, and the side of the threshold it must be on."""

    metric: str
    threshold: float
    direction: Literal["min", "max", "equal"] = "min"
    of: str = THIS
    over: str | None = None
    """The run whose figure is taken off."""
    beats_baseline: bool = True
    """False where even the trivial run is on the right side, such as a count of parameters."""
    control: Measure | None = None
    """Measures the proof's own model in a crippled way, which must miss this bound, where crippled training would not."""

    @property
    def name(self) -> str:
        runs = f" of {self.of}" if self.of else ""
        return f"{self.metric}{runs}" if self.over is None else f"{self.metric}{runs} over {self.over or 'this'}"

    def value(self, figures: Mapping[str, Mapping[str, float]]) -> float:
        """Return the bounded value, of the figures by run."""
        value = figures[self.of][self.metric]
        return value if self.over is None else value - figures[self.over][self.metric]

    def passes(self, value: float) -> bool:
        if self.direction == "equal":
            return value == self.threshold
        return value >= self.threshold if self.direction == "min" else value <= self.threshold


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One more job that a proof compares with, or starts from; runs go in the order they are written in."""

    overrides: Mapping[str, Any] = field(default_factory=dict)
    recipe: str = ""
    """Empty: that of the proof."""
    data: Write | None = None
    """None: that of the proof."""
    family: str = ""
    """Of its dataset; empty: that of the proof."""
    start: str | None = None
    """The run whose model this one starts from."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A control that configs cannot express: the recipe with one part spoilt, as `module:class` of a subclass."""

    recipe: str
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Proof:
    """A recipe's tiny preset, its data, its bounds, and two runs that must miss them."""

    recipe: str
    data: Write
    bounds: tuple[Bound, ...]
    baseline: Mapping[str, Any] = field(default_factory=lambda: ONE_STEP)
    """Overrides of the trivial run, which must miss every bound in the place of the run that it is of."""
    control: Mapping[str, Any] | Broken = field(default_factory=lambda: ONE_STEP)
    """The crippled run, which must miss at least one bound."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Of the tiny preset, for every run of the recipe; mostly none."""
    start: str | None = None
    """The run whose model this one, its baseline and its control start from."""
    runs: Mapping[str, Run] = field(default_factory=dict)
    measure: Measure | None = None
    family: str = ""
    """Of the dataset, where it is not the first that the recipe reads."""
    variant: str = ""
    """Tells proofs of one recipe apart, such as 'contrastive'; shown after the recipe's name."""
    seeds: tuple[int, ...] = (0, 1, 2)

    @property
    def name(self) -> str:
        return f"{self.recipe} {self.variant}".rstrip()

    @property
    def dataset_family(self) -> str:
        own = self.recipe.partition("/")[0]
        return self.family or next(iter(CATALOG[self.recipe].datasets), own)
