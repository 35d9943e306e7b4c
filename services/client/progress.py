"""What a watcher knows of a job, as a pure function of its events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from trainyard.v1 import job_pb2

_TERMINAL_STATES = frozenset(
    (job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED),
)
# Recent steps count more: speed changes with evaluation, heat and neighbours.
_SMOOTHING = 0.5


@dataclass(frozen=True, slots=True)
class JobProgress:
    """The newest figures of a job."""

    state: job_pb2.JobState = job_pb2.JOB_STATE_QUEUED
    phase: job_pb2.Phase = job_pb2.PHASE_UNSPECIFIED
    attempt: int = 0
    step: int = 0
    total_steps: int = 0
    loss: float | None = None
    step_seconds: float | None = None
    samples_per_second: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    checkpoint_step: int | None = None
    model_version: str = ""
    failure: job_pb2.Failure | None = None

    @property
    def is_over(self) -> bool:
        return self.state in _TERMINAL_STATES

    @property
    def eta_seconds(self) -> float | None:
        """Return the time the remaining steps take at the present speed; None while that is unknown."""
        if self.state != job_pb2.JOB_STATE_RUNNING or self.step_seconds is None or not self.total_steps:
            return None
        return max(0, self.total_steps - self.step) * self.step_seconds

    @property
    def headline_metric(self) -> tuple[str, float] | None:
        """Return the figure to show first: average precision where there is one, else the first by name."""
        for name in ("eval/ap50", "eval/ap", *sorted(self.metrics)):
            if name in self.metrics:
                return name.removeprefix("eval/"), self.metrics[name]
        return None


def reduce(progress: JobProgress, event: job_pb2.JobEvent) -> JobProgress:
    """Return the progress after one more event; what it does not know changes nothing."""
    match event.WhichOneof("payload"):
        case "state_change":
            return _after_state_change(progress, event.state_change)
        case "phase":
            return replace(progress, phase=event.phase.phase)
        case "step":
            return _after_step(progress, event.step)
        case "evaluation":
            return replace(progress, metrics={**progress.metrics, **event.evaluation.metrics})
        case "checkpoint":
            return replace(progress, checkpoint_step=event.checkpoint.step)
        case "requeued":
            return replace(_at_rest(progress), state=job_pb2.JOB_STATE_QUEUED)
        case "failure":
            return replace(_at_rest(progress), state=job_pb2.JOB_STATE_FAILED, failure=event.failure)
        case "model":
            return replace(progress, model_version=event.model.model_version)
        case _:
            return progress


def _after_state_change(progress: JobProgress, change: job_pb2.StateChange) -> JobProgress:
    if change.state == job_pb2.JOB_STATE_RUNNING and progress.state == job_pb2.JOB_STATE_PAUSING:
        # Somebody took the pause back before the worker obeyed.
        return replace(progress, state=change.state)
    if change.state == job_pb2.JOB_STATE_RUNNING:
        # Another attempt starts at the last checkpoint, perhaps on another machine: old speed says nothing.
        begun = _at_rest(progress)
        step = progress.checkpoint_step or 0
        return replace(begun, state=change.state, attempt=change.attempt or progress.attempt, step=step)
    if change.state in (job_pb2.JOB_STATE_CANCELLING, job_pb2.JOB_STATE_PAUSING):
        return replace(progress, state=change.state)
    return replace(_at_rest(progress), state=change.state)


def _at_rest(progress: JobProgress) -> JobProgress:
    return replace(progress, phase=job_pb2.PHASE_UNSPECIFIED, step_seconds=None, samples_per_second=None)


def _after_step(progress: JobProgress, step: job_pb2.StepScalars) -> JobProgress:
    seconds = step.step_duration.seconds + step.step_duration.nanos / 1e9
    loss = step.scalars.get("train/loss")
    return replace(
        progress,
        step=step.step,
        total_steps=step.total_steps or progress.total_steps,
        loss=progress.loss if loss is None else loss,
        step_seconds=_smooth(progress.step_seconds, seconds) if seconds > 0 else progress.step_seconds,
        samples_per_second=step.samples_per_second or progress.samples_per_second,
    )


def _smooth(old: float | None, new: float) -> float:
    return new if old is None else old + _SMOOTHING * (new - old)
