"""The learning rate as a pure function of the step, so that a resume has nothing to restore."""

from __future__ import annotations

import math

from workers.families.sections import Schedule


def learning_rate(step: int, *, peak: float, schedule: Schedule, max_steps: int) -> float:
    """Return the rate of the update that follows `step` finished ones."""
    # A training cut short keeps the shape of its schedule.
    warmup_steps = min(schedule.warmup_steps, max_steps // 5)
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    if schedule.name == "cosine":
        progress = (step - warmup_steps) / max(1, max_steps - warmup_steps)
        return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return peak * math.prod(factor for start, factor in schedule.milestones if step >= start)
