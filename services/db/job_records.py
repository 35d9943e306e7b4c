"""What job stores take and give: frozen values, never rows. Times are aware UTC datetimes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Row

from services.core.states import AttemptState, Desired, FailureReason, JobState
from services.db import tables as t
from services.db.records import columns_of


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """What a submission stores. `request_sha256` is the hash of the whole request, for idempotency."""

    project: str
    request_id: str
    request_sha256: str
    recipe: str
    preset: str
    dataset_version_id: str
    spec: Mapping[str, Any]
    queue: str
    model_id: str
    priority: int = 0
    """0 is normal; lower goes first."""
    is_preemptible: bool = False
    """A job of higher priority may take its slot; it goes on later from its checkpoint."""
    max_attempts: int = 3
    display_name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    source_checkpoint_id: str | None = None
    """The checkpoint that training starts from; it stays stored until the job has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as its row stands; `state` shows CANCELLING or PAUSING for a running job somebody asked to stop."""

    id: str
    project: str
    recipe: str
    preset: str
    display_name: str
    labels: dict[str, str]
    dataset_version_id: str
    dataset_id: str
    model_id: str
    spec: dict[str, Any]
    queue: str
    priority: int
    is_preemptible: bool
    state: JobState
    attempt: int
    """Charged attempts begun; an attempt given back uncharged is subtracted again."""
    max_attempts: int
    uncharged_restarts: int
    """Attempts given back uncharged."""
    token: int
    checkpoint_step: int
    """Step of the newest committed checkpoint; -1: none."""
    checkpoint_id: str | None
    model_version: int | None
    failure_reason: FailureReason | None
    failure_message: str | None
    failure_log: str | None
    progress_step: int
    progress_total: int
    create_time: datetime
    start_time: datetime | None
    end_time: datetime | None
    update_time: datetime
    event_seq: int
    etag: str
    """Changes whenever the job does; opaque."""

    @property
    def num_attempts(self) -> int:
        """How many attempts began, charged or not."""
        return self.attempt + self.uncharged_restarts


@dataclass(frozen=True, slots=True)
class Lease:
    """The right of one worker to one attempt. `token` is the authority: every write presents it."""

    job_id: str
    project: str
    token: int
    attempt: int
    worker_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One execution of a job, and the process it ran in once the worker recorded it."""

    job_id: str
    token: int
    attempt: int
    worker_id: str
    state: AttemptState
    host: str | None
    boot_id: str | None
    pid: int | None
    pid_start: float | None
    device: str | None
    failure_reason: FailureReason | None
    failure_message: str | None
    exit_code: int | None
    signal: int | None
    start_time: datetime
    end_time: datetime | None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt ended without success; `message` is one sentence a person can act on."""

    reason: FailureReason
    message: str
    log_tail: str = ""
    exit_code: int | None = None
    signal: int | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a job's history. `seq` counts from 1 without gaps; `token` is the attempt's fence."""

    seq: int
    token: int
    kind: str
    payload: dict[str, Any]
    create_time: datetime


@dataclass(frozen=True, slots=True)
class Reaped:
    """A job whose lease ran out, and the state it went to: QUEUED, PAUSED, FAILED or CANCELLED."""

    job_id: str
    project: str
    queue: str
    token: int
    """The token that was taken away."""
    worker_id: str
    state: JobState


@dataclass(frozen=True, slots=True)
class QueueFigures:
    """What metrics and autoscaling read."""

    jobs: dict[JobState, int]
    queued: dict[str, int]
    """Jobs waiting, by queue."""
    oldest_age_seconds: dict[str, float]
    """Age of the oldest waiting job, by queue."""
    running: dict[str, int]
    """Running leases, by queue."""
    longest_silence_seconds: dict[str, float]
    """Time since the quietest running job last told anything (an event, a checkpoint, an artifact), by queue."""

    @property
    def running_leases(self) -> int:
        return sum(self.running.values())


JOB_COLUMNS = [*columns_of(Job, t.jobs), t.jobs.c.desired]
_ASKED = {Desired.CANCEL.value: JobState.CANCELLING, Desired.PAUSE.value: JobState.PAUSING}


def to_job(row: Row[Any]) -> Job:
    """Read a row of JOB_COLUMNS."""
    values = dict(row._mapping)
    desired, state = values.pop("desired"), JobState(values["state"])
    values["state"] = _ASKED.get(desired, state) if state is JobState.RUNNING else state
    values["failure_reason"] = to_reason(values["failure_reason"])
    return Job(**values, etag=etag(values["event_seq"], values["checkpoint_step"]))


def etag(event_seq: int, checkpoint_step: int) -> str:
    # A checkpoint deleted after the end of its job changes the job without an event.
    return f"{event_seq:x}-{checkpoint_step + 1:x}"


def to_reason(value: str | None) -> FailureReason | None:
    return None if value is None else FailureReason(value)
