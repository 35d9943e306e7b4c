"""The learning rate as a pure function of the step, so that a resume has nothing to restore."""

from __future__ import annotations

import math

from workers.families.sections import Schedule

_POWERS = {"linear": 1.0, "poly": 0.9}


def learning_rate(step: int, *, peak: float, schedule: Schedule, max_steps: int) -> float:
    """Return the rate of the update that follows `step` finished ones."""
    # A training cut short keeps the shape of its schedule.
    warmup_steps = min(schedule.warmup_steps, max_steps // 5)
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    if schedule.name == "inverse_sqrt":
        return peak * math.sqrt(max(1, warmup_steps) / (step + 1))
    progress = min(1.0, (step - warmup_steps) / max(1, max_steps - warmup_steps))
    if schedule.name == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * progress))
    if schedule.name in _POWERS:
        return float(peak * (1 - progress) ** _POWERS[schedule.name])
    return peak * math.prod(factor for start, factor in schedule.milestones if step >= start)
