"""Committed checkpoints. The row is the commit point: what has none does not exist, whatever the store holds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from services.core.errors import CheckpointNotFound, LeaseLost, PreconditionFailed
from services.core.ids import new_id
from services.db import events, fence
from services.db import tables as t
from services.db.changes import announce
from services.db.job_records import Lease
from services.db.paging import Key, newest_first
from services.db.records import columns_of, values_of
from services.db.session import Session
from services.db.types import now


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCheckpoint:
    """A checkpoint already uploaded and verified under `prefix`, its manifest last."""

    step: int
    prefix: str
    manifest_sha256: str
    size_bytes: int
    metric: float | None = None
    files: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    """name, size_bytes and sha256 of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint that a resume may read."""

    id: str
    job_id: str
    step: int
    token: int
    ordinal: int
    """Counts the job's checkpoints from 1."""
    state: str
    """committed, corrupt or deleting."""
    prefix: str
    manifest_sha256: str
    size_bytes: int
    metric: float | None
    files: list[dict[str, Any]]
    create_time: datetime


_COLUMNS = columns_of(Checkpoint, t.checkpoints)
_IS_COMMITTED: ColumnElement[bool] = t.checkpoints.c.state == sa.literal_column("'committed'")


def commit_checkpoint(session: Session, lease: Lease, new: NewCheckpoint) -> Checkpoint:
    """Make an uploaded checkpoint the job's newest, with its event; progress forgives uncharged restarts.

    Safe to call again after DatabaseUnavailable: a checkpoint this lease already committed is returned.

    Raises:
        LeaseLost: the token is no longer the job's, or the job has a checkpoint of this step or a later one.
    """
    announce(session)
    job = t.jobs.c
    checkpoint_id = new_id()
    update = (
        sa.update(t.jobs)
        .where(fence.is_held(lease), job.checkpoint_step < new.step)
        .values(
            checkpoint_step=new.step,
            checkpoint_id=checkpoint_id,
            checkpoint_count=job.checkpoint_count + 1,
            no_progress=0,
            # Of steps only some are told, so the last one told may lie before this.
            progress_step=sa.case((job.progress_step < new.step, new.step), else_=job.progress_step),
            update_time=now(),
            event_seq=job.event_seq + 1,
        )
        .returning(job.event_seq, job.checkpoint_count)
    )
    row = session.execute(update).one_or_none()
    if row is None:
        return _committed_before(session, lease, new.step)
    # A figure that is no number orders nothing, so it cannot pick the best checkpoint.
    metric = new.metric if new.metric is not None and math.isfinite(new.metric) else None
    values = {
        **values_of(new, t.checkpoints),
        "id": checkpoint_id,
        "job_id": lease.job_id,
        "token": lease.token,
        "ordinal": row.checkpoint_count,
        "state": "committed",
        "metric": metric,
        "files": [dict(file) for file in new.files],
    }
    insert = sa.insert(t.checkpoints).values(**values, create_time=now()).returning(*_COLUMNS)
    checkpoint = _to_checkpoint(session.execute(insert).one())
    payload = {"checkpoint_id": checkpoint_id, "step": new.step, "size_bytes": new.size_bytes, "metric": metric}
    events.write(session, lease.job_id, [(row.event_seq, lease.token, "checkpoint", payload)])
    return checkpoint


def get(session: Session, job_id: str, checkpoint_id: str) -> Checkpoint:
    """Return one committed checkpoint of a job.

    Raises:
        CheckpointNotFound: there is none; it may have been retired.
    """
    query = sa.select(*_COLUMNS).where(t.checkpoints.c.id == checkpoint_id, t.checkpoints.c.job_id == job_id)
    row = session.execute(query.where(_IS_COMMITTED)).one_or_none()
    if row is None:
        raise CheckpointNotFound(f"job {job_id!r} has no checkpoint {checkpoint_id!r}")
    return _to_checkpoint(row)


def hold(session: Session, job_id: str, checkpoint_id: str) -> Checkpoint:
    """Return a committed checkpoint that cannot be retired before this transaction ends.

    Raises:
        CheckpointNotFound: there is none; it may have been retired.
    """
    found = sa.select(t.checkpoints.c.id).where(t.checkpoints.c.id == checkpoint_id)
    session.execute(found.with_for_update(read=True)).all()
    return get(session, job_id, checkpoint_id)


