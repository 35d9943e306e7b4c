"""Enrolment: people into a gallery by their images, and a whole gallery into another model version."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

import structlog

from services.core import names
from services.core.errors import (
    IdentityNotFound,
    IntegrityError,
    ObjectNotFound,
    PlatformError,
    PreconditionFailed,
    RequestInvalid,
    Violation,
)
from services.core.ids import new_id
from services.core.states import DeploymentState
from services.db import deployments, galleries, identities, quotas
from services.db.deployments import Deployment
from services.db.galleries import Gallery
from services.db.identities import Identity, Image, NewIdentity
from services.db.session import Session
from services.db.work import Work
from services.galleries.embed import Embedder, Picture, Source
from services.galleries.manager import Counted, GalleryManager, digest
from services.galleries.objects import ImageObjects
from services.storage import layout

log = structlog.get_logger(__name__)

AT_ONCE = 8
"""Identities that are embedded again at the same time; TorchServe makes batches of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Whom a request enrols."""

    identity_id: str
    display_name: str
    images: Sequence[Picture]
    replace_existing: bool
    request_id: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a re-enrolment is, by identities with kept images; `ended` is the gallery once it moved."""

    done: int
    total: int
    ended: Counted | None = None


class Enrolment:
    """Puts people into galleries. One for each server."""

    def __init__(
        self, work: Work, embedder: Embedder, objects: ImageObjects, manager: GalleryManager, *, limit: int
    ) -> None:
        """`limit` is the most identities a gallery may have."""
        self._work = work
        self._embedder = embedder
        self._objects = objects
        self._manager = manager
        self._limit = limit

    async def enrol(self, project: str, gallery_id: str, person: Person) -> Identity:
        """Embed the images and store their mean; the same request_id returns what it stored first.

        Raises:
            GalleryNotFound: the project has no such gallery.
            AlreadyExists: the gallery has the identity, and it is not to be replaced.
            IdempotencyConflict: the request_id was used for another request.
            RequestInvalid: an image cannot be embedded, or the images have no direction in common.
            LimitExceeded, QuotaExceeded: the gallery or the project is full.
        """
        request_id = person.request_id or new_id()
        images = [(hashlib.sha256(one.content).hexdigest(), one.landmarks) for one in person.images]
        sha256 = digest(person.identity_id, person.display_name, person.replace_existing, images)

        def look(session: Session) -> tuple[Gallery, Identity | None]:
            gallery = galleries.get(session, project, gallery_id)
            known = identities.find_request(session, gallery, request_id, sha256)
            if known is None:
                _check_free(session, gallery, person)
            return gallery, known

        gallery, known = await self._work.read(look)
        if known is not None:
            return known
        vector = await self._embed(source_of(gallery), person.images)
        uid = new_id()
        kept = await self._objects.put(gallery, uid, person.images) if gallery.keep_images else []
        new = NewIdentity(
            id=uid,
            identity_id=person.identity_id,
            request_id=request_id,
            request_sha256=sha256,
            display_name=person.display_name,
            image_count=len(person.images),
            vector=vector,
            images=kept,
        )
        return await self._store(gallery, new, replace_existing=person.replace_existing)

    async def reenrol(
        self, project: str, gallery_id: str, deployment_id: str, *, is_by_itself: bool = False
    ) -> AsyncIterator[Progress]:
        """Move a gallery to what a deployment (empty: its own) is to serve, and tell how far it is.

        What was embedded stays when it is interrupted. An identity whose images cannot be embedded any more is
        left without a vector. `is_by_itself`: nobody asked, so a gallery that is pinned meanwhile stays.

        Raises:
            GalleryNotFound, DeploymentNotFound: there is none.
            VersionsDiffer: the deployment still answers with another version than it is to serve, or somebody moved the
                gallery elsewhere or pinned it meanwhile.
        """
        gallery, deployment = await self._work.read(lambda session: _find(session, project, gallery_id, deployment_id))
        version = deployment.model_version_id
        way_out = "wait until the deployment is ready, and call again"
        to = Source(project, deployment.deployment_id, _version_name(deployment), gallery_id, way_out)
        last = ""
        while True:
            done, total = await self._work.read(lambda session: identities.progress(session, gallery, version))
            yield Progress(done, total)
            batch = await self._work.read(
                lambda session, after=last: identities.unembedded(  # type: ignore[misc]  # a loop's own value
                    session, gallery, version, after=after, limit=AT_ONCE
                )
            )
            if batch:
                last = max(batch)
                await self._embed_again(gallery, version, to, batch)
            elif await self._move(gallery, deployment, last, is_by_itself=is_by_itself):
                break
        yield Progress(done, total, await self._manager.get(project, gallery_id))

    async def _embed(self, source: Source, images: Sequence[Picture]) -> bytes:
        from services.galleries import matrix

        fields = [f"images[{number}]" for number in range(len(images))]
        faces = await self._embedder.faces(source, images, fields=fields)
        mean = matrix.mean([face.vector for face in faces])
        if mean is None:
            text = "have nothing in common: send images of one person"
            raise RequestInvalid(violations=[Violation("images", text)])
        return matrix.to_bytes(mean)

    async def _store(self, gallery: Gallery, new: NewIdentity, *, replace_existing: bool) -> Identity:
        def write(session: Session) -> tuple[Identity, bool]:
            return identities.enrol(session, gallery, new, replace_existing=replace_existing, limit=self._limit)

        prefix = layout.identity_prefix(gallery.project, gallery.id, new.id)
        try:
            identity, is_new = await self._work.write(
                write, made=lambda stored: names.identity(gallery.project, gallery.gallery_id, stored[0].identity_id)
            )
        except PlatformError as err:
            # Where the database is away nobody knows yet; the sweep looks later.
            if not err.retryable:
                await self._objects.remove(prefix)
            raise
        if not is_new:
            await self._objects.remove(prefix)
        return identity

    async def _embed_again(
        self, gallery: Gallery, version: str, to: Source, batch: Mapping[str, Sequence[Image]]
    ) -> None:
        found = await asyncio.gather(*(self._embed_kept(to, uid, images) for uid, images in batch.items()))
        vectors = {uid: vector for uid, vector in found if vector is not None}
        await self._work.write(lambda session: identities.add_vectors(session, gallery, version, vectors))

    async def _embed_kept(self, to: Source, uid: str, images: Sequence[Image]) -> tuple[str, bytes | None]:
        try:
            return uid, await self._embed(to, [await self._objects.get(image) for image in images])
        except (RequestInvalid, ObjectNotFound, IntegrityError) as err:
            log.warning("identity_not_embedded", identity_uid=uid, reason=err.reason)
            return uid, None

    async def _move(self, gallery: Gallery, deployment: Deployment, after: str, *, is_by_itself: bool) -> bool:
        def write(session: Session) -> bool:
            return identities.move(
                session,
                gallery,
                model_version_id=deployment.model_version_id,
                deployment_id=deployment.deployment_id,
                after=after,
                is_by_itself=is_by_itself,
            )

        return await self._work.write(write)


