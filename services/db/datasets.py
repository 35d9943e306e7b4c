"""Dataset versions: immutable manifests in the object store, numbered from 1 within their dataset.

Deleting hides a dataset at once; its objects go later, when nothing reads them, and the row stays for
the jobs that were trained on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from services.core.errors import DatasetNotFound, IdempotencyConflict, PreconditionFailed
from services.db import tables as t
from services.db.changes import announce
from services.db.paging import Key, newest_first
from services.db.records import columns_of, values_of
from services.db.session import Session
from services.db.types import now
from services.db.upsert import insert_into


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDatasetVersion:
    """A version already in the object store. `id` is made by the caller, because its prefix contains it."""

    id: str
    project: str
    dataset_id: str
    request_id: str
    request_sha256: str
    family: str
    format: str
    classes: Sequence[str]
    counts: Mapping[str, Any]
    manifest_key: str
    manifest_sha256: str
    size_bytes: int
    report: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetVersion:
    """One immutable version of a dataset."""

    id: str
    project: str
    dataset_id: str
    version: int
    family: str
    format: str
    classes: list[str]
    counts: dict[str, Any]
    manifest_key: str
    manifest_sha256: str
    size_bytes: int
    report: dict[str, Any]
    create_time: datetime


_versions = t.dataset_versions
_COLUMNS = columns_of(DatasetVersion, _versions)
_MOST_NAMED = 3
_IS_THERE = _versions.c.delete_time.is_(None)
# Built once: every submission runs it, and building costs more than running.
_GET_NEWEST = (
    sa.select(*_COLUMNS)
    .where(
        _versions.c.project == sa.bindparam("project"), _versions.c.dataset_id == sa.bindparam("dataset_id"), _IS_THERE
    )
    .order_by(_versions.c.version.desc())
    .limit(1)
)
_GET_VERSION = _GET_NEWEST.where(_versions.c.version == sa.bindparam("version"))


def insert(session: Session, new: NewDatasetVersion) -> tuple[DatasetVersion, bool]:
    """Store the next version of a dataset, or find the one the same request stored before (second value False).

    Safe to call again after DatabaseUnavailable.

    Raises:
        IdempotencyConflict: the request_id belongs to a request with another hash.
    """
    announce(session)
    dialect = session.dialect
    lines = t.datasets.c
    line = insert_into(dialect, t.datasets).values(project=new.project, dataset_id=new.dataset_id, last_version=0)
    # The dataset's row is the lock: whoever holds it sees every earlier request of this dataset.
    locked = line.on_conflict_do_update(
        index_elements=["project", "dataset_id"], set_={"last_version": lines.last_version}
    ).returning(lines.last_version)
    version = session.execute(locked).scalar_one() + 1
    values = {
        **values_of(new, _versions),
        "version": version,
        "classes": list(new.classes),
        "counts": dict(new.counts),
        "report": dict(new.report),
    }
    statement = insert_into(dialect, _versions).values(**values, create_time=now())
    statement = statement.on_conflict_do_nothing(index_elements=["project", "request_id"])
    row = session.execute(statement.returning(*_COLUMNS)).one_or_none()
    if row is None:
        return find_request(session, new.project, new.request_id, new.request_sha256), False
    mine = (lines.project == new.project) & (lines.dataset_id == new.dataset_id)
    session.execute(sa.update(t.datasets).where(mine).values(last_version=version))
    return _to_version(row), True


def find_request(session: Session, project: str, request_id: str, request_sha256: str) -> DatasetVersion:
    """Return what a request stored before.

    Raises:
        DatasetNotFound: the request is new.
        IdempotencyConflict: its hash was another.
    """
    query = sa.select(_versions.c.request_sha256, *_COLUMNS).where(
        _versions.c.project == project, _versions.c.request_id == request_id
    )
    row = session.execute(query).one_or_none()
    if row is None:
        raise DatasetNotFound(f"request {request_id!r} stored no dataset")
    if row.request_sha256 != request_sha256:
        raise IdempotencyConflict
    return get_by_id(session, row.id)


def has_request(session: Session, project: str, request_id: str) -> bool:
    """Return whether a request of this id stored a dataset."""
    same = (_versions.c.project == project) & (_versions.c.request_id == request_id)
    return session.execute(sa.select(_versions.c.id).where(same)).one_or_none() is not None


def get(session: Session, project: str, dataset_id: str, version: int | None = None) -> DatasetVersion:
    """Return one version of a dataset that is not deleted; the newest where none is named.

    Raises:
        DatasetNotFound: the project has no such version.
    """
    query = _GET_NEWEST if version is None else _GET_VERSION
    given = {"project": project, "dataset_id": dataset_id, "version": version}
    row = session.execute(query, given).one_or_none()
    if row is None:
        wanted = "" if version is None else f" version {version}"
        raise DatasetNotFound(f"project {project!r} has no dataset {dataset_id!r}{wanted}")
    return _to_version(row)


def hold(session: Session, project: str, dataset_id: str) -> DatasetVersion:
    """Return the newest version of a dataset, which cannot be deleted before the transaction ends.

    Raises:
        DatasetNotFound: the project has no such dataset.
    """
    given = {"project": project, "dataset_id": dataset_id}
    row = session.execute(_GET_NEWEST.with_for_update(read=True), given).one_or_none()
    if row is None:
        raise DatasetNotFound(f"project {project!r} has no dataset {dataset_id!r}")
    return _to_version(row)


def get_by_id(session: Session, version_id: str) -> DatasetVersion:
    """Return a version by its id, deleted or not: a running job may still need to know it.

    Raises:
        DatasetNotFound: there is none.
    """
    row = session.execute(sa.select(*_COLUMNS).where(_versions.c.id == version_id)).one_or_none()
    if row is None:
        raise DatasetNotFound(f"no dataset version {version_id!r}")
    return _to_version(row)


def page(
    session: Session, project: str, *, page_size: int, after: Key | None = None, family: str | None = None
) -> list[DatasetVersion]:
    """Return the newest version of up to `page_size` datasets, newest first, after the (create_time, id) last seen."""
    other = t.dataset_versions.alias()
    is_outdated = sa.exists().where(
        other.c.project == _versions.c.project,
        other.c.dataset_id == _versions.c.dataset_id,
        other.c.version > _versions.c.version,
        other.c.delete_time.is_(None),
    )
    query = sa.select(*_COLUMNS).where(_versions.c.project == project, _IS_THERE, ~is_outdated)
    if family is not None:
        query = query.where(_versions.c.family == family)
    return [
        _to_version(row) for row in session.execute(newest_first(query, _versions, page_size=page_size, after=after))
    ]


def list_versions(session: Session, project: str, dataset_id: str) -> list[DatasetVersion]:
    """Return all versions of a dataset that are not deleted, newest first."""
    query = sa.select(*_COLUMNS).where(_versions.c.project == project, _versions.c.dataset_id == dataset_id, _IS_THERE)
    return [_to_version(row) for row in session.execute(query.order_by(_versions.c.version.desc()))]


def delete(session: Session, project: str, dataset_id: str) -> None:
    """Hide all versions of a dataset.

    Raises:
        DatasetNotFound: the project has no such dataset.
        PreconditionFailed: queued or running jobs use it.
    """
    announce(session)
    mine = (_versions.c.project == project) & (_versions.c.dataset_id == dataset_id) & _IS_THERE
    # FOR UPDATE waits for submissions that pin a version; the jobs they insert show in the next statement.
    ids = session.execute(sa.select(_versions.c.id).where(mine).with_for_update()).scalars().all()
    if not ids:
        raise DatasetNotFound(f"project {project!r} has no dataset {dataset_id!r}")
    # What a job starts from stands in its spec only.
    starts_from_it = t.STARTS_FROM.in_(ids)
    uses_it = sa.or_(t.jobs.c.dataset_version_id.in_(ids), starts_from_it)
    users = sa.select(t.jobs.c.id).where(t.jobs.c.project == project, uses_it, t.IS_LIVE).order_by(t.jobs.c.id)
    if found := session.execute(users).scalars().all():
        raise PreconditionFailed(f"dataset {dataset_id!r} is used by {_jobs(found)}")
    # The same request again makes it anew: its id is free for that.
    gone = {"delete_time": now(), "request_id": _versions.c.id}
    session.execute(sa.update(_versions).where(_versions.c.id.in_(ids)).values(gone))


def due_for_purge(session: Session, *, limit: int, older_than_seconds: float = 0.0) -> list[DatasetVersion]:
    """Return deleted versions whose objects are still stored."""
    query = sa.select(*_COLUMNS).where(
        _versions.c.delete_time < now(-older_than_seconds), _versions.c.purge_time.is_(None)
    )
    return [_to_version(row) for row in session.execute(query.order_by(_versions.c.delete_time).limit(limit))]


def mark_purged(session: Session, version_id: str) -> None:
    """Note that the objects of a deleted version are gone. Safe to repeat."""
    announce(session)
    purged = sa.update(_versions).where(_versions.c.id == version_id, _versions.c.delete_time.is_not(None))
    session.execute(purged.values(purge_time=now()))


def _jobs(job_ids: Sequence[str]) -> str:
    if len(job_ids) == 1:
        return f"job {job_ids[0]}, which has not ended; cancel it first"
    more = f" and {len(job_ids) - _MOST_NAMED} more" if len(job_ids) > _MOST_NAMED else ""
    return f"jobs {', '.join(job_ids[:_MOST_NAMED])}{more}, which have not ended; cancel them first"


def _to_version(row: sa.Row[Any]) -> DatasetVersion:
    return DatasetVersion(**row._mapping)
