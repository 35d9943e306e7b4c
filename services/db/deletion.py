"""The deletion of an ended job with every row that hangs on it; the controller removes its objects."""

from __future__ import annotations

import sqlalchemy as sa

from services.core.errors import PreconditionFailed
from services.core.states import TERMINAL
from services.db import outbox
from services.db import tables as t
from services.db.changes import announce
from services.db.job_records import Job
from services.db.job_rows import get
from services.db.session import Session
from services.storage import layout

DELETE_OBJECTS = "job.delete"
"""The effect that removes what a job stored under `prefix`."""


def delete(session: Session, project: str, job_id: str) -> None:
    """Forget a job that ended, with its history, attempts, checkpoints and artifacts.

    Raises:
        JobNotFound: the project has no such job.
        PreconditionFailed: it has not ended, a model that it made is there, or a live job starts from its checkpoint.
    """
    announce(session)
    job = get(session, project, job_id)
    if job.state not in TERMINAL:
        raise PreconditionFailed(f"job {job_id} has not ended; cancel it first")
    # Who makes a model or a job of a checkpoint holds it: he is waited for and seen, or finds nothing left.
    of_job = t.checkpoints.c.job_id == job_id
    session.execute(sa.select(t.checkpoints.c.id).where(of_job).order_by(t.checkpoints.c.id).with_for_update()).all()
    if (reason := _why_needed(session, job)) is not None:
        raise PreconditionFailed(reason)
    outbox.put(session, DELETE_OBJECTS, job_id, {"prefix": layout.job_prefix(project, job_id)})
    for table in (t.events, t.artifacts, t.checkpoints, t.attempts):
        session.execute(sa.delete(table).where(table.c.job_id == job_id))
    session.execute(sa.delete(t.jobs).where(t.jobs.c.id == job_id))


def _why_needed(session: Session, job: Job) -> str | None:
    version = t.model_versions.c
    made = sa.select(version.model_id, version.version).where(version.job_id == job.id).order_by(version.create_time)
    if (model := session.execute(made.limit(1)).first()) is not None:
        return f"job {job.id} made model {model.model_id}/{model.version}; delete that first, or keep the job"
    checkpoints = sa.select(t.checkpoints.c.id).where(t.checkpoints.c.job_id == job.id)
    started = sa.select(t.jobs.c.id).where(t.IS_LIVE, t.jobs.c.source_checkpoint_id.in_(checkpoints))
    if (other := session.execute(started.limit(1)).scalar()) is not None:
        return f"job {other} starts from a checkpoint of job {job.id}; wait until it has ended, or cancel it"
    return None
