"""Artifacts of jobs: samples, curves, reports. Immutable blobs in the object store with their digest."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from services.core.errors import ArtifactNotFound, LeaseLost
from services.core.ids import new_id
from services.db import events, fence
from services.db import tables as t
from services.db.changes import announce
from services.db.job_records import Lease
from services.db.paging import Key, newest_first
from services.db.records import columns_of, values_of
from services.db.session import Session
from services.db.types import now
from services.db.upsert import insert_into


@dataclass(frozen=True, slots=True, kw_only=True)
class NewArtifact:
    """A blob already in the object store under `key`."""

    name: str
    kind: str
    key: str
    size_bytes: int
    sha256: str
    step: int
    content_type: str = "application/octet-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One blob a job made at a step."""

    id: str
    job_id: str
    token: int
    name: str
    kind: str
    key: str
    size_bytes: int
    sha256: str
    step: int
    content_type: str
    create_time: datetime


_COLUMNS = columns_of(Artifact, t.artifacts)


def add(session: Session, lease: Lease, new: NewArtifact) -> Artifact:
    """Record an uploaded artifact of a running attempt, with its event; the same key twice is one artifact.

    Raises:
        LeaseLost: the token is no longer the job's.
    """
    announce(session)
    job = t.jobs.c
    update = sa.update(t.jobs).where(fence.is_held(lease)).values(event_seq=job.event_seq + 1, update_time=now())
    seq = session.execute(update.returning(job.event_seq)).scalar_one_or_none()
    if seq is None:
        raise LeaseLost
    values = {**values_of(new, t.artifacts), "id": new_id(), "job_id": lease.job_id, "token": lease.token}
    insert = insert_into(session.dialect, t.artifacts).values(**values, create_time=now())
    kept = insert.on_conflict_do_update(
        index_elements=["job_id", "key"],
        set_={name: insert.excluded[name] for name in ("size_bytes", "sha256", "token", "step", "content_type")},
    )
    artifact = _to_artifact(session.execute(kept.returning(*_COLUMNS)).one())
    payload = {"artifact_id": artifact.id, "name": new.name, "kind": new.kind, "step": new.step}
    events.write(session, lease.job_id, [(seq, lease.token, "artifact", payload)])
    return artifact


def page(
    session: Session, job_id: str, *, page_size: int, after: Key | None = None, kind: str | None = None
) -> list[Artifact]:
    """Return up to `page_size` artifacts of a job, newest first, after the (create_time, id) last seen."""
    query = sa.select(*_COLUMNS).where(t.artifacts.c.job_id == job_id)
    if kind is not None:
        query = query.where(t.artifacts.c.kind == kind)
    query = newest_first(query, t.artifacts, page_size=page_size, after=after)
    return [_to_artifact(row) for row in session.execute(query)]


def get(session: Session, job_id: str, artifact_id: str) -> Artifact:
    """Return one artifact of a job.

    Raises:
        ArtifactNotFound: the job has no such artifact.
    """
    query = sa.select(*_COLUMNS).where(t.artifacts.c.id == artifact_id, t.artifacts.c.job_id == job_id)
    row = session.execute(query).one_or_none()
    if row is None:
        raise ArtifactNotFound(f"job {job_id!r} has no artifact {artifact_id!r}")
    return _to_artifact(row)


def _to_artifact(row: sa.Row[Any]) -> Artifact:
    return Artifact(**row._mapping)
