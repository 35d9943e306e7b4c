"""Kept images in the object store, written and removed off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import structlog

from services.core.errors import StoreUnavailable
from services.core.ids import new_id
from services.db.galleries import Gallery
from services.db.identities import Image
from services.galleries.embed import Picture
from services.storage import layout
from services.storage.port import ObjectStore

log = structlog.get_logger(__name__)
T = TypeVar("T")

THREADS = 4


class ImageObjects:
    """Belongs to one event loop."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="image")

    async def put(self, gallery: Gallery, identity_uid: str, pictures: Sequence[Picture]) -> list[Image]:
        """Store images of one enrolment; what was stored before an error is removed again.

        Raises:
            StoreUnavailable: the store does not answer.
        """
        try:
            return await self._run(lambda: [self._put(gallery, identity_uid, one) for one in pictures])
        except BaseException:
            await self.remove(layout.identity_prefix(gallery.project, gallery.id, identity_uid))
            raise

    async def get(self, image: Image) -> Picture:
        """Return a kept picture.

        Raises:
            ObjectNotFound, IntegrityError: they are not what was stored.
            StoreUnavailable: the store does not answer.
        """
        content = await self._run(lambda: self._store.get(image.key, sha256=image.sha256))
        return Picture(content, image.landmarks)

    async def remove(self, prefix: str) -> None:
        """Remove images whose rows are gone. Where the store is away the controller does it, which was asked for it too."""
        try:
            await self._run(lambda: self._store.delete_prefix(prefix))
        except StoreUnavailable as err:
            log.warning("images_not_removed_yet", reason=err.reason)

    def close(self) -> None:
        self._threads.shutdown(wait=True)

    async def _run(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    def _put(self, gallery: Gallery, identity_uid: str, picture: Picture) -> Image:
        image_id = new_id()
        info = self._store.put(
            layout.identity_image(gallery.project, gallery.id, identity_uid, image_id), picture.content
        )
        assert info.sha256 is not None
        points = [list(point) for point in picture.landmarks]
        return Image(id=image_id, key=info.key, size_bytes=info.size_bytes, sha256=info.sha256, landmarks=points)
