"""The one training loop. When to stop, and what happens between steps, is the hooks' business."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from torch import Tensor

from workers.engine.training import Training


class StopReason(enum.StrEnum):
    """Why the loop came to an end."""

    COMPLETED = "completed"
    STOPPED = "stopped"
    TIMEOUT = "timeout"


class LoopHooks(Protocol):
    """What the loop asks between steps."""

    def should_stop(self) -> StopReason | None: ...

    def after_step(self, scalars: Mapping[str, Tensor]) -> None: ...


def train(training: Training, batches: Iterator[Any], hooks: LoopHooks) -> StopReason:
    """Advance the state to its last step, or stop early; it can be checkpointed at every return."""
    recipe, state, placement = training.recipe, training.state, training.placement
    while state.step < training.total_steps:
        if (reason := hooks.should_stop()) is not None:
            return reason
        batch = recipe.to_device(next(batches), placement)
        scalars = recipe.train_step(state, batch, placement)
        state.step += 1
        hooks.after_step(scalars)
    return StopReason.COMPLETED