def page(session: Session, job_id: str, *, page_size: int, after: Key | None = None) -> list[Checkpoint]:
    """Return up to `page_size` committed checkpoints, newest first, after the (create_time, id) last seen."""
    query = sa.select(*_COLUMNS).where(t.checkpoints.c.job_id == job_id, _IS_COMMITTED)
    query = newest_first(query, t.checkpoints, page_size=page_size, after=after)
    return [_to_checkpoint(row) for row in session.execute(query)]


def list_all(session: Session, job_id: str) -> list[Checkpoint]:
    """Return every row of a job in any state, by step; for collecting garbage and checking invariants."""
    query = sa.select(*_COLUMNS).where(t.checkpoints.c.job_id == job_id)
    query = query.order_by(t.checkpoints.c.step, t.checkpoints.c.token)
    return [_to_checkpoint(row) for row in session.execute(query)]


def newest_committed(session: Session, job_id: str) -> Checkpoint | None:
    """Return where the next attempt resumes, or None to begin anew."""
    query = sa.select(*_COLUMNS).where(t.checkpoints.c.job_id == job_id, _IS_COMMITTED)
    row = session.execute(query.order_by(t.checkpoints.c.step.desc()).limit(1)).one_or_none()
    return None if row is None else _to_checkpoint(row)


def mark_corrupt(session: Session, lease: Lease, checkpoint_id: str) -> Checkpoint | None:
    """Retire a checkpoint whose bytes do not match, and return the one to fall back to; safe to repeat.

    The job's step falls back too, so the lost steps can be trained and committed again.

    Raises:
        LeaseLost: the token is no longer the job's.
    """
    announce(session)
    job = t.jobs.c
    locked = sa.update(t.jobs).where(fence.is_held(lease)).values(update_time=now(), event_seq=job.event_seq + 1)
    seq = session.execute(locked.returning(job.event_seq)).scalar_one_or_none()
    if seq is None:
        raise LeaseLost
    spoiled = (t.checkpoints.c.id == checkpoint_id) & (t.checkpoints.c.job_id == lease.job_id) & _IS_COMMITTED
    session.execute(sa.update(t.checkpoints).where(spoiled).values(state="corrupt"))
    previous = newest_committed(session, lease.job_id)
    fallen_back = {
        "checkpoint_step": -1 if previous is None else previous.step,
        "checkpoint_id": None if previous is None else previous.id,
    }
    session.execute(sa.update(t.jobs).where(job.id == lease.job_id).values(fallen_back))
    text = (
        f"checkpoint {checkpoint_id} does not match its sha256; falling back to step {fallen_back['checkpoint_step']}"
    )
    events.write(session, lease.job_id, [(seq, lease.token, "log", {"level": "warning", "text": text})])
    return previous


def best_id(session: Session, job_id: str, *, metric_mode: str) -> str:
    """Return which committed checkpoint has the best figure, of equal ones the latest; empty where none has any."""
    row = t.checkpoints.c
    order = row.metric.desc() if metric_mode == "max" else row.metric.asc()
    query = sa.select(row.id).where(row.job_id == job_id, _IS_COMMITTED, row.metric.is_not(None))
    return session.execute(query.order_by(order, row.step.desc()).limit(1)).scalar_one_or_none() or ""


def retention(
    session: Session, job_id: str, *, keep_last: int = 3, every: int = 10, metric_mode: str = "max"
) -> list[Checkpoint]:
    """Return the checkpoints to delete: all but the last `keep_last`, the best by metric and each `every`-th.

    Also those already marked deleting, whose deletion may have stopped half way. Corrupt ones stay, as evidence.
    """
    rows = list_all(session, job_id)
    committed = [row for row in rows if row.state == "committed"]
    kept = {row.id for row in committed[-keep_last:]} | {row.id for row in committed if row.ordinal % every == 0}
    kept.add(best_id(session, job_id, metric_mode=metric_mode))
    return [row for row in rows if row.state == "deleting" or (row.state == "committed" and row.id not in kept)]


