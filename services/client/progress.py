"""What a watcher knows of a job, as a pure function of its events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

TERMINAL_KINDS = frozenset(("succeeded", "failed", "cancelled"))
_STATES = {
    "created": "queued",
    "queued": "queued",
    "claimed": "running",
    "cancel_requested": "cancelling",
    "requeued": "queued",
    "reaped": "queued",
    "succeeded": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
}
# Recent steps count more: speed changes with evaluation, thermal limits and neighbours.
_SMOOTHING = 0.3


@dataclass(frozen=True, slots=True)
class JobProgress:
    """The newest figures of a job. `attempt` counts claims; `resumed_from` is the step of its last checkpoint."""

    state: str = "queued"
    phase: str = ""
    attempt: int = 0
    step: int = 0
    total: int = 0
    loss: float | None = None
    step_seconds: float | None = None
    samples_per_second: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    checkpoint_step: int | None = None

    @property
    def is_over(self) -> bool:
        return self.state in TERMINAL_KINDS

    @property
    def eta_seconds(self) -> float | None:
        """Return the time the remaining steps take at the present speed; None while that is unknown."""
        if self.is_over or self.state != "running" or self.step_seconds is None or not self.total:
            return None
        return max(0, self.total - self.step) * self.step_seconds

    @property
    def headline_metric(self) -> tuple[str, float] | None:
        """Return the figure to show first: average precision where there is one, else the first by name."""
        for name in ("eval/ap50", "eval/ap", *sorted(self.metrics)):
            if name in self.metrics:
                return name.removeprefix("eval/"), self.metrics[name]
        return None


def reduce(progress: JobProgress, kind: str, payload: Mapping[str, Any]) -> JobProgress:
    """Return the progress after one more event; unknown kinds change nothing."""
    if kind == "step":
        return _after_step(progress, payload)
    if kind == "phase":
        return replace(progress, phase=str(payload.get("phase", "")))
    if kind == "eval":
        figures = {name: float(value) for name, value in payload.get("metrics", {}).items()}
        return replace(progress, metrics={**progress.metrics, **figures})
    if kind == "checkpoint":
        return replace(progress, checkpoint_step=int(payload.get("step", 0)))
    if kind == "claimed":
        return _after_claim(progress, payload)
    if kind in _STATES:
        return replace(progress, state=_STATES[kind], phase="")
    return progress


def _after_step(progress: JobProgress, payload: Mapping[str, Any]) -> JobProgress:
    scalars = payload.get("scalars", {})
    loss = scalars.get("train/loss", scalars.get("loss"))
    step_ms, rate = payload.get("step_ms"), payload.get("samples_s")
    return replace(
        progress,
        step=int(payload["step"]),
        total=int(payload.get("total") or progress.total),
        loss=progress.loss if loss is None else float(loss),
        step_seconds=_smooth(progress.step_seconds, step_ms / 1000.0) if step_ms else progress.step_seconds,
        samples_per_second=float(rate) if rate else progress.samples_per_second,
    )


def _after_claim(progress: JobProgress, payload: Mapping[str, Any]) -> JobProgress:
    # Another attempt starts at the last checkpoint, perhaps on another machine: old speed says nothing.
    return replace(
        progress,
        state="running",
        phase="",
        attempt=int(payload.get("attempt") or progress.attempt + 1),
        step=progress.checkpoint_step or 0,
        step_seconds=None,
        samples_per_second=None,
    )


def _smooth(old: float | None, new: float) -> float:
    return new if old is None else old + _SMOOTHING * (new - old)
