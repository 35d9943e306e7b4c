"""States of jobs, attempts, deployments and galleries, and the only legal moves between job states.

Pure: no clock, no database. The store applies a move inside a transaction; this module only says
whether the move exists. Terminal states have no exits, so a late heartbeat can never revive a
finished job.
"""

from __future__ import annotations

import enum


class JobState(enum.StrEnum):
    """What a client sees of a job. CANCELLING and PAUSING are running jobs somebody asked to stop."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    PAUSING = "pausing"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})


class Desired(enum.StrEnum):
    """What a running job's worker is asked to do. Only RUN lets it go on."""

    RUN = "run"
    CANCEL = "cancel"
    PAUSE = "pause"
    """Save, and wait until somebody resumes the job."""
    YIELD = "yield"
    """Save, and queue again behind a job of higher priority."""


class AttemptState(enum.StrEnum):
    """How one execution of a job stands or ended. LOST: its lease ran out."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REQUEUED = "requeued"
    LOST = "lost"


class JobEvent(enum.StrEnum):
    """What can happen to a job's state."""

    CLAIM = "claim"
    CANCEL = "cancel"
    REQUEUE = "requeue"
    SUCCEED = "succeed"
    FAIL = "fail"
    STOP = "stop"
    PAUSE = "pause"
    REST = "rest"
    """A worker gave a job back that somebody asked to pause."""
    RESUME = "resume"


_MOVES: dict[tuple[JobState, JobEvent], JobState] = {
    (JobState.QUEUED, JobEvent.CLAIM): JobState.RUNNING,
    (JobState.QUEUED, JobEvent.CANCEL): JobState.CANCELLED,
    (JobState.RUNNING, JobEvent.CANCEL): JobState.CANCELLING,
    (JobState.RUNNING, JobEvent.REQUEUE): JobState.QUEUED,
    (JobState.RUNNING, JobEvent.SUCCEED): JobState.SUCCEEDED,
    (JobState.RUNNING, JobEvent.FAIL): JobState.FAILED,
    (JobState.QUEUED, JobEvent.PAUSE): JobState.PAUSED,
    (JobState.RUNNING, JobEvent.PAUSE): JobState.PAUSING,
    (JobState.PAUSING, JobEvent.REST): JobState.PAUSED,
    (JobState.PAUSING, JobEvent.RESUME): JobState.RUNNING,
    (JobState.PAUSING, JobEvent.CANCEL): JobState.CANCELLING,
    (JobState.PAUSING, JobEvent.SUCCEED): JobState.SUCCEEDED,
    (JobState.PAUSING, JobEvent.FAIL): JobState.FAILED,
    (JobState.PAUSED, JobEvent.RESUME): JobState.QUEUED,
    (JobState.PAUSED, JobEvent.CANCEL): JobState.CANCELLED,
    (JobState.CANCELLING, JobEvent.CANCEL): JobState.CANCELLING,
    (JobState.CANCELLING, JobEvent.SUCCEED): JobState.SUCCEEDED,
    (JobState.CANCELLING, JobEvent.FAIL): JobState.FAILED,
    (JobState.CANCELLING, JobEvent.STOP): JobState.CANCELLED,
}


def next_state(state: JobState, event: JobEvent) -> JobState | None:
    """Return the state that follows, or None where the move does not exist."""
    return _MOVES.get((state, event))


class FailureReason(enum.StrEnum):
    """Why an attempt failed (RELIABILITY: failure classes)."""

    SPEC_INVALID = "SPEC_INVALID"
    INVALID_DATASET = "INVALID_DATASET"
    NON_FINITE_LOSS = "NON_FINITE_LOSS"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    HOST_OUT_OF_MEMORY = "HOST_OUT_OF_MEMORY"
    SHARED_MEMORY = "SHARED_MEMORY"
    CRASH = "CRASH"
    GPU_LOST = "GPU_LOST"
    STALL = "STALL"
    DISK_FULL = "DISK_FULL"
    STORAGE_UNAVAILABLE = "STORAGE_UNAVAILABLE"
    WORKER_LOST = "WORKER_LOST"
    TIMEOUT = "TIMEOUT"
    INTERNAL = "INTERNAL"


class DeploymentState(enum.StrEnum):
    """What a client sees of a deployment, derived from its archive and what the agents report."""

    PENDING = "pending"
    BUILDING = "building"
    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"
    DELETING = "deleting"


class ArchiveState(enum.StrEnum):
    """How the build of a servable archive stands."""

    QUEUED = "queued"
    BUILDING = "building"
    READY = "ready"
    FAILED = "failed"


class GalleryState(enum.StrEnum):
    """How a gallery stands to its deployment."""

    READY = "ready"
    MOVING = "moving"
    """The deployment is to serve another version, and the gallery follows by itself."""
    STALE = "stale"
    """The deployment is gone or is to serve another version, and nothing moves the gallery but a person."""
