"""Identities of galleries: who is enrolled, their embeddings by model version, and the images that were kept.

An embedding is a unit vector as little-endian float32 bytes. One of another version than the gallery's is
never read for a comparison; it stays only while there is none of the gallery's version, for the way back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from services.core.errors import (
    AlreadyExists,
    IdempotencyConflict,
    IdentityNotFound,
    LimitExceeded,
    VersionsDiffer,
)
from services.db import galleries, models, outbox, quotas
from services.db import tables as t
from services.db.galleries import DELETE_IMAGES, Gallery
from services.db.paging import Key, newest_first
from services.db.records import columns_of, values_of
from services.db.session import Session
from services.db.types import now
from services.db.upsert import insert_into
from services.storage import layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One kept image, already in the object store; `landmarks` are five [x, y], or none."""

    id: str
    key: str
    size_bytes: int
    sha256: str
    landmarks: Sequence[Sequence[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewIdentity:
    """One enrolment. `id` is made by the caller, because the keys of its images contain it."""

    id: str
    identity_id: str
    request_id: str
    request_sha256: str
    display_name: str
    image_count: int
    vector: bytes
    images: Sequence[Image] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """One enrolled person; `id` changes when they are enrolled again."""

    id: str
    identity_id: str
    display_name: str
    image_count: int
    kept_image_count: int
    is_ready: bool
    create_time: datetime


class Vector(NamedTuple):
    """What a comparison needs of one identity."""

    uid: str
    identity_id: str
    display_name: str
    vector: bytes


_identity, _embedding, _image = t.identities.c, t.embeddings.c, t.identity_images.c


def enrol(
    session: Session, gallery: Gallery, new: NewIdentity, *, replace_existing: bool, limit: int
) -> tuple[Identity, bool]:
    """Store an identity with its embedding of the gallery's version, or find what the same request stored (False).

    Raises:
        GalleryNotFound, VersionsDiffer: the gallery changed since the images were embedded.
        IdempotencyConflict: the request_id belongs to a request with another hash.
        AlreadyExists: the gallery has such an identity, and it is not to be replaced.
        LimitExceeded: the gallery is full.
        QuotaExceeded: the project may store no more bytes.
    """
    current = galleries.lock_version(session, gallery)
    if (found := find_request(session, gallery, new.request_id, new.request_sha256)) is not None:
        return found, False
    existing = session.execute(_uid(gallery, new.identity_id)).scalar_one_or_none()
    if existing is not None and not replace_existing:
        raise exists(gallery, new.identity_id)
    if existing is not None:
        _remove(session, gallery, existing)
    elif _size(session, gallery) >= limit:
        raise LimitExceeded(f"gallery {gallery.gallery_id!r} has {limit} identities, the most it may have")
    revision = galleries.advance(session, current)
    values = {**values_of(new, t.identities), "gallery_uid": gallery.id, "revision": revision, "create_time": now()}
    session.execute(sa.insert(t.identities).values(**values))
    embedding = {"identity_uid": new.id, "model_version_id": gallery.model_version_id, "vector": new.vector}
    session.execute(sa.insert(t.embeddings).values(**embedding))
    if new.images:
        rows = [{"identity_uid": new.id, **values_of(image, t.identity_images)} for image in new.images]
        session.execute(sa.insert(t.identity_images), rows)
        quotas.check_stored(session, gallery.project, added=sum(image.size_bytes for image in new.images))
    return get(session, current, new.identity_id), True


def find_request(session: Session, gallery: Gallery, request_id: str, request_sha256: str) -> Identity | None:
    """Return what a request stored before, if it did.

    Raises:
        IdempotencyConflict: its hash was another.
    """
    query = sa.select(_identity.identity_id, _identity.request_sha256).where(
        _identity.gallery_uid == gallery.id, _identity.request_id == request_id
    )
    row = session.execute(query).one_or_none()
    if row is None:
        return None
    if row.request_sha256 != request_sha256:
        raise IdempotencyConflict
    return get(session, gallery, row.identity_id)


def get(session: Session, gallery: Gallery, identity_id: str) -> Identity:
    """Return one identity.

    Raises:
        IdentityNotFound: the gallery has no such identity.
    """
    row = session.execute(_query(gallery).where(_identity.identity_id == identity_id)).one_or_none()
    if row is None:
        raise _missing(gallery, identity_id)
    return Identity(**row._mapping)


def page(
    session: Session, gallery: Gallery, *, page_size: int, after: Key | None = None, is_ready: bool | None = None
) -> list[Identity]:
    """Return up to `page_size` identities, newest first, after the (create_time, id) of the last one seen."""
    query = _query(gallery)
    if is_ready is not None:
        query = query.where(_embedding.identity_uid.is_not(None) if is_ready else _embedding.identity_uid.is_(None))
    query = newest_first(query, t.identities, page_size=page_size, after=after)
    return [Identity(**row._mapping) for row in session.execute(query)]


def delete(session: Session, project: str, gallery_id: str, identity_id: str) -> tuple[Gallery, str]:
    """Remove an identity with its embeddings, and ask for the removal of its objects; return gallery and uid.

    Raises:
        GalleryNotFound, IdentityNotFound: there is none.
    """
    gallery = galleries.lock(session, galleries.get(session, project, gallery_id))
    uid = session.execute(_uid(gallery, identity_id)).scalar_one_or_none()
    if uid is None:
        raise _missing(gallery, identity_id)
    _remove(session, gallery, uid)
    galleries.advance(session, gallery)
    return gallery, uid


def vectors(session: Session, gallery: Gallery, *, after_revision: int = 0) -> list[Vector]:
    """Return what is compared: identities with an embedding of the gallery's version, changed after a revision."""
    query = (
        sa.select(_identity.id, _identity.identity_id, _identity.display_name, _embedding.vector)
        .join_from(t.identities, t.embeddings, _embedding.identity_uid == _identity.id)
        .where(_identity.gallery_uid == gallery.id, _embedding.model_version_id == gallery.model_version_id)
        .where(_identity.revision > after_revision)
    )
    return [Vector(*row) for row in session.execute(query)]


def compared_uids(session: Session, gallery: Gallery) -> set[str]:
    """Return the uids of all that `vectors` returns, without the vectors."""
    query = sa.select(_identity.id).join_from(t.identities, t.embeddings, _is_of(gallery.model_version_id))
    return set(session.scalars(query.where(_identity.gallery_uid == gallery.id)))


def vector(session: Session, gallery: Gallery, identity_id: str) -> bytes | None:
    """Return the embedding of one identity, or None where it needs images again.

    Raises:
        IdentityNotFound: the gallery has no such identity.
    """
    query = (
        sa.select(_embedding.vector)
        .select_from(t.identities)
        .outerjoin(t.embeddings, _is_of(gallery.model_version_id))
        .where(_identity.gallery_uid == gallery.id, _identity.identity_id == identity_id)
    )
    row = session.execute(query).one_or_none()
    if row is None:
        raise _missing(gallery, identity_id)
    found: bytes | None = row.vector
    return found


def unembedded(
    session: Session, gallery: Gallery, model_version_id: str, *, after: str, limit: int
) -> dict[str, list[Image]]:
    """Return kept images by identity uid, of up to `limit` identities after a uid without a vector of a version."""
    lacking = (
        sa.select(_identity.id)
        .outerjoin_from(t.identities, t.embeddings, _is_of(model_version_id))
        .where(_identity.gallery_uid == gallery.id, _identity.id > after, _embedding.identity_uid.is_(None))
        .where(sa.exists().where(_image.identity_uid == _identity.id))
        .order_by(_identity.id)
        .limit(limit)
    )
    uids = session.execute(lacking).scalars().all()
    query = sa.select(_image.identity_uid, *columns_of(Image, t.identity_images)).where(_image.identity_uid.in_(uids))
    found: dict[str, list[Image]] = {uid: [] for uid in uids}
    for row in session.execute(query.order_by(_image.id)):
        values = dict(row._mapping)
        found[values.pop("identity_uid")].append(Image(**values))
    return found


def progress(session: Session, gallery: Gallery, model_version_id: str) -> tuple[int, int]:
    """Return how many identities with kept images have a vector of a version, and how many there are."""
    query = (
        sa.select(sa.func.count(_embedding.identity_uid), sa.func.count())
        .select_from(t.identities)
        .outerjoin(t.embeddings, _is_of(model_version_id))
        .where(_identity.gallery_uid == gallery.id, sa.exists().where(_image.identity_uid == _identity.id))
    )
    done, total = session.execute(query).one()
    return done, total


def add_vectors(session: Session, gallery: Gallery, model_version_id: str, found: Mapping[str, bytes]) -> None:
    """Store vectors of a version by identity uid; those of identities that are gone are left out. Safe to repeat.

    Raises:
        GalleryNotFound: the gallery was deleted meanwhile.
        ModelNotFound: the model version was.
    """
    current = galleries.lock(session, gallery)
    models.keep(session, model_version_id)
    known = sa.select(_identity.id).where(_identity.gallery_uid == gallery.id, _identity.id.in_(found))
    there = session.execute(known).scalars().all()
    for uid in there:
        values = {"identity_uid": uid, "model_version_id": model_version_id, "vector": found[uid]}
        session.execute(insert_into(session.dialect, t.embeddings).values(**values).on_conflict_do_nothing())
    if current.model_version_id == model_version_id and there:
        revision = galleries.advance(session, current)
        session.execute(sa.update(t.identities).where(_identity.id.in_(there)).values(revision=revision))


def move(
    session: Session,
    gallery: Gallery,
    *,
    model_version_id: str,
    deployment_id: str,
    after: str,
    is_by_itself: bool = False,
) -> bool:
    """Bind a gallery to a version and a deployment; False where an identity after uid `after` is still to be embedded.

    Embeddings of other versions go, but for those of identities that have none of the new one. `is_by_itself`: nobody
    asked for this move.

    Raises:
        GalleryNotFound: the gallery was deleted meanwhile.
        ModelNotFound: the model version was deleted meanwhile.
        VersionsDiffer: it was moved elsewhere meanwhile, which stays, or pinned where nobody asked for this move.
    """
    current = galleries.lock(session, gallery)
    models.keep(session, model_version_id)
    if is_by_itself and current.is_pinned:
        raise VersionsDiffer(f"gallery {gallery.gallery_id!r} was pinned meanwhile, and stays as it is")
    bound = (current.model_version_id, current.deployment_id)
    if bound not in ((gallery.model_version_id, gallery.deployment_id), (model_version_id, deployment_id)):
        raise VersionsDiffer(f"gallery {gallery.gallery_id!r} moved elsewhere meanwhile; call again")
    if unembedded(session, gallery, model_version_id, after=after, limit=1):
        return False
    galleries.advance(session, current, model_version_id=model_version_id, deployment_id=deployment_id)
    newer = t.embeddings.alias("newer")
    has_newer = sa.exists().where(
        newer.c.identity_uid == _embedding.identity_uid, newer.c.model_version_id == model_version_id
    )
    mine = sa.select(_identity.id).where(_identity.gallery_uid == gallery.id)
    session.execute(
        sa.delete(t.embeddings).where(
            _embedding.identity_uid.in_(mine), _embedding.model_version_id != model_version_id, has_newer
        )
    )
    return True


def exists(gallery: Gallery, identity_id: str) -> AlreadyExists:
    """Return the error for an enrolment of somebody who is enrolled."""
    return AlreadyExists(
        f"gallery {gallery.gallery_id!r} has an identity {identity_id!r} already; set replace_existing to enrol it anew"
    )


def _size(session: Session, gallery: Gallery) -> int:
    query = sa.select(sa.func.count()).select_from(t.identities).where(_identity.gallery_uid == gallery.id)
    return session.execute(query).scalar_one()


def _remove(session: Session, gallery: Gallery, uid: str) -> None:
    prefix = layout.identity_prefix(gallery.project, gallery.id, uid)
    outbox.put(session, DELETE_IMAGES, uid, {"prefix": prefix})
    # Embeddings and images go with it, by the references of their tables.
    session.execute(sa.delete(t.identities).where(_identity.id == uid))


def _query(gallery: Gallery) -> sa.Select[Any]:
    kept = sa.select(sa.func.count()).where(_image.identity_uid == _identity.id).scalar_subquery()
    return (
        sa.select(
            *(_identity[name] for name in ("id", "identity_id", "display_name", "image_count", "create_time")),
            kept.label("kept_image_count"),
            _embedding.identity_uid.is_not(None).label("is_ready"),
        )
        .select_from(t.identities)
        .outerjoin(t.embeddings, _is_of(gallery.model_version_id))
        .where(_identity.gallery_uid == gallery.id)
    )


def _is_of(model_version_id: str) -> sa.ColumnElement[bool]:
    return (_embedding.identity_uid == _identity.id) & (_embedding.model_version_id == model_version_id)


def _uid(gallery: Gallery, identity_id: str) -> sa.Select[Any]:
    return sa.select(_identity.id).where(_identity.gallery_uid == gallery.id, _identity.identity_id == identity_id)


def _missing(gallery: Gallery, identity_id: str) -> IdentityNotFound:
    return IdentityNotFound(f"gallery {gallery.gallery_id!r} has no identity {identity_id!r}")
