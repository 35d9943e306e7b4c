"""Whose turn it is: the order of waiting jobs, and which of them need a message to their workers.

Projects share a queue: the next slot goes to the project with the fewest running jobs, among equals to the
one that waits longest for a turn. A running job weighs as much as SHARE_SECONDS of waiting, so a project
that holds more slots than others is served all the same within that time for each of them.

Within a project jobs go by `order_time`: creation plus PRIORITY_STEP_SECONDS a step of priority. Waiting
thus makes up for priority, so nothing starves: a job of priority p is overtaken only by jobs of priority q
created less than (p - q) * PRIORITY_STEP_SECONDS after it. The order of two jobs never changes while
they wait, which is what lets an index hold it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from services.db import quotas
from services.db import tables as t
from services.db.session import Session
from services.db.types import epoch, later, now
from services.db.upsert import insert_into

PRIORITY_STEP_SECONDS = 600.0
SHARE_SECONDS = 86_400.0

_job = t.jobs.c
_QUEUED: ColumnElement[Any] = sa.literal_column("'queued'")
_RUNNING: ColumnElement[Any] = sa.literal_column("'running'")
_IS_DUE = sa.or_(_job.not_before_time.is_(None), _job.not_before_time <= now())
IS_CLAIMABLE: ColumnElement[bool] = sa.and_(
    t.IS_QUEUED, _job.desired == "run", _IS_DUE, quotas.is_below_running_quota()
)
_queue = sa.bindparam("queue", type_=_job.queue.type)
_window = sa.bindparam("window", type_=sa.Integer)
_stale_seconds = sa.bindparam("stale_seconds", type_=sa.Float)
# Statements are built once: each alias copies every column, which costs more than running the statement.
_step, _place, _busy = (t.jobs.alias(name).c for name in ("step", "place", "busy"))
_turn = t.turns.alias("turn").c


def place_now(priority: ColumnElement[Any] = _job.priority) -> now:
    """Return the `order_time` of a job that joins the queue now."""
    return now(sa.cast(priority, sa.Float) * PRIORITY_STEP_SECONDS)


def standing(queue: Any, project: Any, *, fewer: int = 0) -> later:
    """Return what orders projects, the smallest first: when they last got a slot, later by each job they run.

    `fewer` leaves that many of their running jobs out.
    """
    running = sa.select(sa.func.count()).where(_busy.state == _RUNNING, _busy.queue == queue, _busy.project == project)
    claim_time = sa.select(_turn.claim_time).where(_turn.queue == queue, _turn.project == project)
    weight = sa.cast(running.scalar_subquery() - fewer, sa.Float) * SHARE_SECONDS
    return later(sa.func.coalesce(claim_time.scalar_subquery(), epoch()), weight)


def head(queue: Any, project: Any) -> sa.Select[Any]:
    """Return the query of a project's claimable jobs in a queue, in order; the caller cuts and locks it."""
    query = sa.select(_job.id).where(_job.queue == queue, _job.project == project, IS_CLAIMABLE)
    return query.order_by(_job.order_time)


def projects_in_turn(session: Session, queue: str) -> list[str]:
    """Return the projects that have a job to start in a queue now, the one whose turn it is first."""
    return list(session.execute(_IN_TURN, {"queue": queue}).scalars())


def take_turn(session: Session, queue: str, project: str) -> None:
    """Note that a project got a slot of a queue now."""
    insert = insert_into(session.dialect, t.turns).values(queue=queue, project=project, claim_time=now())
    kept = insert.on_conflict_do_update(index_elements=["queue", "project"], set_={"claim_time": now()})
    session.execute(kept)


def dispatch(session: Session, *, window: int, redispatch_after_seconds: float) -> list[tuple[str, str]]:
    """Return (job id, queue) of jobs to send a message for now, after this transaction commits.

    Of each queue `window` claimable jobs at most keep a message in flight, sent again when it is older than
    `redispatch_after_seconds`. A message only rings: the worker claims the job whose turn it is, so it
    matters how many are in flight and not which. A long backlog neither floods the broker nor hides
    another queue. Lost and doubled messages are harmless.
    """
    due: list[tuple[str, str]] = []
    queue = _queue_after(session, "")
    while queue is not None:
        due += [(job_id, queue) for job_id in _due_of(session, queue, window, redispatch_after_seconds)]
        queue = _queue_after(session, queue)
    return due


