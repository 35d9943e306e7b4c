"""Galleries of faces: each holds the embeddings of one model version, and a number that grows with every change.

Whoever keeps a gallery in memory compares the number before using it, so that several servers agree.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from services.core.errors import AlreadyExists, GalleryNotFound, IdempotencyConflict, VersionsDiffer
from services.core.ids import new_id
from services.core.states import GalleryState
from services.db import models, outbox
from services.db import tables as t
from services.db.changes import announce
from services.db.deployments import ALIVE_SECONDS
from services.db.paging import Key, newest_first
from services.db.records import columns_of, values_of
from services.db.session import Session
from services.db.types import now
from services.db.upsert import insert_into
from services.storage import layout

DELETE_IMAGES = "images.delete"
"""The effect that removes the kept images under `prefix`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewGallery:
    """What a request asks for."""

    project: str
    gallery_id: str
    request_id: str
    request_sha256: str
    deployment_id: str
    model_version_id: str
    keep_images: bool
    is_pinned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """A gallery with the model version it is bound to; `id` is the uid that its identities and objects carry.

    `wanted_version_id` is the version that its deployment is to serve, None where the deployment is gone.
    """

    id: str
    project: str
    gallery_id: str
    deployment_id: str
    model_version_id: str
    model_id: str
    version: int
    keep_images: bool
    is_pinned: bool
    revision: int
    create_time: datetime
    update_time: datetime
    wanted_version_id: str | None

    @property
    def is_following(self) -> bool:
        """Whether it moves by itself to what its deployment serves."""
        return self.keep_images and not self.is_pinned

    @property
    def state(self) -> GalleryState:
        if self.wanted_version_id == self.model_version_id:
            return GalleryState.READY
        return GalleryState.MOVING if self.is_following and self.wanted_version_id else GalleryState.STALE


class Counts(NamedTuple):
    """How many identities a gallery has, and how many of them cannot be compared."""

    total: int = 0
    needs_images: int = 0


_galleries, _deployments = t.galleries.c, t.deployments.c
_IS_SERVED_BY = sa.and_(
    _deployments.project == _galleries.project,
    _deployments.deployment_id == _galleries.deployment_id,
    _deployments.delete_time.is_(None),
)


def _query() -> sa.Select[Any]:
    version = t.model_versions.c
    wanted = _deployments.model_version_id.label("wanted_version_id")
    return (
        sa.select(*columns_of(Gallery, t.galleries), version.model_id, version.version, wanted)
        .join_from(t.galleries, t.model_versions, _galleries.model_version_id == version.id)
        .outerjoin(t.deployments, _IS_SERVED_BY)
    )


# Built once: every comparison runs it twice, and building costs more than running.
_GET = _query().where(
    _galleries.project == sa.bindparam("project"), _galleries.gallery_id == sa.bindparam("gallery_id")
)


def insert(session: Session, new: NewGallery) -> tuple[Gallery, bool]:
    """Store a gallery. The second value is False where the same request stored it before.

    Raises:
        IdempotencyConflict: the request_id belongs to a request with another hash.
        AlreadyExists: another request took the gallery_id.
        ModelNotFound: the model version was deleted meanwhile.
    """
    announce(session)
    models.keep(session, new.model_version_id)
    statement = insert_into(session.dialect, t.galleries).values(
        id=new_id(), revision=1, create_time=now(), update_time=now(), **values_of(new, t.galleries)
    )
    row = session.execute(statement.on_conflict_do_nothing().returning(_galleries.id)).one_or_none()
    if row is None:
        _check_replay(session, new)
    return get(session, new.project, new.gallery_id), row is not None


def get(session: Session, project: str, gallery_id: str) -> Gallery:
    """Return one gallery.

    Raises:
        GalleryNotFound: the project has no such gallery.
    """
    row = session.execute(_GET, {"project": project, "gallery_id": gallery_id}).one_or_none()
    if row is None:
        raise _missing(project, gallery_id)
    return Gallery(**row._mapping)


def page(session: Session, project: str, *, page_size: int, after: Key | None = None) -> list[Gallery]:
    """Return up to `page_size` galleries, newest first, after the (create_time, id) of the last one seen."""
    query = newest_first(_query().where(_galleries.project == project), t.galleries, page_size=page_size, after=after)
    return [Gallery(**row._mapping) for row in session.execute(query)]


def due(session: Session, *, alive_seconds: float = ALIVE_SECONDS) -> list[Gallery]:
    """Return the galleries that are to move by themselves: their deployments serve another version by now."""
    is_served = sa.exists().where(
        t.replicas.c.deployment_uid == _deployments.id,
        t.replicas.c.is_ready,
        t.replicas.c.archive_sha256 == t.archives.c.sha256,
        t.archives.c.id == _deployments.archive_id,
        t.agents.c.id == t.replicas.c.agent_id,
        t.agents.c.report_time > now(-alive_seconds),
    )
    is_following = _galleries.keep_images & ~_galleries.is_pinned
    differs = _deployments.model_version_id != _galleries.model_version_id
    query = _query().where(is_following, differs, is_served).order_by(_galleries.create_time, _galleries.id)
    return [Gallery(**row._mapping) for row in session.execute(query)]


