"""Removes what was deleted or died: endpoints nobody reports, objects of deleted datasets, silent workers."""

from __future__ import annotations

from services.controller import metrics
from services.db import datasets, deployments, workers
from services.db.database import Database
from services.db.datasets import DatasetVersion
from services.storage import layout
from services.storage.port import ObjectStore

BATCH = 20
PURGE_AFTER_SECONDS = 3600.0
FORGET_AFTER_SECONDS = 7 * 24 * 3600.0


class Cleanup:
    """Small deletions whose rows say what is due."""

    def __init__(
        self, database: Database, store: ObjectStore, *, purge_after_seconds: float = PURGE_AFTER_SECONDS
    ) -> None:
        self._database = database
        self._store = store
        self._purge_after = purge_after_seconds

    def tick_deployments(self) -> None:
        """Drop deleted deployments that no live agent serves any more."""
        with self._database.write() as session:
            deployments.remove_deleted(session)

    def tick_datasets(self) -> None:
        """Remove the objects of deleted datasets, some time after the last job could have read them."""
        with self._database.read() as session:
            due = datasets.due_for_purge(session, limit=BATCH, older_than_seconds=self._purge_after)
        for version in due:
            self._purge(version)

    def tick_registry(self) -> None:
        """Forget workers and agents that have been silent for days."""
        with self._database.write() as session:
            workers.forget(session, older_than_seconds=FORGET_AFTER_SECONDS)
            deployments.forget_agents(session, older_than_seconds=FORGET_AFTER_SECONDS)

    def _purge(self, version: DatasetVersion) -> None:
        self._store.delete_prefix(layout.dataset_prefix(version.project, version.dataset_id, version.id))
        with self._database.write() as session:
            datasets.mark_purged(session, version.id)
        metrics.COLLECTED.labels("dataset").inc()
