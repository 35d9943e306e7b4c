"""Retires checkpoints: the row is hidden first, then the objects go, then the row."""

from __future__ import annotations

import structlog

from services.controller import metrics
from services.db import checkpoints, outbox
from services.db.database import Database
from services.db.garbage import jobs_to_tidy, pinned_checkpoints
from services.storage.port import ObjectStore
from workers.families.catalog import metric_mode

log = structlog.get_logger(__name__)

KEEP_LAST = 3
DELETE_CHECKPOINT = "checkpoint.delete"


class Retention:
    """Keeps the last checkpoints of each job, the best and every tenth."""

    def __init__(self, database: Database, *, changed_within_seconds: float) -> None:
        self._database = database
        self._changed_within = changed_within_seconds

    def tick(self) -> None:
        """Mark what may go, with the effect that removes its objects, in one transaction a job."""
        with self._database.read() as session:
            due = jobs_to_tidy(session, keep_last=KEEP_LAST, changed_within_seconds=self._changed_within)
        for job_id, recipe in due.items():
            mode = metric_mode(recipe)
            with self._database.write() as session:
                pinned = pinned_checkpoints(session, job_id)
                rows = checkpoints.retention(session, job_id, keep_last=KEEP_LAST, metric_mode=mode)
                retired = [row.id for row in rows]
                for row in checkpoints.mark_deleting(session, [row for row in retired if row not in pinned]):
                    outbox.put(session, DELETE_CHECKPOINT, row.id, {"prefix": row.prefix})


class CheckpointRemover:
    """Carries out `checkpoint.delete`."""

    def __init__(self, database: Database, store: ObjectStore) -> None:
        self._database = database
        self._store = store

    def __call__(self, item: outbox.Item) -> None:
        self._store.delete_prefix(item.payload["prefix"])
        with self._database.write() as session:
            checkpoints.delete(session, item.key)
        metrics.COLLECTED.labels("checkpoint").inc()
