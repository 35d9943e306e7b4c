"""Removes what was stored under a prefix whose rows are gone."""

from __future__ import annotations

from services.controller import metrics
from services.db.outbox import Item
from services.storage.port import ObjectStore


class PrefixRemover:
    """Carries out `images.delete`, which the API server tried at once, and `job.delete`."""

    def __init__(self, store: ObjectStore, kind: str) -> None:
        self._store = store
        self._kind = kind

    def __call__(self, item: Item) -> None:
        self._store.delete_prefix(item.payload["prefix"])
        metrics.COLLECTED.labels(self._kind).inc()
