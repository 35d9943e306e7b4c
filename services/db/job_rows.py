"""Submitting, reading and counting jobs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.dml import ReturningInsert
from sqlalchemy.sql.elements import ColumnElement

from services.core.errors import DatasetNotFound, IdempotencyConflict, JobNotFound
from services.core.ids import new_id
from services.core.states import JobState
from services.db import events
from services.db import tables as t
from services.db.changes import announce
from services.db.job_records import JOB_COLUMNS, Job, NewJob, QueueFigures, etag, to_job
from services.db.paging import Key, newest_first
from services.db.records import columns_of, values_of
from services.db.schedule import place_now
from services.db.session import Session
from services.db.types import now
from services.db.upsert import insert_into

_GIVEN = [t.jobs.c.id, *columns_of(NewJob, t.jobs)]
_GIVEN_BY_DATABASE = ("dataset_id", "create_time", "update_time")
_GET = sa.select(*JOB_COLUMNS).where(t.jobs.c.id == sa.bindparam("id"), t.jobs.c.project == sa.bindparam("project"))
_INITIAL: dict[str, Any] = {
    "state": "queued",
    "desired": "run",
    "attempt": 0,
    "uncharged_restarts": 0,
    "no_progress": 0,
    "token": 0,
    "checkpoint_step": -1,
    "checkpoint_count": 0,
    "progress_step": 0,
    "progress_total": 0,
    "event_seq": 1,
}


def insert(session: Session, new: NewJob) -> tuple[Job, bool]:
    """Store a job with its `created` event, or find the one the same request stored before.

    The second value is False for a replay. Safe to call again after DatabaseUnavailable.

    Raises:
        IdempotencyConflict: the request_id belongs to a request with another hash.
        DatasetNotFound: the project has no such dataset version, or it is being deleted.
    """
    announce(session)
    values = {**values_of(new, t.jobs), "id": new_id(), "spec": dict(new.spec), "labels": dict(new.labels)}
    payload = {"recipe": new.recipe, "preset": new.preset, "queue": new.queue}
    if session.dialect == "postgresql":
        # One round trip for both rows: this is the statement every submission waits for.
        row = session.execute(_insert_with_event(), {**values, "payload": payload}).one_or_none()
    else:
        row = session.execute(_insert("sqlite"), values).one_or_none()
        if row is not None:
            events.write(session, values["id"], [(1, 0, "created", payload)])
    if row is None:
        return _replayed(session, new), False
    inserted = {**_INITIAL, **values, **row._mapping, "state": JobState.QUEUED, "etag": etag(1, -1)}
    known: dict[str, Any] = {field.name: inserted.get(field.name) for field in fields(Job)}
    return Job(**known), True


def get(session: Session, project: str, job_id: str) -> Job:
    """Return one job.

    Raises:
        JobNotFound: the project has no such job.
    """
    row = session.execute(_GET, {"id": job_id, "project": project}).one_or_none()
    if row is None:
        raise JobNotFound(f"project {project!r} has no job {job_id!r}")
    return to_job(row)


def page(
    session: Session,
    project: str,
    *,
    page_size: int,
    after: Key | None = None,
    states: Iterable[JobState] = (),
    recipe: str | None = None,
) -> list[Job]:
    """Return up to `page_size` jobs, newest first, that come after the (create_time, id) of the last one seen.

    A job inserted between two pages is newer than both and shifts nothing. No states means all.
    """
    of_project = t.jobs.c.project == project
    wanted = [_is_in(state) for state in states]
    if recipe is not None:
        of_project &= t.jobs.c.recipe == recipe
        wanted = wanted or [t.jobs.c.state == state.value for state in _STORED]
    found = of_project if not wanted else t.jobs.c.id.in_(_newest_of_each(of_project, wanted, page_size, after))
    query = newest_first(sa.select(*JOB_COLUMNS).where(found), t.jobs, page_size=page_size, after=after)
    return [to_job(row) for row in session.execute(query)]


def _newest_of_each(
    of_project: ColumnElement[bool], wanted: Sequence[ColumnElement[bool]], page_size: int, after: Key | None
) -> sa.Select[Any]:
    """Return the query of each state's own page; the page over all is among them.

    An index holds the jobs of one state in order, not those of several: sorting them, or looking for a rare
    state among all jobs, would read a great part of the table.
    """
    pages = [
        newest_first(sa.select(t.jobs.c.id).where(of_project, is_in), t.jobs, page_size=page_size, after=after)
        for is_in in wanted
    ]
    return sa.select(sa.union_all(*(sa.select(page.subquery()) for page in pages)).subquery().c.id)


def queue_figures(session: Session) -> QueueFigures:
    """Count jobs by state, and waiting and running ones by queue."""
    asked = {state.value: _is_in(state) for state in (JobState.CANCELLING, JobState.PAUSING)}
    state = sa.case(*((is_asked, word) for word, is_asked in asked.items()), else_=t.jobs.c.state).label("state")
    by_state = sa.select(state, sa.func.count()).group_by(sa.text("1"))
    waiting = (
        sa.select(t.jobs.c.queue, sa.func.count(), sa.func.min(t.jobs.c.create_time), now())
        .where(t.IS_QUEUED)
        .group_by(t.jobs.c.queue)
    )
    running = (
        # Renewing a lease changes no update_time: the worker may live while its trainer is stuck.
        sa.select(t.jobs.c.queue, sa.func.count(), sa.func.min(t.jobs.c.update_time), now())
        .where(t.IS_RUNNING)
        .group_by(t.jobs.c.queue)
    )
    queues = session.execute(waiting).all()
    busy = session.execute(running).all()
    return QueueFigures(
        jobs={JobState(name): count for name, count in session.execute(by_state)},
        queued={queue: count for queue, count, _, _ in queues},
        oldest_age_seconds={queue: max(0.0, (at - first).total_seconds()) for queue, _, first, at in queues},
        running={queue: count for queue, count, _, _ in busy},
        longest_silence_seconds={queue: max(0.0, (at - first).total_seconds()) for queue, _, first, at in busy},
    )


@cache
def _insert(dialect: str) -> ReturningInsert[Any]:
    """Build the submission as one statement that also checks and pins the dataset version.

    FOR KEY SHARE waits for a deletion in progress (which locks the row FOR UPDATE) and then sees it.
    """
    version = t.dataset_versions.c
    given = [sa.bindparam(column.name, type_=column.type) for column in _GIVEN]
    initial: list[ColumnElement[Any]] = [sa.literal_column(repr(value)) for value in _INITIAL.values()]
    priority = sa.bindparam("priority", type_=t.jobs.c.priority.type)
    source = (
        sa.select(*given, *initial, version.dataset_id, now(), now(), place_now(priority))
        .where(
            version.id == sa.bindparam("dataset_version_id", type_=version.id.type),
            version.project == sa.bindparam("project", type_=version.project.type),
            version.delete_time.is_(None),
        )
        .with_for_update(read=True, key_share=True, of=t.dataset_versions)
    )
    names = [*(column.name for column in _GIVEN), *_INITIAL, "dataset_id", "create_time", "update_time", "order_time"]
    statement = insert_into(dialect, t.jobs).from_select(names, source)
    statement = statement.on_conflict_do_nothing(index_elements=["project", "request_id"])
    return statement.returning(t.jobs.c.id, *(t.jobs.c[name] for name in _GIVEN_BY_DATABASE))


@cache
def _insert_with_event() -> sa.Select[Any]:
    created = _insert("postgresql").cte("created")
    payload = sa.bindparam("payload", type_=t.events.c.payload.type)
    line = sa.select(created.c.id, sa.literal_column("1, 0, 'created'"), payload, created.c.create_time)
    names = ["job_id", "seq", "token", "kind", "payload", "create_time"]
    noted = sa.insert(t.events).from_select(names, line).returning(t.events.c.seq).cte("noted")
    return sa.select(*(created.c[name] for name in _GIVEN_BY_DATABASE)).add_cte(noted)


def _replayed(session: Session, new: NewJob) -> Job:
    same = (t.jobs.c.project == new.project) & (t.jobs.c.request_id == new.request_id)
    found = session.execute(sa.select(t.jobs.c.request_sha256, *JOB_COLUMNS).where(same)).one_or_none()
    if found is None:
        raise DatasetNotFound(f"project {new.project!r} has no dataset version {new.dataset_version_id!r}")
    if found.request_sha256 != new.request_sha256:
        raise IdempotencyConflict
    return get(session, new.project, found.id)


def _is_in(state: JobState) -> ColumnElement[bool]:
    if state in _DESIRED:
        return t.IS_RUNNING & t.jobs.c.desired.in_(_DESIRED[state])
    return t.jobs.c.state == state.value


_STORED = tuple(state for state in JobState if state not in (JobState.CANCELLING, JobState.PAUSING))
_DESIRED = {JobState.RUNNING: ("run", "yield"), JobState.CANCELLING: ("cancel",), JobState.PAUSING: ("pause",)}
"""What a running job is asked to do, by the state it shows."""
