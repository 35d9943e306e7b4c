"""Servable archives: one per model version and serving target, built once by a worker that holds a lease.

The protocol is that of jobs in small: a claim raises the token, every write presents it, a lease that
ran out goes back to the queue, and the table says what needs a message.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from services.core.errors import JobNotRunnable, LeaseHeld, LeaseLost, NotFound
from services.core.ids import new_id
from services.core.states import ArchiveState
from services.db import tables as t
from services.db.changes import announce
from services.db.records import columns_of
from services.db.session import Session
from services.db.types import now
from services.db.upsert import insert_into

MAX_ATTEMPTS = 5
"""Builds begun, lost or given back, after which an archive fails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """A servable archive or its build; `key` to `form` are set once it is READY."""

    id: str
    model_version_id: str
    target: str
    state: ArchiveState
    attempt: int
    key: str | None
    sha256: str | None
    size_bytes: int | None
    form: str | None
    parity: dict[str, Any]
    message: str
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True, slots=True)
class ArchiveLease:
    """The right of one worker to build one archive."""

    archive_id: str
    model_version_id: str
    target: str
    token: int
    attempt: int
    worker_id: str


COLUMNS = columns_of(Archive, t.archives)
_IS_QUEUED = t.archives.c.state == sa.literal_column("'queued'")
_IS_BUILDING = t.archives.c.state == sa.literal_column("'building'")
_ITS_VERSION = t.model_versions.c.id == t.archives.c.model_version_id
# In the same words for whoever asks what is next: a build that nobody waits for must neither be begun nor be sent for.
_SERVES = sa.exists().where(t.deployments.c.archive_id == t.archives.c.id, t.deployments.c.delete_time.is_(None))
_PACKS = sa.exists().where(_ITS_VERSION, t.model_versions.c.bundle_sha256 == "")
IS_WAITING: ColumnElement[bool] = _IS_QUEUED & sa.or_(_SERVES, _PACKS)
"""Queued, and somebody wants it: a deployment that is not deleted, or a model version that has no bundle yet."""
_RELEASED: dict[str, Any] = {"lease_owner": None, "lease_expire_time": None, "update_time": now()}


def ensure(session: Session, model_version_id: str, target: str) -> Archive:
    """Return the archive of a model version for a target, queueing its build where there is none. Safe to repeat.

    A failed archive is returned as it is; `retry` queues it again.
    """
    announce(session)
    values = {"model_version_id": model_version_id, "target": target, "state": "queued", "attempt": 0, "token": 0}
    insert = insert_into(session.dialect, t.archives).values(
        id=new_id(), parity={}, message="", create_time=now(), update_time=now(), **values
    )
    session.execute(insert.on_conflict_do_nothing(index_elements=["model_version_id", "target"]))
    query = sa.select(*COLUMNS).where(t.archives.c.model_version_id == model_version_id, t.archives.c.target == target)
    return to_archive(session.execute(query).one())


def get(session: Session, archive_id: str) -> Archive:
    """Return one archive.

    Raises:
        NotFound: there is none.
    """
    row = session.execute(sa.select(*COLUMNS).where(t.archives.c.id == archive_id)).one_or_none()
    if row is None:
        raise NotFound(f"no archive {archive_id!r}")
    return to_archive(row)


def find(session: Session, model_version_id: str, target: str) -> Archive | None:
    """Return the archive of a model version for a target, where anybody asked for it."""
    query = sa.select(*COLUMNS).where(t.archives.c.model_version_id == model_version_id, t.archives.c.target == target)
    row = session.execute(query).one_or_none()
    return None if row is None else to_archive(row)


def retry(session: Session, archive_id: str) -> None:
    """Queue a failed archive again with a fresh count of attempts; others stay as they are."""
    announce(session)
    failed = sa.update(t.archives).where(t.archives.c.id == archive_id, t.archives.c.state == "failed")
    session.execute(
        failed.values(
            state="queued", attempt=0, message="", not_before_time=None, dispatch_time=None, update_time=now()
        )
    )


def want_again(session: Session, archive_id: str) -> None:
    """Let a queued build that nobody wants be sent for at once, since somebody is about to want it; others stay."""
    announce(session)
    unwanted = sa.update(t.archives).where(t.archives.c.id == archive_id, _IS_QUEUED, ~IS_WAITING)
    session.execute(unwanted.values(dispatch_time=None, update_time=now()))


def line(session: Session) -> dict[str, int]:
    """Return how many builds are before each that somebody wants: first those begun, then the oldest."""
    archive = t.archives.c
    order = (_IS_QUEUED, archive.create_time, archive.id)
    ids = session.scalars(sa.select(archive.id).where(sa.or_(_IS_BUILDING, IS_WAITING)).order_by(*order))
    return {archive_id: count for count, archive_id in enumerate(ids)}


def claim(session: Session, archive_id: str, *, worker_id: str, ttl_seconds: float) -> ArchiveLease:
    """Give `worker_id` the build of a queued archive that somebody wants.

    Raises:
        LeaseHeld: another worker builds it.
        JobNotRunnable: it is built, failed, waits for its retry delay, or nobody wants it any more.
        NotFound: no such archive.
    """
    archive = t.archives.c
    is_due = sa.or_(archive.not_before_time.is_(None), archive.not_before_time <= now())
    update = (
        sa.update(t.archives)
        .where(archive.id == archive_id, IS_WAITING, is_due)
        .values(
            state="building",
            token=archive.token + 1,
            attempt=archive.attempt + 1,
            lease_owner=worker_id,
            lease_expire_time=now(ttl_seconds),
            message="",
            update_time=now(),
        )
        .returning(archive.id, archive.model_version_id, archive.target, archive.token, archive.attempt)
    )
    row = session.execute(update).one_or_none()
    if row is not None:
        announce(session)
        return ArchiveLease(row.id, row.model_version_id, row.target, row.token, row.attempt, worker_id)
    if get(session, archive_id).state is ArchiveState.BUILDING:
        raise LeaseHeld("another worker is already building this archive")
    raise JobNotRunnable("the archive is not waiting to be built")


