"""The one training loop. When to stop, and what happens between steps, is the hooks' business."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from torch import Tensor

from workers.engine import microbatch
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
    state, parallel = training.state, training.parallel
    while state.step < training.total_steps:
        if (reason := _agreed(training, hooks.should_stop())) is not None:
            return reason
        parallel.begin_step(state.step)
        scalars = parallel.mean(microbatch.step(training, next(batches)))
        state.step += 1
        hooks.after_step(scalars)
    return StopReason.COMPLETED


def _agreed(training: Training, reason: StopReason | None) -> StopReason | None:
    """Return the leader's reason, so that all processes stop before the same step."""
    reasons: tuple[StopReason | None, ...] = (None, *StopReason)
    return reasons[training.parallel.crew.agree(reasons.index(reason))]
