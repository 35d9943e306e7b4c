"""What a person may ask of a job: to stop, to rest, to go on. Each is one UPDATE with its whole precondition.

A waiting job obeys at once. A running one is only asked: its worker learns it when it renews its lease,
saves a checkpoint, and gives the job back (`transitions.requeue`).
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from services.core.errors import PreconditionFailed
from services.core.states import JobState
from services.db import events, job_rows
from services.db import tables as t
from services.db.changes import announce
from services.db.job_records import Job
from services.db.schedule import place_now
from services.db.session import Session
from services.db.types import now

_job = t.jobs.c
_IS_PAUSED: ColumnElement[bool] = _job.state == "paused"
_MAY_STILL_PAUSE = _job.desired.in_(("run", "yield"))
_ENDED = "the job {state}; only a job that waits, runs or is paused can be {word}"
_GO_ON = "create a model version of a checkpoint of it, or a job that starts from one by init_from"
_RESTING = frozenset({JobState.PAUSED, JobState.PAUSING})
_GOING = frozenset({JobState.QUEUED, JobState.RUNNING})


def cancel(session: Session, project: str, job_id: str, reason: str) -> Job:
    """Cancel a waiting or paused job at once, or ask a running one to stop; a finished one stays as it is.

    Safe to repeat.

    Raises:
        JobNotFound: the project has no such job.
    """
    is_waiting = sa.or_(t.IS_QUEUED, _IS_PAUSED)
    values = {
        "desired": "cancel",
        "state": sa.case((is_waiting, "cancelled"), else_=_job.state),
        "end_time": sa.case((is_waiting, now()), else_=sa.null()),
    }
    row = _ask(session, project, job_id, t.IS_LIVE & (_job.desired != "cancel"), values)
    if row is not None:
        kind = "cancelled" if row.state == "cancelled" else "cancel_requested"
        events.write(session, job_id, [(row.event_seq, row.token, kind, {"reason": reason})])
    return job_rows.get(session, project, job_id)


def pause(session: Session, project: str, job_id: str, reason: str) -> Job:
    """Keep a waiting job from being started, or ask a running one to save and rest; a resting one stays so.

    Safe to repeat.

    Raises:
        JobNotFound: the project has no such job.
        PreconditionFailed: it ended, or was asked to cancel.
    """
    values = {
        "desired": sa.case((t.IS_QUEUED, "run"), else_="pause"),
        "state": sa.case((t.IS_QUEUED, "paused"), else_=_job.state),
        "dispatch_time": None,
    }
    row = _ask(session, project, job_id, sa.or_(t.IS_QUEUED, t.IS_RUNNING & _MAY_STILL_PAUSE), values)
    if row is not None:
        kind = "paused" if row.state == "paused" else "pause_requested"
        events.write(session, job_id, [(row.event_seq, row.token, kind, {"reason": reason})])
    return _in_one_of(job_rows.get(session, project, job_id), _RESTING, "paused")


def resume(session: Session, project: str, job_id: str) -> Job:
    """Queue a paused job as if it were new, to go on from its checkpoint, or take back a pause not yet obeyed.

    A job that waits or runs stays as it is. Safe to repeat.

    Raises:
        JobNotFound: the project has no such job.
        PreconditionFailed: it ended, or was asked to cancel.
    """
    values = {
        "desired": "run",
        "state": sa.case((_IS_PAUSED, "queued"), else_=_job.state),
        "order_time": sa.case((_IS_PAUSED, place_now()), else_=_job.order_time),
        "not_before_time": sa.case((_IS_PAUSED, sa.null()), else_=_job.not_before_time),
    }
    row = _ask(session, project, job_id, sa.or_(_IS_PAUSED, t.IS_RUNNING & (_job.desired == "pause")), values)
    if row is not None:
        events.write(session, job_id, [(row.event_seq, row.token, "resumed", {"state": row.state})])
    return _in_one_of(job_rows.get(session, project, job_id), _GOING, "resumed", remedy=_GO_ON)


def _ask(
    session: Session, project: str, job_id: str, condition: ColumnElement[bool], values: dict[str, Any]
) -> sa.Row[Any] | None:
    announce(session)
    update = (
        sa.update(t.jobs)
        .where(_job.id == job_id, _job.project == project, condition)
        .values(**values, update_time=now(), event_seq=_job.event_seq + 1)
        .returning(_job.state, _job.event_seq, _job.token)
    )
    return session.execute(update).one_or_none()


def _in_one_of(job: Job, states: frozenset[JobState], word: str, *, remedy: str = "") -> Job:
    if job.state not in states:
        is_ending = job.state is JobState.CANCELLING
        state = "is being cancelled" if is_ending else f"has {job.state.value}"
        text = _ENDED.format(state=state.replace("has cancelled", "was cancelled"), word=word)
        raise PreconditionFailed(f"{text}; {remedy}" if remedy else text)
    return job
