"""How a job leaves its worker. Each move is one UPDATE with its whole precondition, then its event.

The event follows the UPDATE inside the transaction, so the row lock orders events as commits. Every
move out of RUNNING closes the attempt's row; every terminal move writes exactly one terminal event.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from services.core.errors import LeaseLost, PreconditionFailed
from services.core.states import TERMINAL, AttemptState, FailureReason, JobState
from services.db import events, fence, models
from services.db import tables as t
from services.db.changes import announce
from services.db.job_records import Failure, Lease, Reaped
from services.db.models import NewModelVersion
from services.db.schedule import place_now
from services.db.session import Session
from services.db.types import now

NO_PROGRESS_LIMIT = 5
"""Uncharged returns to the queue in a row, without a new checkpoint, after which the job fails."""

EVENT_LOG_CHARACTERS = 4096
"""How much of a trainer's last words goes with the event of its end."""

_RELEASED: dict[str, Any] = {"lease_owner": None, "lease_expire_time": None, "update_time": now()}
_IS_CANCEL_WANTED = t.jobs.c.desired == "cancel"
_IS_PAUSE_WANTED = t.jobs.c.desired == "pause"
_IS_STOP_WANTED = t.jobs.c.desired != "run"
_NO_PROGRESS = Failure(
    FailureReason.WORKER_LOST,
    f"the job went back to the queue {NO_PROGRESS_LIMIT} times without reaching a new checkpoint; "
    "look for a worker that keeps dying, or checkpoint more often",
)


def finish(
    session: Session,
    lease: Lease,
    *,
    state: JobState,
    failure: Failure | None = None,
    model_version: NewModelVersion | None = None,
) -> None:
    """End the job as SUCCEEDED, FAILED or CANCELLED, with its model version if it made one.

    Safe to call again after DatabaseUnavailable: if this lease already ended so, nothing happens.

    Raises:
        LeaseLost: the token is no longer the job's.
        PreconditionFailed: CANCELLED, but nobody asked the job to stop.
    """
    if state not in TERMINAL:
        raise ValueError(f"{state} ends nothing")
    announce(session)
    condition = fence.is_held(lease)
    if state is JobState.CANCELLED:
        condition &= _IS_CANCEL_WANTED
    values = {
        **_RELEASED,
        "state": state.value,
        "end_time": now(),
        "event_seq": t.jobs.c.event_seq + (2 if model_version else 1),
        **_failure_values(failure),
    }
    job = t.jobs.c
    update = sa.update(t.jobs).where(condition).values(values).returning(job.event_seq, job.model_id, job.recipe)
    row = session.execute(update).one_or_none()
    if row is None:
        return _explain_refusal(session, lease, state)
    payload = _failure_payload(failure)
    if model_version is not None:
        version = models.insert(
            session, model_version, project=lease.project, model_id=row.model_id, recipe=row.recipe, job_id=lease.job_id
        )
        numbered = sa.update(t.jobs).where(job.id == lease.job_id).values(model_version=version.version)
        session.execute(numbered)
        payload = {"model_id": version.model_id, "version": version.version, "model_version_id": version.id}
        events.write(session, lease.job_id, [(row.event_seq - 1, lease.token, "model", payload)])
    _close_attempt(session, lease, AttemptState(state.value), failure)
    events.write(session, lease.job_id, [(row.event_seq, lease.token, state.value, payload)])
    return None


def requeue(
    session: Session, lease: Lease, *, is_charged: bool, delay_seconds: float = 0.0, failure: Failure | None = None
) -> JobState:
    """Give the job back to the queue, not to be claimed before the delay, and return the state it reached.

    CANCELLED where somebody asked it to stop; FAILED where a charged attempt was the last one or where
    uncharged returns reach NO_PROGRESS_LIMIT; PAUSED where somebody asked for that; else QUEUED. A return
    that was asked for counts towards no limit. Safe to call again after DatabaseUnavailable.

    Raises:
        LeaseLost: the token is no longer the job's.
    """
    announce(session)
    job = t.jobs.c
    is_used_up = job.attempt >= job.max_attempts if is_charged else _is_stuck(_IS_STOP_WANTED)
    last_failure = failure or _NO_PROGRESS
    values = {
        **_returned(is_used_up, last_failure),
        "not_before_time": now(delay_seconds) if delay_seconds > 0 else None,
        "event_seq": job.event_seq + 1,
    }
    if not is_charged:
        values |= _uncharged(_IS_STOP_WANTED)
    update = sa.update(t.jobs).where(fence.is_held(lease)).values(values)
    row = session.execute(update.returning(job.state, job.event_seq, job.token)).one_or_none()
    if row is None:
        return _state_reached_before(session, lease)
    state = JobState(row.state)
    if state is JobState.FAILED:
        failure = last_failure
    attempt_state = AttemptState(state.value) if state in TERMINAL else AttemptState.REQUEUED
    _close_attempt(session, lease, attempt_state, failure)
    payload = _failure_payload(failure)
    if state is JobState.QUEUED:
        payload |= {"is_charged": is_charged, "delay_seconds": delay_seconds}
    kind = "requeued" if state is JobState.QUEUED else state.value
    events.write(session, lease.job_id, [(row.event_seq, row.token, kind, payload)])
    return state


def reap(session: Session, *, limit: int, retry_delay_seconds: float = 10.0) -> list[Reaped]:
    """Take up to `limit` leases that ran out, give their jobs back uncharged and mark their attempts LOST.

    The first loss since the last checkpoint is due at once, later ones after a delay that grows by
    `retry_delay_seconds`. Call it through `reaper.Reaper`, which first makes sure of the clock.
    """
    job = t.jobs.c
    is_expired = t.IS_RUNNING & (job.lease_expire_time < now())
    expired = (
        sa.select(job.id, job.token, job.lease_owner)
        .where(is_expired)
        .order_by(job.lease_expire_time)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    leases = {row.id: (row.token, row.lease_owner) for row in session.execute(expired)}
    if not leases:
        return []
    announce(session)
    is_used_up = _is_stuck(sa.false())
    is_last = sa.or_(_IS_CANCEL_WANTED, is_used_up, _IS_PAUSE_WANTED)
    values = {
        **_returned(is_used_up, _NO_PROGRESS),
        **_uncharged(sa.false()),
        "not_before_time": now(sa.cast(job.no_progress, sa.Float) * retry_delay_seconds),
        "event_seq": job.event_seq + sa.case((is_last, 2), else_=1),
    }
    update = sa.update(t.jobs).where(job.id.in_(leases), is_expired).values(values)
    rows = session.execute(update.returning(job.id, job.project, job.queue, job.token, job.state, job.event_seq)).all()
    return [_note_loss(session, row, *leases[row.id]) for row in rows]


def _note_loss(session: Session, row: sa.Row[Any], token: int, worker_id: str) -> Reaped:
    state = JobState(row.state)
    lease = Lease(row.id, row.project, token, 0, worker_id)
    _close_attempt(session, lease, AttemptState.LOST, Failure(FailureReason.WORKER_LOST, "the lease ran out"))
    lines: list[events.Line] = [(row.event_seq, row.token, "reaped", {"worker_id": worker_id, "lost_token": token})]
    if state is not JobState.QUEUED:
        payload = _failure_payload(_NO_PROGRESS if state is JobState.FAILED else None)
        lines = [(row.event_seq - 1, *lines[0][1:]), (row.event_seq, row.token, state.value, payload)]
    events.write(session, row.id, lines)
    return Reaped(row.id, row.project, row.queue, token, worker_id, state)


def _returned(is_used_up: ColumnElement[bool], failure: Failure) -> dict[str, Any]:
    """Values of a job that leaves its worker: cancelled if wanted, failed if used up, else paused or queued."""
    is_over = sa.or_(_IS_CANCEL_WANTED, is_used_up)
    is_failed = sa.and_(sa.not_(_IS_CANCEL_WANTED), is_used_up)
    failed = {
        name: sa.case((is_failed, sa.literal(value, t.jobs.c[name].type)), else_=sa.null())
        for name, value in _failure_values(failure).items()
    }
    return {
        **_RELEASED,
        **failed,
        "state": sa.case(
            (_IS_CANCEL_WANTED, "cancelled"), (is_used_up, "failed"), (_IS_PAUSE_WANTED, "paused"), else_="queued"
        ),
        "desired": sa.case((_IS_CANCEL_WANTED, "cancel"), else_="run"),
        # A job that gave way queues behind the one it gave way to, however long ago it was created.
        "order_time": sa.case((t.jobs.c.desired == "yield", place_now()), else_=t.jobs.c.order_time),
        "end_time": sa.case((is_over, now()), else_=sa.null()),
        "token": t.jobs.c.token + 1,
        "dispatch_time": None,
    }


def _is_stuck(is_excused: ColumnElement[bool]) -> ColumnElement[bool]:
    return sa.and_(sa.not_(is_excused), t.jobs.c.no_progress + 1 >= NO_PROGRESS_LIMIT)


def _uncharged(is_excused: ColumnElement[bool]) -> dict[str, Any]:
    """Values of a job whose attempt does not count; without an excuse it counts as one without progress."""
    job = t.jobs.c
    return {
        "attempt": job.attempt - 1,
        "no_progress": job.no_progress + sa.case((is_excused, 0), else_=1),
        "uncharged_restarts": job.uncharged_restarts + 1,
    }


def _failure_values(failure: Failure | None) -> dict[str, Any]:
    if failure is None:
        return {}
    return {
        "failure_reason": failure.reason.value,
        "failure_message": failure.message,
        "failure_log": failure.log_tail,
    }


def _failure_payload(failure: Failure | None) -> dict[str, Any]:
    if failure is None:
        return {}
    payload: dict[str, Any] = {"reason": failure.reason.value, "message": failure.message}
    ended_by = {"exit_code": failure.exit_code, "signal": failure.signal}
    payload |= {name: value for name, value in ended_by.items() if value is not None}
    # The job's row keeps all of the last one; of attempts that were tried again this is what stays.
    return payload | ({"log_tail": failure.log_tail[-EVENT_LOG_CHARACTERS:]} if failure.log_tail else {})


def _close_attempt(session: Session, lease: Lease, state: AttemptState, failure: Failure | None) -> None:
    values: dict[str, Any] = {"state": state.value, "end_time": now()}
    if failure is not None:
        values |= {
            "failure_reason": failure.reason.value,
            "failure_message": failure.message,
            "exit_code": failure.exit_code,
            "signal": failure.signal,
        }
    is_open = (
        (t.attempts.c.job_id == lease.job_id) & (t.attempts.c.token == lease.token) & (t.attempts.c.state == "running")
    )
    session.execute(sa.update(t.attempts).where(is_open).values(values))


def _outcome(session: Session, lease: Lease) -> tuple[AttemptState | None, bool]:
    """Return how this lease's attempt ended, and whether the job's token was raised since.

    Only the lease's holder or the reaper (LOST) can have closed the attempt.
    """
    query = (
        sa.select(t.attempts.c.state, t.jobs.c.token)
        .join_from(t.attempts, t.jobs, t.attempts.c.job_id == t.jobs.c.id)
        .where(t.attempts.c.job_id == lease.job_id, t.attempts.c.token == lease.token)
    )
    row = session.execute(query).one_or_none()
    return (None, False) if row is None else (AttemptState(row.state), row.token > lease.token)


def _explain_refusal(session: Session, lease: Lease, state: JobState) -> None:
    outcome, is_raised = _outcome(session, lease)
    if outcome is AttemptState.RUNNING and not is_raised:
        raise PreconditionFailed("nobody asked this job to stop")
    # `finish` leaves the token as it is: the earlier call committed, only its answer was lost.
    if is_raised or outcome is None or outcome.value != state.value:
        raise LeaseLost


def _state_reached_before(session: Session, lease: Lease) -> JobState:
    outcome, is_raised = _outcome(session, lease)
    reached: Mapping[AttemptState | None, JobState] = {
        AttemptState.REQUEUED: JobState.QUEUED,
        AttemptState.FAILED: JobState.FAILED,
        AttemptState.CANCELLED: JobState.CANCELLED,
    }
    # `requeue` raises the token whatever state it reaches, which tells its ends from those of `finish`.
    if not is_raised or outcome not in reached:
        raise LeaseLost
    is_paused = sa.select(t.jobs.c.id).where(
        t.jobs.c.id == lease.job_id, t.jobs.c.token == lease.token + 1, t.jobs.c.state == "paused"
    )
    if session.execute(is_paused).one_or_none() is not None:
        return JobState.PAUSED
    return reached[outcome]