def mark_deleting(session: Session, checkpoint_ids: Sequence[str]) -> list[Checkpoint]:
    """Hide checkpoints before their objects go, and return those whose objects may be deleted now.

    The job's newest checkpoint is refused silently, since a resume may be reading it, and so is one that a job
    which has not ended starts from. Safe to repeat.
    """
    announce(session)
    # First the locks: a submission that holds one is waited for, and then seen.
    locked = sa.select(t.checkpoints.c.id).where(t.checkpoints.c.id.in_(checkpoint_ids)).with_for_update()
    session.execute(locked.order_by(t.checkpoints.c.id)).all()
    newest = sa.exists().where(t.jobs.c.checkpoint_id == t.checkpoints.c.id)
    started_from = sa.exists().where(t.jobs.c.source_checkpoint_id == t.checkpoints.c.id, t.IS_LIVE)
    update = (
        sa.update(t.checkpoints)
        .where(t.checkpoints.c.id.in_(checkpoint_ids), ~newest, ~started_from, t.checkpoints.c.state != "corrupt")
        .values(state="deleting")
        .returning(*_COLUMNS)
    )
    return [_to_checkpoint(row) for row in session.execute(update)]


def retire(session: Session, job_id: str, checkpoint_id: str) -> None:
    """Hide a checkpoint that nobody needs any more; retention removes its objects.

    Raises:
        CheckpointNotFound: there is none.
        PreconditionFailed: its job has not ended, a model is to be packaged from it, or a live job starts from it.
    """
    announce(session)
    of_it = t.checkpoints.c.id == checkpoint_id
    session.execute(sa.select(t.checkpoints.c.id).where(of_it).with_for_update()).all()
    found = get(session, job_id, checkpoint_id)
    if (reason := _why_needed(session, found)) is not None:
        raise PreconditionFailed(reason)
    session.execute(sa.update(t.checkpoints).where(of_it).values(state="deleting"))
    newest = newest_committed(session, job_id)
    left = {"checkpoint_step": newest.step if newest else -1, "checkpoint_id": newest.id if newest else None}
    session.execute(sa.update(t.jobs).where(t.jobs.c.id == job_id).values(**left, update_time=now()))


def _why_needed(session: Session, checkpoint: Checkpoint) -> str | None:
    version = t.model_versions.c
    if session.execute(sa.select(t.jobs.c.id).where(t.jobs.c.id == checkpoint.job_id, t.IS_LIVE)).first():
        return f"job {checkpoint.job_id} has not ended and may go on from its checkpoints; cancel it first"
    packaging = sa.select(version.model_id, version.version).where(
        version.checkpoint_id == checkpoint.id, version.bundle_sha256 == ""
    )
    if (model := session.execute(packaging.limit(1)).first()) is not None:
        return f"model {model.model_id}/{model.version} is still to be packaged from this checkpoint"
    started = sa.select(t.jobs.c.id).where(t.IS_LIVE, t.jobs.c.source_checkpoint_id == checkpoint.id)
    if (job := session.execute(started.limit(1)).scalar()) is not None:
        return f"job {job} starts from this checkpoint; wait until it has ended, or cancel it"
    return None


def delete(session: Session, checkpoint_id: str) -> None:
    """Forget a checkpoint whose objects are gone; only one marked deleting. Safe to repeat."""
    announce(session)
    gone = sa.delete(t.checkpoints).where(t.checkpoints.c.id == checkpoint_id, t.checkpoints.c.state == "deleting")
    session.execute(gone)


def _committed_before(session: Session, lease: Lease, step: int) -> Checkpoint:
    """Return what this lease committed when the answer to an earlier call got lost."""
    query = sa.select(*_COLUMNS).where(
        t.checkpoints.c.job_id == lease.job_id, t.checkpoints.c.step == step, t.checkpoints.c.token == lease.token
    )
    row = session.execute(query).one_or_none()
    if row is None:
        raise LeaseLost
    return _to_checkpoint(row)


def _to_checkpoint(row: sa.Row[Any]) -> Checkpoint:
    return Checkpoint(**row._mapping)