def counts(session: Session, galleries: Collection[Gallery]) -> dict[str, Counts]:
    """Return the counts of each gallery by its uid."""
    identity, embedding = t.identities.c, t.embeddings.c
    total, ready = sa.func.count(), sa.func.count(embedding.identity_uid)
    query = (
        sa.select(identity.gallery_uid, total, ready)
        .join_from(t.identities, t.galleries, identity.gallery_uid == _galleries.id)
        .outerjoin(
            t.embeddings,
            (embedding.identity_uid == identity.id) & (embedding.model_version_id == _galleries.model_version_id),
        )
        .where(_galleries.id.in_([gallery.id for gallery in galleries]))
        .group_by(identity.gallery_uid)
    )
    found = {uid: Counts(total, total - ready) for uid, total, ready in session.execute(query)}
    return {gallery.id: found.get(gallery.id, Counts()) for gallery in galleries}


def revisions(session: Session, uids: Collection[str]) -> dict[str, int]:
    """Return the revision of each of these galleries that still exists."""
    query = sa.select(_galleries.id, _galleries.revision).where(_galleries.id.in_(uids))
    return {row.id: row.revision for row in session.execute(query)}


def lock(session: Session, gallery: Gallery) -> Gallery:
    """Return the gallery as it is now; until the end of the transaction no other one changes it.

    Raises:
        GalleryNotFound: it was deleted meanwhile.
    """
    announce(session)
    session.execute(sa.select(_galleries.id).where(_galleries.id == gallery.id).with_for_update())
    row = session.execute(_query().where(_galleries.id == gallery.id)).one_or_none()
    if row is None:
        raise _missing(gallery.project, gallery.gallery_id)
    return Gallery(**row._mapping)


def lock_version(session: Session, gallery: Gallery) -> Gallery:
    """Lock the gallery as `lock` does, if it still is of the version it was when something was embedded for it.

    Raises:
        GalleryNotFound: it was deleted meanwhile.
        VersionsDiffer: it moved to another model version meanwhile.
    """
    current = lock(session, gallery)
    if current.model_version_id != gallery.model_version_id:
        raise VersionsDiffer(f"gallery {gallery.gallery_id!r} moved to another model version meanwhile; call again")
    return current


def advance(session: Session, gallery: Gallery, **changes: Any) -> int:
    """Change a locked gallery and return its next revision."""
    values = {**changes, "revision": gallery.revision + 1, "update_time": now()}
    session.execute(sa.update(t.galleries).where(_galleries.id == gallery.id).values(**values))
    return gallery.revision + 1


def pin(session: Session, project: str, gallery_id: str, *, is_pinned: bool) -> None:
    """Keep a gallery with its model version, or let it follow its deployment.

    Raises:
        GalleryNotFound: the project has no such gallery.
    """
    gallery = lock(session, get(session, project, gallery_id))
    session.execute(sa.update(t.galleries).where(_galleries.id == gallery.id).values(is_pinned=is_pinned))


def delete(session: Session, project: str, gallery_id: str) -> tuple[Gallery, int]:
    """Remove a gallery with all its rows, and ask for the removal of its objects; return how many identities went.

    Raises:
        GalleryNotFound: the project has no such gallery.
    """
    gallery = lock(session, get(session, project, gallery_id))
    count = counts(session, [gallery])[gallery.id].total
    outbox.put(session, DELETE_IMAGES, gallery.id, {"prefix": layout.gallery_prefix(project, gallery.id)})
    # Identities, embeddings and images go with it, by the references of their tables.
    session.execute(sa.delete(t.galleries).where(_galleries.id == gallery.id))
    return gallery, count


def _check_replay(session: Session, new: NewGallery) -> None:
    """Return if the row in the way is this very request's."""
    query = sa.select(_galleries.request_sha256).where(
        _galleries.project == new.project, _galleries.request_id == new.request_id
    )
    sha256 = session.execute(query).scalar_one_or_none()
    if sha256 is None:
        raise AlreadyExists(
            f"project {new.project!r} has a gallery {new.gallery_id!r} already; choose another id, or delete that one "
            f"first (`trainyard galleries delete {new.gallery_id}`)"
        )
    if sha256 != new.request_sha256:
        raise IdempotencyConflict


def _missing(project: str, gallery_id: str) -> GalleryNotFound:
    return GalleryNotFound(f"project {project!r} has no gallery {gallery_id!r}")
