"""Which waiting jobs need a message to their workers. Level-triggered: the table says what is due, each time anew."""

from __future__ import annotations

import sqlalchemy as sa

from services.db import tables as t
from services.db.leases import IS_CLAIMABLE
from services.db.session import Session
from services.db.types import now


def dispatch(session: Session, *, window: int, redispatch_after_seconds: float) -> list[tuple[str, str]]:
    """Return (job id, queue) of jobs to send a message for now, after this transaction commits.

    Of each queue only the first `window` claimable jobs keep a message in flight, sent again when it is
    older than `redispatch_after_seconds`: any message lets a worker claim the queue's first job, so a
    long backlog neither floods the broker nor hides another queue. Lost and doubled messages are harmless.
    """
    due: list[tuple[str, str]] = []
    queue = _queue_after(session, "")
    while queue is not None:
        due += [(job_id, queue) for job_id in _due_of(session, queue, window, redispatch_after_seconds)]
        queue = _queue_after(session, queue)
    return due


def _queue_after(session: Session, queue: str) -> str | None:
    # One step through the index a queue; DISTINCT would read the whole backlog.
    query = sa.select(sa.func.min(t.jobs.c.queue)).where(t.IS_QUEUED, t.jobs.c.queue > queue)
    found: str | None = session.execute(query).scalar_one()
    return found


def _due_of(session: Session, queue: str, window: int, redispatch_after_seconds: float) -> list[str]:
    job = t.jobs.c
    head = (
        sa.select(job.id, job.dispatch_time)
        .where(job.queue == queue, IS_CLAIMABLE)
        .order_by(job.priority, job.create_time)
        .limit(window)
        .cte("head")
    )
    is_stale = sa.or_(job.dispatch_time.is_(None), job.dispatch_time < now(-redispatch_after_seconds))
    # No row is locked before it changes: a locked head would look empty to a worker that skips locked rows.
    update = (
        sa.update(t.jobs)
        .where(job.id.in_(sa.select(head.c.id)), t.IS_QUEUED, is_stale)
        .values(dispatch_time=now())
        .returning(job.id, job.priority, job.create_time)
    )
    rows = sorted(session.execute(update).all(), key=lambda row: (row.priority, row.create_time))
    return [row.id for row in rows]
