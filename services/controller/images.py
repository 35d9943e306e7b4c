"""Removes kept images of faces whose rows are gone; the API server tried at once, and this makes sure."""

from __future__ import annotations

from services.controller import metrics
from services.db.outbox import Item
from services.storage.port import ObjectStore


class ImageRemover:
    """Carries out `images.delete`."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def __call__(self, item: Item) -> None:
        self._store.delete_prefix(item.payload["prefix"])
        metrics.COLLECTED.labels("images").inc()
