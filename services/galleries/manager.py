"""Use cases of galleries themselves, and of whom they hold."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from services.core import names
from services.core.errors import PreconditionFailed
from services.core.ids import new_id
from services.core.states import DeploymentState
from services.db import deployments, galleries, identities, models
from services.db.deployments import Deployment
from services.db.galleries import Counts, Gallery, NewGallery
from services.db.identities import Identity
from services.db.session import Session
from services.db.work import Work
from services.galleries.cache import MatrixCache
from services.galleries.objects import ImageObjects
from services.recipes.manager import RecipeManager
from services.rpc.paging import Page, PageRequest, by_time
from services.storage import layout


@dataclass(frozen=True, slots=True)
class Counted:
    """A gallery and how many it holds."""

    gallery: Gallery
    counts: Counts


class GalleryManager:
    """Creates, finds and deletes galleries; lists and deletes identities."""

    def __init__(self, work: Work, recipes: RecipeManager, objects: ImageObjects, cache: MatrixCache) -> None:
        self._work = work
        self._recipes = recipes
        self._objects = objects
        self._cache = cache

    async def create(
        self,
        project: str,
        gallery_id: str,
        *,
        deployment_id: str,
        keep_images: bool,
        is_pinned: bool,
        request_id: str,
    ) -> Counted:
        """Store a gallery of what a deployment is to serve; the same request_id returns the one it made first.

        Raises:
            DeploymentNotFound: the project has no such deployment.
            PreconditionFailed: the deployment is being deleted, or is of a model that embeds nothing.
            AlreadyExists: the gallery_id is taken.
            IdempotencyConflict: the request_id was used for another request.
        """
        request_id = request_id or new_id()
        # A request of before there were pins has the digest it had.
        sha256 = digest(project, gallery_id, deployment_id, keep_images, *(["pinned"] if is_pinned else []))

        def write(session: Session) -> Counted:
            deployment = deployments.get(session, project, deployment_id)
            if deployment.state is DeploymentState.DELETING:
                raise PreconditionFailed(f"deployment {deployment_id!r} is being deleted; name another one")
            self._check_embeds(session, deployment)
            new = NewGallery(
                project=project,
                gallery_id=gallery_id,
                request_id=request_id,
                request_sha256=sha256,
                deployment_id=deployment_id,
                model_version_id=deployment.model_version_id,
                keep_images=keep_images,
                is_pinned=is_pinned,
            )
            return _counted(session, [galleries.insert(session, new)[0]])[0]

        return await self._work.write(write, made=lambda one: names.gallery(project, one.gallery.gallery_id))

    def _check_embeds(self, session: Session, deployment: Deployment) -> None:
        recipe_id = models.get_by_id(session, deployment.model_version_id).recipe
        recipe = self._recipes.recipes.get(recipe_id)
        # A recipe this server does not know may embed; what its model answers is looked at with every picture.
        if recipe is None or recipe.serves_embeddings:
            return
        known = " or ".join(each.id for each in self._recipes.recipes.values() if each.serves_embeddings)
        raise PreconditionFailed(
            f"deployment {deployment.deployment_id!r} serves {recipe_id}, which answers no embedding to compare; a gallery "
            f"needs a deployment of a model of {known}"
        )

    async def get(self, project: str, gallery_id: str) -> Counted:
        return await self._work.read(
            lambda session: _counted(session, [galleries.get(session, project, gallery_id)])[0]
        )

    async def list(self, project: str, paging: PageRequest) -> Page[Counted]:
        after = paging.time_key

        def read(session: Session) -> list[Counted]:
            return _counted(session, galleries.page(session, project, page_size=paging.size + 1, after=after))

        return paging.cut(await self._work.read(read), lambda row: by_time(row.gallery))

    async def update(self, project: str, gallery_id: str, *, is_pinned: bool | None) -> Counted:
        """Pin a gallery to its model version, or let it follow its deployment; None keeps what it is."""

        def write(session: Session) -> Counted:
            if is_pinned is not None:
                galleries.pin(session, project, gallery_id, is_pinned=is_pinned)
            return _counted(session, [galleries.get(session, project, gallery_id)])[0]

        return await self._work.write(write)

    async def delete(self, project: str, gallery_id: str) -> int:
        """Delete a gallery with all it holds, and return how many identities went."""
        gallery, count = await self._work.write(lambda session: galleries.delete(session, project, gallery_id))
        self._cache.forget(gallery.id)
        await self._objects.remove(layout.gallery_prefix(project, gallery.id))
        return count

    async def list_identities(
        self, project: str, gallery_id: str, paging: PageRequest, *, is_ready: bool | None
    ) -> Page[Identity]:
        """Return a page of identities, of all states where `is_ready` is None."""
        after = paging.time_key

        def read(session: Session) -> list[Identity]:
            gallery = galleries.get(session, project, gallery_id)
            return identities.page(session, gallery, page_size=paging.size + 1, after=after, is_ready=is_ready)

        return paging.cut(await self._work.read(read), by_time)

    async def delete_identity(self, project: str, gallery_id: str, identity_id: str) -> None:
        """Delete a person with everything known of them."""
        gallery, uid = await self._work.write(
            lambda session: identities.delete(session, project, gallery_id, identity_id)
        )
        self._cache.forget(gallery.id)
        await self._objects.remove(layout.identity_prefix(project, gallery.id, uid))


def digest(*parts: object) -> str:
    """Return what tells two requests apart."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _counted(session: Session, found: Sequence[Gallery]) -> list[Counted]:
    counts = galleries.counts(session, found)
    return [Counted(gallery, counts[gallery.id]) for gallery in found]
