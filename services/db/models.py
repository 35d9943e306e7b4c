"""Model versions: what succeeded jobs leave behind. Immutable, numbered from 1 within their model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from services.core.errors import ModelNotFound, PreconditionFailed
from services.db import tables as t
from services.db.changes import announce
from services.db.paging import Key, newest_first
from services.db.records import columns_of, values_of
from services.db.session import Session
from services.db.types import now
from services.db.upsert import insert_into


@dataclass(frozen=True, slots=True, kw_only=True)
class NewModelVersion:
    """A bundle already in the object store. `id` is made by the caller, because the prefix contains it.

    An empty `bundle_sha256` leaves the bundle to be packaged from the checkpoint; see `set_bundle`.

    Project, model, recipe and job are those of the job that finishes with it.
    """

    id: str
    checkpoint_id: str | None
    config: Mapping[str, Any]
    metrics: Mapping[str, float]
    bundle_prefix: str
    bundle_sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """One immutable result of training."""

    id: str
    project: str
    model_id: str
    version: int
    job_id: str
    checkpoint_id: str | None
    recipe: str
    config: dict[str, Any]
    metrics: dict[str, float]
    bundle_prefix: str
    bundle_sha256: str
    size_bytes: int
    create_time: datetime


_COLUMNS = columns_of(ModelVersion, t.model_versions)


def insert(
    session: Session, new: NewModelVersion, *, project: str, model_id: str, recipe: str, job_id: str
) -> ModelVersion:
    """Store the next version of a model; the model's row is the lock that numbers them."""
    announce(session)
    line = insert_into(session.dialect, t.models).values(project=project, model_id=model_id, last_version=1)
    numbered = line.on_conflict_do_update(
        index_elements=["project", "model_id"], set_={"last_version": t.models.c.last_version + 1}
    ).returning(t.models.c.last_version)
    version = session.execute(numbered).scalar_one()
    statement = sa.insert(t.model_versions).returning(*_COLUMNS)
    values = {
        **values_of(new, t.model_versions),
        "project": project,
        "model_id": model_id,
        "version": version,
        "job_id": job_id,
        "recipe": recipe,
        "config": dict(new.config),
        "metrics": dict(new.metrics),
    }
    return _to_version(session.execute(statement.values(**values, create_time=now())).one())


def set_bundle(
    session: Session,
    model_version_id: str,
    *,
    bundle_prefix: str,
    bundle_sha256: str,
    size_bytes: int,
    metrics: Mapping[str, float],
) -> ModelVersion:
    """Give a version that was created without a bundle the one now stored, once.

    Returns the version as it then is: another worker may have been first. Safe to repeat.
    """
    announce(session)
    version = t.model_versions.c
    is_empty = (version.id == model_version_id) & (version.bundle_sha256 == "")
    values = {
        "bundle_prefix": bundle_prefix,
        "bundle_sha256": bundle_sha256,
        "size_bytes": size_bytes,
        "metrics": dict(metrics),
    }
    session.execute(sa.update(t.model_versions).where(is_empty).values(values))
    return get_by_id(session, model_version_id)


def get(session: Session, project: str, model_id: str, version: int | None = None) -> ModelVersion:
    """Return one version of a model; the newest where none is named.

    Raises:
        ModelNotFound: the project has no such version.
    """
    return _found(session.execute(_one(project, model_id, version)).one_or_none(), project, model_id, version)


def get_by_id(session: Session, model_version_id: str) -> ModelVersion:
    """Return a version by its id.

    Raises:
        ModelNotFound: there is none.
    """
    row = session.execute(sa.select(*_COLUMNS).where(t.model_versions.c.id == model_version_id)).one_or_none()
    if row is None:
        raise ModelNotFound(f"no model version {model_version_id!r}")
    return _to_version(row)


def hold(session: Session, project: str, model_id: str, version: int | None = None) -> ModelVersion:
    """Return one version of a model, the newest where none is named; it cannot be deleted before the transaction ends.

    Raises:
        ModelNotFound: the project has no such version.
    """
    query = _one(project, model_id, version).with_for_update(read=True, key_share=True)
    return _found(session.execute(query).one_or_none(), project, model_id, version)


def keep(session: Session, model_version_id: str) -> None:
    """Keep a version from being deleted before the transaction ends.

    Raises:
        ModelNotFound: it was deleted.
    """
    query = sa.select(t.model_versions.c.id).where(t.model_versions.c.id == model_version_id)
    if session.execute(query.with_for_update(read=True, key_share=True)).one_or_none() is None:
        raise ModelNotFound(f"no model version {model_version_id!r}")


