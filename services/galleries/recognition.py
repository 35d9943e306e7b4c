"""Recognition: whether two pictures show one person, and whom a picture shows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import structlog

from services.core import names
from services.core.errors import PlatformError, PreconditionFailed, VersionsDiffer
from services.db import galleries, identities
from services.db.galleries import Gallery
from services.db.session import Session
from services.db.work import Work
from services.galleries.cache import MatrixCache
from services.galleries.embed import Embedder, Face, Picture
from services.galleries.enrolment import source_of

if TYPE_CHECKING:
    from services.galleries.matrix import Candidate

log = structlog.get_logger(__name__)
T = TypeVar("T")

TEND_SECONDS = 5.0
"""How long something deleted by another server may stay in this one's memory."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How much two faces resemble each other, and from where on they count as one person's."""

    similarity: float
    threshold: float
    model_version: str

    @property
    def is_same(self) -> bool:
        return self.similarity >= self.threshold


@dataclass(frozen=True, slots=True)
class Ranking:
    """The identities that resemble a face most, among all `compared`."""

    matches: Sequence[Candidate]
    threshold: float
    compared: int
    needs_images: int
    model_version: str

    @property
    def is_unknown(self) -> bool:
        return not any(match.similarity >= self.threshold for match in self.matches)


class Recogniser:
    """Compares faces. Belongs to one event loop; close it before the `Work` it reads with."""

    def __init__(self, work: Work, embedder: Embedder, cache: MatrixCache) -> None:
        self._work = work
        self._embedder = embedder
        self._cache = cache
        self._tending: asyncio.Task[None] | None = None

    async def verify(
        self, project: str, gallery_id: str, picture: Picture, other: Picture | str, *, threshold: float | None
    ) -> Verdict:
        """Compare a picture with another one, or with the identity of an id; None takes the model's threshold.

        Raises:
            GalleryNotFound, IdentityNotFound: there is none.
            VersionsDiffer: the deployment does not answer with the gallery's model version.
            PreconditionFailed: the identity needs images again, or nobody knows a threshold.
        """
        pictures, fields = [picture], ["image"]
        if isinstance(other, Picture):
            pictures, fields = [picture, other], ["image", "other_image"]

        def compare(session: Session, gallery: Gallery, faces: Sequence[Face]) -> Verdict:
            from services.galleries import matrix

            if isinstance(other, Picture):
                vector = faces[1].vector
            else:
                vector = matrix.from_bytes(_stored(session, gallery, other))
            limit = _threshold(threshold, faces[0], gallery)
            return Verdict(matrix.similarity(faces[0].vector, vector), limit, _version(gallery))

        return await self._compare(project, gallery_id, pictures, fields, compare)

    async def identify(
        self, project: str, gallery_id: str, picture: Picture, *, top_k: int, threshold: float | None
    ) -> Ranking:
        """Compare a picture with everybody in a gallery; None takes the model's threshold.

        Raises:
            GalleryNotFound: there is none.
            VersionsDiffer: the deployment does not answer with the gallery's model version.
            PreconditionFailed: nobody knows a threshold.
        """

        def compare(session: Session, gallery: Gallery, faces: Sequence[Face]) -> Ranking:
            (face,) = faces
            limit = _threshold(threshold, face, gallery)
            known = self._cache.current(session, gallery)
            found = known.nearest(face.vector, top_k)
            return Ranking(found, limit, len(known.uids), known.needs_images, _version(gallery))

        ranking = await self._compare(project, gallery_id, [picture], ["image"], compare)
        if self._tending is None:
            # Not in the context of the call, which ends before.
            self._tending = asyncio.create_task(self._tend(), context=Context())
        return ranking

    async def close(self) -> None:
        if self._tending is not None:
            self._tending.cancel()
            await asyncio.gather(self._tending, return_exceptions=True)

    async def tend(self) -> None:
        """Drop from memory what changed in the database or is not used any more."""
        uids = self._cache.uids()
        if uids:
            self._cache.keep(await self._work.read(lambda session: galleries.revisions(session, uids)))

    async def _compare(
        self,
        project: str,
        gallery_id: str,
        pictures: Sequence[Picture],
        fields: Sequence[str],
        compare: Callable[[Session, Gallery, Sequence[Face]], T],
    ) -> T:
        """Embed and compare; once more where the gallery moved to another version in between."""
        gallery = await self._work.read(lambda session: galleries.get(session, project, gallery_id))
        for _ in range(2):
            faces = await self._embedder.faces(source_of(gallery), pictures, fields=fields)
            version = gallery.model_version_id

            def look(
                session: Session, faces: Sequence[Face] = faces, version: str = version
            ) -> tuple[Gallery, list[T]]:
                current = galleries.get(session, project, gallery_id)
                if current.model_version_id != version:
                    return current, []
                return current, [compare(session, current, faces)]

            gallery, compared = await self._work.read_moment(look)
            if compared:
                return compared[0]
        raise VersionsDiffer(f"gallery {gallery_id!r} moves from one model version to another; call again")

    async def _tend(self) -> None:
        while True:
            await asyncio.sleep(TEND_SECONDS)
            try:
                await self.tend()
            except PlatformError as err:
                log.warning("galleries_not_tended", reason=err.reason)


def _stored(session: Session, gallery: Gallery, identity_id: str) -> bytes:
    vector = identities.vector(session, gallery, identity_id)
    if vector is None:
        raise PreconditionFailed(
            f"identity {identity_id!r} has no embedding of the gallery's model version; enrol it again with images "
            f"(`trainyard galleries enrol {gallery.gallery_id} {identity_id} IMAGE --replace`)"
        )
    return vector


def _threshold(wanted: float | None, face: Face, gallery: Gallery) -> float:
    threshold = face.threshold if wanted is None else wanted
    if threshold is None:
        raise PreconditionFailed(
            f"the model of deployment {gallery.deployment_id!r} says no threshold; send one with the request"
        )
    return threshold


def _version(gallery: Gallery) -> str:
    return names.model_version(gallery.project, gallery.model_id, gallery.version)