def source_of(gallery: Gallery) -> Source:
    """Return whom to ask for embeddings that a gallery can compare."""
    version = names.model_version(gallery.project, gallery.model_id, gallery.version)
    return Source(gallery.project, gallery.deployment_id, version, gallery.gallery_id, _way_out(gallery))


def _way_out(gallery: Gallery) -> str:
    """Return what helps where the deployment of a gallery answers with another version than the gallery's."""
    if gallery.is_following:
        return (
            "call again in a while; the gallery moves by itself once the deployment is ready and everybody is embedded "
            "again (`trainyard galleries list` shows its version)"
        )
    named = f"{gallery.model_id}/{gallery.version}"
    without = "" if gallery.keep_images else ", after which everybody enrolled must show up again"
    return (
        f"wait until the deployment is ready, serve {named} again, or move the gallery to the version that is served with "
        f"ReenrolGallery (`trainyard galleries reenrol {gallery.gallery_id}`){without}"
    )


def _check_free(session: Session, gallery: Gallery, person: Person) -> None:
    """Refuse before anything is embedded what would be refused afterwards."""
    quotas.check_stored(session, gallery.project)
    if person.replace_existing:
        return
    try:
        identities.get(session, gallery, person.identity_id)
    except IdentityNotFound:
        return
    raise identities.exists(gallery, person.identity_id)


def _find(session: Session, project: str, gallery_id: str, deployment_id: str) -> tuple[Gallery, Deployment]:
    gallery = galleries.get(session, project, gallery_id)
    deployment = deployments.get(session, project, deployment_id or gallery.deployment_id)
    if deployment.state is DeploymentState.DELETING:
        raise PreconditionFailed(f"deployment {deployment.deployment_id!r} is being deleted; name another one")
    return gallery, deployment


def _version_name(deployment: Deployment) -> str:
    return names.model_version(deployment.project, deployment.model_id, deployment.version)