def delete(session: Session, project: str, model_id: str, version: int) -> None:
    """Forget a version that nothing uses any more, with its archives; the sweep removes their objects.

    Raises:
        ModelNotFound: the project has no such version.
        PreconditionFailed: a deployment, a gallery or a live job uses it.
    """
    announce(session)
    row = session.execute(_one(project, model_id, version).with_for_update()).one_or_none()
    found = _found(row, project, model_id, version)
    if (reason := _why_used(session, found)) is not None:
        raise PreconditionFailed(f"model {model_id}/{version}: {reason}")
    # What a deployment served before, and embeddings that a gallery moved on from, are of no use any more.
    replaced = t.deployments.c.previous_archive_id.in_(_archives_of(found))
    session.execute(sa.update(t.deployments).where(replaced).values(previous_archive_id=None))
    for table in (t.archives, t.embeddings):
        session.execute(sa.delete(table).where(table.c.model_version_id == found.id))
    session.execute(sa.delete(t.model_versions).where(t.model_versions.c.id == found.id))


def list_ids(session: Session, project: str, *, limit: int) -> list[str]:
    """Return up to `limit` ids of models that have versions, in order."""
    mine = t.model_versions.c
    query = sa.select(mine.model_id).distinct().where(mine.project == project).order_by(mine.model_id).limit(limit)
    return list(session.execute(query).scalars())


def page(
    session: Session,
    project: str,
    *,
    page_size: int,
    after: Key | None = None,
    model_id: str | None = None,
) -> list[ModelVersion]:
    """Return up to `page_size` versions, newest first, that come after the (create_time, id) of the last one seen."""
    table = t.model_versions
    query = sa.select(*_COLUMNS).where(table.c.project == project)
    if model_id is not None:
        query = query.where(table.c.model_id == model_id)
    query = newest_first(query, table, page_size=page_size, after=after)
    return [_to_version(row) for row in session.execute(query)]


def _one(project: str, model_id: str, version: int | None) -> sa.Select[Any]:
    mine = t.model_versions.c
    query = sa.select(*_COLUMNS).where(mine.project == project, mine.model_id == model_id)
    if version is not None:
        return query.where(mine.version == version)
    return query.order_by(mine.version.desc()).limit(1)


def _found(row: sa.Row[Any] | None, project: str, model_id: str, version: int | None) -> ModelVersion:
    if row is None:
        wanted = "" if version is None else f" version {version}"
        raise ModelNotFound(f"project {project!r} has no model {model_id!r}{wanted}")
    return _to_version(row)


def _archives_of(version: ModelVersion) -> sa.Select[Any]:
    return sa.select(t.archives.c.id).where(t.archives.c.model_version_id == version.id)


def _why_used(session: Session, version: ModelVersion) -> str | None:
    deployment, gallery, job = t.deployments.c, t.galleries.c, t.jobs.c
    ready = sa.select(t.archives.c.id).where(t.archives.c.id == deployment.archive_id, t.archives.c.state == "ready")
    # What was served before answers until its successor can be served.
    answers = deployment.previous_archive_id.in_(_archives_of(version)) & ~ready.exists()
    serving = sa.or_(deployment.model_version_id == version.id, answers)
    served = sa.select(deployment.deployment_id, deployment.delete_time).where(serving).limit(1)
    if (row := session.execute(served).first()) is not None:
        going = "it is being taken down, so try again in a moment"
        remedy = "deploy another version there, or delete the deployment" if row.delete_time is None else going
        return f"deployment {row.deployment_id!r} serves it; {remedy}"
    if (
        name := _first(session, sa.select(gallery.gallery_id).where(gallery.model_version_id == version.id))
    ) is not None:
        return f"gallery {name!r} compares by it; delete the gallery, or move it to another version"
    started = sa.select(job.id).where(job.project == version.project, t.IS_LIVE, version.id == t.STARTS_FROM)
    if (job_id := _first(session, started)) is not None:
        return f"job {job_id} starts from it; wait until it has ended, or cancel it"
    return None


def _first(session: Session, query: sa.Select[Any]) -> str | None:
    return session.scalars(query.limit(1)).first()


def _to_version(row: sa.Row[Any]) -> ModelVersion:
    return ModelVersion(**row._mapping)