def renew(session: Session, lease: ArchiveLease, *, ttl_seconds: float, message: str = "") -> None:
    """Extend the lease from now, and say what the build does. Safe to repeat.

    Raises:
        LeaseLost: the token is no longer the archive's.
    """
    _write_held(session, lease, {"lease_expire_time": now(ttl_seconds), "message": message})


def finish_ready(
    session: Session,
    lease: ArchiveLease,
    *,
    key: str,
    sha256: str,
    size_bytes: int,
    form: str,
    parity: Mapping[str, Any],
) -> None:
    """Publish a stored archive that passed its parity gate. Safe to call again after DatabaseUnavailable.

    Raises:
        LeaseLost: the token is no longer the archive's.
    """
    announce(session)
    values = {"key": key, "sha256": sha256, "size_bytes": size_bytes, "form": form, "parity": dict(parity)}
    is_published = (t.archives.c.state == "ready") & (t.archives.c.key == key) & (t.archives.c.sha256 == sha256)
    _close(session, lease, {**values, "state": "ready", "message": ""}, is_done=is_published)


def finish_failed(session: Session, lease: ArchiveLease, message: str) -> None:
    """Give up on an archive; `message` is one sentence a person can act on. Safe to call again.

    Raises:
        LeaseLost: the token is no longer the archive's.
    """
    announce(session)
    _close(session, lease, {"state": "failed", "message": message}, is_done=t.archives.c.state == "failed")


def requeue(session: Session, lease: ArchiveLease, *, delay_seconds: float = 0.0, message: str = "") -> None:
    """Give the build back, not to be claimed before the delay; after MAX_ATTEMPTS builds it fails instead.

    Raises:
        LeaseLost: the token is no longer the archive's.
    """
    announce(session)
    _write_held(session, lease, {**_given_back(message), "not_before_time": now(delay_seconds)})


def due_for_dispatch(session: Session, *, limit: int, redispatch_after_seconds: float) -> list[str]:
    """Return ids of archives to send a message for after this transaction commits."""
    archive = t.archives.c
    is_due = sa.or_(archive.not_before_time.is_(None), archive.not_before_time <= now())
    is_stale = sa.or_(archive.dispatch_time.is_(None), archive.dispatch_time < now(-redispatch_after_seconds))
    head = sa.select(archive.id).where(IS_WAITING, is_due).order_by(archive.create_time).limit(limit).cte("head")
    update = (
        sa.update(t.archives)
        .where(archive.id.in_(sa.select(head.c.id)), IS_WAITING, is_stale)
        .values(dispatch_time=now())
        .returning(archive.id)
    )
    return list(session.execute(update).scalars())


def reap(session: Session) -> list[str]:
    """Take back the builds whose lease ran out, and return their archives.

    Call it through `reaper.Reaper`, which first makes sure of the clock: a live build that is taken back is
    begun again, which costs time and is safe.
    """
    expired = sa.update(t.archives).where(_IS_BUILDING, t.archives.c.lease_expire_time < now())
    returning = expired.values(_given_back("the worker was lost")).returning(t.archives.c.id)
    returned = list(session.execute(returning).scalars())
    if returned:
        announce(session)
    return returned


def _given_back(message: str) -> dict[str, Any]:
    is_used_up = t.archives.c.attempt >= MAX_ATTEMPTS
    gave_up = f"{message or 'the build was given back'}; gave up after {MAX_ATTEMPTS} builds"
    return {
        **_RELEASED,
        "state": sa.case((is_used_up, "failed"), else_="queued"),
        "message": sa.case((is_used_up, gave_up), else_=message),
        "token": t.archives.c.token + 1,
        "dispatch_time": None,
        "not_before_time": None,
    }


def _is_held(lease: ArchiveLease) -> ColumnElement[bool]:
    return (t.archives.c.id == lease.archive_id) & (t.archives.c.token == lease.token) & _IS_BUILDING


def _write_held(session: Session, lease: ArchiveLease, values: Mapping[str, Any]) -> None:
    update = sa.update(t.archives).where(_is_held(lease)).values(dict(values)).returning(t.archives.c.id)
    if session.execute(update).one_or_none() is None:
        raise LeaseLost("the build passed to another worker; nothing more may be written")


def _close(session: Session, lease: ArchiveLease, values: Mapping[str, Any], *, is_done: ColumnElement[bool]) -> None:
    """End a build; where this lease's earlier call already did, the token stands and nothing happens."""
    mine = (t.archives.c.id == lease.archive_id) & (t.archives.c.token == lease.token)
    if session.execute(sa.select(t.archives.c.id).where(mine, is_done)).one_or_none() is None:
        _write_held(session, lease, {**_RELEASED, **values})


def to_archive(row: sa.Row[Any]) -> Archive:
    """Read a row of COLUMNS."""
    values = dict(row._mapping)
    values["state"] = ArchiveState(values["state"])
    return Archive(**values)
