"""Which running job gives its slot to a waiting one of higher priority. Only jobs whose owner agreed ever do.

One job a queue is asked at a time, and only for the job whose turn comes next, so no slot is given up for
somebody else. It saves a checkpoint, waits behind the other at its own priority, and its attempt is not
charged. It ran for a while before it is asked, so that it gets on between two interruptions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from services.db import events, schedule, workers
from services.db import tables as t
from services.db.changes import announce
from services.db.session import Session
from services.db.types import now

_job = t.jobs.c
_MAY_YIELD: ColumnElement[bool] = sa.and_(t.IS_RUNNING, _job.desired == "run", _job.is_preemptible)


@dataclass(frozen=True, slots=True)
class Preempted:
    """A running job that was asked to give way, and the waiting job it was asked for."""

    job_id: str
    queue: str
    for_job_id: str


def preempt(session: Session, *, min_run_seconds: float) -> list[Preempted]:
    """Ask at most one job of each queue to give way, where no slot is free and none is about to be.

    A job gives way to one with a lower priority number, of its own project or of one that would be served
    before its own even without it. `min_run_seconds` is how long it may run undisturbed.
    """
    queues = sa.select(_job.queue).where(_MAY_YIELD).distinct()
    asked = (_ask_one(session, queue, min_run_seconds) for queue in session.execute(queues).scalars().all())
    return [one for one in asked if one is not None]


def _ask_one(session: Session, queue: str, min_run_seconds: float) -> Preempted | None:
    is_stopping = sa.select(_job.id).where(t.IS_RUNNING, _job.queue == queue, _job.desired != "run").limit(1)
    if session.execute(is_stopping).one_or_none() is not None:
        return None
    capacity = workers.capacity(session, queue)
    if capacity.free_slots > 0 or capacity.full_disks > 0:
        # A slot given up on a full disk would be nobody's: its worker claims nothing.
        return None
    project = next(iter(schedule.projects_in_turn(session, queue)), None)
    if project is None:
        return None
    first = schedule.head(queue, project).with_only_columns(_job.id, _job.priority).limit(1)
    waiting = session.execute(first).one_or_none()
    if waiting is None:
        return None
    victim = _victim(queue, project, waiting.priority, min_run_seconds)
    update = (
        sa.update(t.jobs)
        .where(_job.id == victim.scalar_subquery(), _MAY_YIELD)
        .values(desired="yield", update_time=now(), event_seq=_job.event_seq + 1)
        .returning(_job.id, _job.event_seq, _job.token)
    )
    row = session.execute(update).one_or_none()
    if row is None:
        return None
    announce(session)
    text = f"gives way to a job of priority {waiting.priority}; goes on later from its checkpoint"
    events.write(session, row.id, [(row.event_seq, row.token, "log", {"level": "info", "text": text})])
    return Preempted(row.id, queue, waiting.id)


def _victim(queue: str, project: str, priority: int, min_run_seconds: float) -> sa.Select[Any]:
    """Return the query of the running job to ask: of the lowest priority, and of those the last to start."""
    mine = schedule.standing(queue, sa.literal(project))
    return (
        sa.select(_job.id)
        .join(t.attempts, (t.attempts.c.job_id == _job.id) & (t.attempts.c.token == _job.token))
        .where(
            _MAY_YIELD,
            _job.queue == queue,
            _job.priority > priority,
            t.attempts.c.start_time < now(-min_run_seconds),
            sa.or_(_job.project == project, schedule.standing(queue, _job.project, fewer=1) > mine),
        )
        .order_by(_job.priority.desc(), t.attempts.c.start_time.desc())
        .limit(1)
    )
