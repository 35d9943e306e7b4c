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
_IS_DUE = sa.or_(_job.not_before_time.is_(None), _job.not_before_time <= now())
IS_CLAIMABLE: ColumnElement[bool] = sa.and_(
    t.IS_QUEUED, _job.desired == "run", _IS_DUE, quotas.is_below_running_quota()
)


def place_now(priority: ColumnElement[Any] = _job.priority) -> now:
    """Return the `order_time` of a job that joins the queue now."""
    return now(sa.cast(priority, sa.Float) * PRIORITY_STEP_SECONDS)


def projects_in_turn(session: Session, queue: str) -> list[str]:
    """Return the projects that have a job to start in a queue now, the one whose turn it is first."""
    waiting = _waiting_projects(queue)
    has_due_job = sa.exists().where(_job.queue == queue, _job.project == waiting.c.project, IS_CLAIMABLE)
    places = t.jobs.alias().c
    is_queued = places.state == sa.literal_column("'queued'")
    first_place = (
        sa.select(sa.func.min(places.order_time))
        .where(is_queued, places.queue == queue, places.project == waiting.c.project)
        .scalar_subquery()
    )
    query = (
        sa.select(waiting.c.project)
        .where(waiting.c.project.is_not(None), has_due_job.correlate(waiting))
        .order_by(standing(queue, waiting.c.project), first_place)
    )
    return list(session.execute(query).scalars())


def standing(queue: str, project: ColumnElement[Any], *, fewer: int = 0) -> later:
    """Return what orders projects, the smallest first: when they last got a slot, later by each job they run.

    `fewer` leaves that many of their running jobs out.
    """
    busy, turn = t.jobs.alias().c, t.turns.alias().c
    is_running = busy.state == sa.literal_column("'running'")
    running = sa.select(sa.func.count()).where(is_running, busy.queue == queue, busy.project == project)
    claim_time = sa.select(turn.claim_time).where(turn.queue == queue, turn.project == project)
    weight = sa.cast(running.scalar_subquery() - fewer, sa.Float) * SHARE_SECONDS
    return later(sa.func.coalesce(claim_time.scalar_subquery(), epoch()), weight)


def head(queue: str, project: str | ColumnElement[Any]) -> sa.Select[Any]:
    """Return the query of a project's claimable jobs in a queue, in order; the caller cuts and locks it."""
    query = sa.select(_job.id).where(_job.queue == queue, _job.project == project, IS_CLAIMABLE)
    return query.order_by(_job.order_time)


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
    # One step through the index a queue; DISTINCT would read the whole backlog.
    query = sa.select(sa.func.min(_job.queue)).where(t.IS_QUEUED, _job.queue > queue)
    found: str | None = session.execute(query).scalar_one()
    return found


def _waiting_projects(queue: str) -> sa.CTE:
    """Return the projects with queued jobs, one step through the index each; the last row is NULL."""

    def after(project: ColumnElement[Any] | None) -> sa.ScalarSelect[Any]:
        step = t.jobs.alias().c
        is_queued = step.state == sa.literal_column("'queued'")
        query = sa.select(sa.func.min(step.project)).where(is_queued, step.queue == queue)
        return (query if project is None else query.where(step.project > project)).scalar_subquery()

    walk = sa.select(after(None).label("project")).cte("waiting", recursive=True)
    return walk.union_all(sa.select(after(walk.c.project)).where(walk.c.project.is_not(None)))


def _due_of(session: Session, queue: str, window: int, redispatch_after_seconds: float) -> list[str]:
    is_stale = sa.or_(_job.dispatch_time.is_(None), _job.dispatch_time < now(-redispatch_after_seconds))
    ringing = [row.id for row in _ringing(session, queue, window, is_stale) if row.is_stale]
    if not ringing:
        return []
    # No row is locked before it changes: a locked head would look empty to a worker that skips locked rows.
    update = sa.update(t.jobs).where(_job.id.in_(ringing), t.IS_QUEUED, is_stale).values(dispatch_time=now())
    updated = set(session.execute(update.returning(_job.id)).scalars())
    return [job_id for job_id in ringing if job_id in updated]


def _ringing(session: Session, queue: str, window: int, is_stale: ColumnElement[bool]) -> list[sa.Row[Any]]:
    """Return the first claimable jobs of a queue, project by project, up to `window` in all."""
    columns = (_job.id, is_stale.label("is_stale"))
    waiting = _waiting_projects(queue)
    if session.dialect == "postgresql":
        theirs = head(queue, waiting.c.project).with_only_columns(*columns).limit(window).lateral("theirs")
        query = sa.select(theirs).select_from(waiting.join(theirs, sa.true())).limit(window)
        return list(session.execute(query))
    found: list[sa.Row[Any]] = []
    for project in session.execute(sa.select(waiting.c.project).where(waiting.c.project.is_not(None))).scalars().all():
        of_project = head(queue, project).with_only_columns(*columns).limit(window - len(found))
        found += session.execute(of_project).all()
        if len(found) >= window:
            break
    return found
