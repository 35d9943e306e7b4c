"""One attempt while it trains: what the loop, its hooks and the bundle all look at."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from services.core.clock import MonotonicClock
from workers.engine import rng
from workers.engine.frames import FrameKind, FrameWriter
from workers.engine.parallel import Parallel
from workers.engine.placement import Decision
from workers.engine.plan import TrainPlan
from workers.families.base import BatchSource, Placement, Recipe, TrainState
from workers.families.config import RecipeConfig


@dataclass(frozen=True, slots=True)
class Training:
    """The parts of one attempt."""

    plan: TrainPlan
    recipe: Recipe[Any, Any]
    source: BatchSource[Any]
    decision: Decision
    placement: Placement
    state: TrainState
    frames: FrameWriter
    parallel: Parallel = Parallel.alone()  # noqa: RUF009 - it has no state
    clock: MonotonicClock = time.monotonic

    @property
    def config(self) -> RecipeConfig:
        config: RecipeConfig = self.recipe.config
        return config

    @property
    def total_steps(self) -> int:
        return self.config.limits.max_steps

    @property
    def own_placement(self) -> Placement:
        """The placement for whatever this process does alone: evaluations and samples count for themselves."""
        return self.decision.placement(self.placement.device, is_compiled=self.placement.compile)

    @property
    def is_last_step(self) -> bool:
        return self.state.step >= self.total_steps

    @contextmanager
    def aside(self, phase: str, detail: str = "") -> Iterator[None]:
        """Do something beside training: it moves no random generator and leaves every module's mode."""
        self.announce(phase, detail)
        with rng.guarded(self.config.runtime.seed), _modes_kept(self.state):
            yield
        self.announce("training")

    def announce(self, phase: str, detail: str = "") -> None:
        self.frames.write(FrameKind.PHASE, phase=phase, detail=detail)


@contextmanager
def _modes_kept(state: TrainState) -> Iterator[None]:
    parts: list[nn.Module] = [
        part for module in (*state.modules.values(), *state.ema.values()) for part in module.modules()
    ]
    modes = [part.training for part in parts]
    try:
        yield
    finally:
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode
