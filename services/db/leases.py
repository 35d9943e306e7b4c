"""Taking, keeping and describing the lease on a job's next attempt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from services.core.errors import JobNotFound, JobNotRunnable, LeaseHeld, LeaseLost
from services.core.states import AttemptState, Desired
from services.db import events, fence, quotas, schedule
from services.db import tables as t
from services.db.changes import announce
from services.db.job_records import Attempt, Lease, to_reason
from services.db.records import columns_of
from services.db.schedule import IS_CLAIMABLE
from services.db.session import Session
from services.db.types import now

_ATTEMPT_COLUMNS = columns_of(Attempt, t.attempts)


def claim(session: Session, job_id: str, *, worker_id: str, ttl_seconds: float) -> Lease:
    """Give `worker_id` the next attempt of a queued job that is due, with a higher token than ever before.

    Safe for a doubled message: the second call raises LeaseHeld. After DatabaseUnavailable the claim may
    have happened; nobody holds its token then, and the reaper returns the job uncharged.

    Raises:
        LeaseHeld: the job runs.
        JobNotRunnable: it is finished or paused, or waits for its retry delay or its project's quota.
        JobNotFound: no such job.
    """
    quotas.take_turns(session)
    lease = _claim(session, t.jobs.c.id == job_id, worker_id=worker_id, ttl_seconds=ttl_seconds)
    if lease is None:
        state = session.execute(sa.select(t.jobs.c.state).where(t.jobs.c.id == job_id)).scalar_one_or_none()
        if state is None:
            raise JobNotFound(f"no job {job_id!r}")
        if state == "running":
            raise LeaseHeld
        raise JobNotRunnable
    return lease


def claim_next(session: Session, queues: Sequence[str], *, worker_id: str, ttl_seconds: float) -> Lease | None:
    """Claim the job whose turn it is (see `schedule`) in the first of `queues` that has one."""
    quotas.take_turns(session)
    for queue in queues:
        for project in schedule.projects_in_turn(session, queue):
            first = schedule.head(queue, project).limit(1).with_for_update(skip_locked=True).scalar_subquery()
            lease = _claim(session, t.jobs.c.id == first, worker_id=worker_id, ttl_seconds=ttl_seconds)
            if lease is not None:
                return lease
    return None


def renew(session: Session, lease: Lease, *, ttl_seconds: float) -> Desired:
    """Extend the lease from now, and return what the worker is asked to do.

    A lease that ran out may still be renewed: only the reaper takes it away. Safe to repeat.

    Raises:
        LeaseLost: the token is no longer the job's.
    """
    update = (
        sa.update(t.jobs)
        .where(fence.is_held(lease))
        .values(lease_expire_time=now(ttl_seconds))
        .returning(t.jobs.c.desired)
    )
    found = session.execute(update).scalar_one_or_none()
    if found is None:
        raise LeaseLost
    return Desired(found)


def let_run_out(session: Session, job_id: str, *, token: int, worker_id: str) -> bool:
    """End the time of a lease whose holder is known to be dead, and return whether it held it still.

    Changes nothing else: the reaper takes the job as after any silence, and until it has, the token is what it was.
    Safe to repeat.
    """
    job = t.jobs.c
    is_its = (job.id == job_id) & (job.token == token) & (job.lease_owner == worker_id) & t.IS_RUNNING
    update = sa.update(t.jobs).where(is_its, job.lease_expire_time > now()).values(lease_expire_time=now())
    return session.execute(update.returning(job.id)).one_or_none() is not None


def desired(session: Session, lease: Lease) -> Desired:
    """Return what the worker is asked to do, without writing anything.

    Raises:
        LeaseLost: the token is no longer the job's.
    """
    found = session.execute(sa.select(t.jobs.c.desired).where(fence.is_held(lease))).scalar_one_or_none()
    if found is None:
        raise LeaseLost
    return Desired(found)


def record_attempt(
    session: Session, lease: Lease, *, host: str, boot_id: str, pid: int, pid_start: float, device: str
) -> None:
    """Note the process an attempt runs in, so that a restarted worker can find and end it. Safe to repeat.

    Raises:
        LeaseLost: the token is no longer the job's.
    """
    is_held = sa.exists(sa.select(t.jobs.c.id).where(fence.is_held(lease)))
    update = (
        sa.update(t.attempts)
        .where(t.attempts.c.job_id == lease.job_id, t.attempts.c.token == lease.token, is_held)
        .values(host=host, boot_id=boot_id, pid=pid, pid_start=pid_start, device=device)
        .returning(t.attempts.c.token)
    )
    if session.execute(update).one_or_none() is None:
        raise LeaseLost


def list_attempts(session: Session, job_id: str) -> list[Attempt]:
    """Return all attempts of a job, oldest first."""
    query = sa.select(*_ATTEMPT_COLUMNS).where(t.attempts.c.job_id == job_id).order_by(t.attempts.c.token)
    return [_to_attempt(row) for row in session.execute(query)]


def open_attempts(session: Session, worker_id: str) -> list[Attempt]:
    """Return the attempts that count as running on a worker."""
    query = sa.select(*_ATTEMPT_COLUMNS).where(
        t.attempts.c.state == sa.literal_column("'running'"), t.attempts.c.worker_id == worker_id
    )
    return [_to_attempt(row) for row in session.execute(query)]


def _claim(session: Session, which: ColumnElement[bool], *, worker_id: str, ttl_seconds: float) -> Lease | None:
    update = (
        sa.update(t.jobs)
        .where(which, IS_CLAIMABLE)
        .values(
            state="running",
            token=t.jobs.c.token + 1,
            attempt=t.jobs.c.attempt + 1,
            lease_owner=worker_id,
            lease_expire_time=now(ttl_seconds),
            start_time=sa.func.coalesce(t.jobs.c.start_time, now()),
            update_time=now(),
            event_seq=t.jobs.c.event_seq + 1,
        )
        .returning(
            t.jobs.c.id,
            t.jobs.c.project,
            t.jobs.c.queue,
            t.jobs.c.token,
            t.jobs.c.attempt,
            t.jobs.c.uncharged_restarts,
            t.jobs.c.event_seq,
            t.jobs.c.checkpoint_step,
        )
    )
    row = session.execute(update).one_or_none()
    if row is None:
        return None
    announce(session)
    lease = Lease(row.id, row.project, row.token, row.attempt, worker_id)
    session.execute(_OPEN_ATTEMPT, _attempt_values(lease))
    payload = {
        "worker_id": worker_id,
        "attempt": row.attempt,
        "number": row.attempt + row.uncharged_restarts,
        "checkpoint_step": row.checkpoint_step,
    }
    events.write(session, row.id, [(row.event_seq, row.token, "claimed", payload)])
    schedule.take_turn(session, row.queue, row.project)
    return lease


_OPEN_ATTEMPT = sa.insert(t.attempts).values(start_time=now())


def _attempt_values(lease: Lease) -> dict[str, Any]:
    return {
        "job_id": lease.job_id,
        "token": lease.token,
        "attempt": lease.attempt,
        "worker_id": lease.worker_id,
        "state": AttemptState.RUNNING.value,
    }


def _to_attempt(row: sa.Row[Any]) -> Attempt:
    values = dict(row._mapping)
    values["state"] = AttemptState(values["state"])
    values["failure_reason"] = to_reason(values["failure_reason"])
    return Attempt(**values)