def _queue_after(session: Session, queue: str) -> str | None:
    found: str | None = session.execute(_QUEUE_AFTER, {"queue": queue}).scalar_one()
    return found


def _due_of(session: Session, queue: str, window: int, redispatch_after_seconds: float) -> list[str]:
    stale_seconds = {"stale_seconds": -redispatch_after_seconds}
    silent = _silent(session, queue, window, stale_seconds)
    if not silent:
        return []
    # No row is locked before it changes: a locked head would look empty to a worker that skips locked rows.
    update = sa.update(t.jobs).where(_job.id.in_(silent), t.IS_QUEUED, _IS_STALE).values(dispatch_time=now())
    updated = set(session.execute(update.returning(_job.id), stale_seconds).scalars())
    return [job_id for job_id in silent if job_id in updated]


def _silent(session: Session, queue: str, window: int, stale_seconds: dict[str, float]) -> list[str]:
    """Return which of a queue's first `window` claimable jobs, project by project, have no message in flight."""
    values = {"queue": queue, "window": window, **stale_seconds}
    if session.dialect == "postgresql":
        return list(session.execute(_silent_on_postgresql(), values).scalars())
    found: list[sa.Row[Any]] = []
    for project in session.execute(_PROJECTS, {"queue": queue}).scalars().all():
        found += session.execute(_RINGING_OF_PROJECT, {**values, "project": project, "window": window - len(found)})
        if len(found) >= window:
            break
    return [row.id for row in found if row.is_stale]


def _project_after(project: Any) -> sa.ScalarSelect[Any]:
    query = sa.select(sa.func.min(_step.project)).where(_step.state == _QUEUED, _step.queue == _queue)
    return (query if project is None else query.where(_step.project > project)).scalar_subquery()


def _waiting_projects() -> sa.CTE:
    """Return the projects with queued jobs, one step through the index each; the last row is NULL."""
    walk = sa.select(_project_after(None).label("project")).cte("waiting", recursive=True)
    return walk.union_all(sa.select(_project_after(walk.c.project)).where(walk.c.project.is_not(None)))


def _in_turn() -> sa.Select[Any]:
    project = _WAITING.c.project
    has_due_job = sa.exists().where(_job.queue == _queue, _job.project == project, IS_CLAIMABLE)
    first_place = sa.select(sa.func.min(_place.order_time)).where(
        _place.state == _QUEUED, _place.queue == _queue, _place.project == project
    )
    return (
        sa.select(project)
        .where(project.is_not(None), has_due_job.correlate(_WAITING))
        .order_by(standing(_queue, project), first_place.scalar_subquery())
    )


@cache
def _silent_on_postgresql() -> sa.Select[Any]:
    theirs = head(_queue, _WAITING.c.project).with_only_columns(_job.id, _IS_STALE.label("is_stale"))
    lateral = theirs.limit(_window).lateral("theirs")
    ringing = sa.select(lateral).select_from(_WAITING.join(lateral, sa.true())).limit(_window).subquery("ringing")
    # Filtered there: to read the whole window costs more here than to find it.
    return sa.select(ringing.c.id).where(ringing.c.is_stale)


_IS_STALE = sa.or_(_job.dispatch_time.is_(None), _job.dispatch_time < now(_stale_seconds))
# One step through the index a queue; DISTINCT would read the whole backlog.
_QUEUE_AFTER = sa.select(sa.func.min(_job.queue)).where(t.IS_QUEUED, _job.queue > _queue)
_WAITING = _waiting_projects()
_PROJECTS = sa.select(_WAITING.c.project).where(_WAITING.c.project.is_not(None))
_IN_TURN = _in_turn()
_RINGING_OF_PROJECT = (
    head(_queue, sa.bindparam("project", type_=_job.project.type))
    .with_only_columns(_job.id, _IS_STALE.label("is_stale"))
    .limit(_window)
)
