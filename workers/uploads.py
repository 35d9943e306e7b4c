"""Brings a trainer's spool into the object store in the background, in order, while the trainer goes on.

A checkpoint is committed by its database row, after its manifest, after its files. While the store is away the spool
is bounded: the oldest checkpoint not yet begun gives way to newer ones.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from services.core.errors import DatabaseUnavailable, IntegrityError, LeaseLost, StoreUnavailable
from services.db import artifacts, jobs
from services.db.checkpoints import NewCheckpoint
from services.db.database import Database
from services.db.job_records import Lease
from services.storage import layout
from services.storage.manifest import upload_directory
from services.storage.port import ObjectStore
from workers import metrics
from workers.persist import Limit
from workers.stop import StopReason, StopRequest

log = structlog.get_logger(__name__)

MAX_SPOOLED_CHECKPOINTS = 2
MAX_SPOOLED_BYTES = 20 * 2**30
RETRY_SECONDS = 0.5
RETRY_CAP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Upload:
    """One thing of the spool on its way: a checkpoint's directory or an artifact's file."""

    is_checkpoint: bool
    path: Path
    fields: Mapping[str, Any]
    size_bytes: int


class Spool:
    """What waits for upload, in order and bounded. Not thread-safe: the uploader's lock guards it."""

    def __init__(self, *, max_checkpoints: int = MAX_SPOOLED_CHECKPOINTS, max_bytes: int = MAX_SPOOLED_BYTES) -> None:
        self._waiting: deque[Upload] = deque()
        self._max_checkpoints = max_checkpoints
        self._max_bytes = max_bytes

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, upload: Upload) -> list[Upload]:
        """Append an upload and return the older checkpoints that gave way to it."""
        self._waiting.append(upload)
        dropped = []
        while self._is_over() and (oldest := self._oldest_checkpoint(before=upload)) is not None:
            self._waiting.remove(oldest)
            dropped.append(oldest)
        return dropped

    def take(self) -> Upload:
        return self._waiting.popleft()

    def give_back(self, upload: Upload) -> None:
        self._waiting.appendleft(upload)

    def _is_over(self) -> bool:
        checkpoints = [upload for upload in self._waiting if upload.is_checkpoint]
        return len(checkpoints) > self._max_checkpoints or sum(u.size_bytes for u in self._waiting) > self._max_bytes

    def _oldest_checkpoint(self, *, before: Upload) -> Upload | None:
        return next((upload for upload in self._waiting if upload.is_checkpoint and upload is not before), None)


class Uploader:
    """One thread that uploads and commits until closed; the supervisor only ever hands over."""

    def __init__(self, store: ObjectStore, database: Database, lease: Lease, stop: StopRequest, *, family: str) -> None:
        self._store = store
        self._database = database
        self._lease = lease
        self._stop = stop
        self._family = family
        # There from the first scrape on: of a counter that begins with a failure, no increase can be told.
        self._failures = metrics.CHECKPOINT_FAILURES.labels(family)
        self._changed = threading.Condition()
        self._spool = Spool()
        self._is_busy = False
        self._is_closed = False
        self._last_checkpoint_id: str | None = None
        self._thread = threading.Thread(target=self._work, name="uploader", daemon=True)

    @property
    def last_checkpoint_id(self) -> str | None:
        """The newest checkpoint this attempt committed."""
        return self._last_checkpoint_id

    def start(self) -> None:
        self._thread.start()

    def add_checkpoint(self, fields: Mapping[str, Any]) -> None:
        size_bytes = sum(int(file["size_bytes"]) for file in fields.get("files", ()))
        self._add(Upload(True, Path(fields["path"]), fields, size_bytes))

    def add_artifact(self, fields: Mapping[str, Any]) -> None:
        path = Path(fields["path"])
        self._add(Upload(False, path, fields, path.stat().st_size))

    def finish(self, deadline: Limit) -> bool:
        """Wait until the spool is empty, the deadline is over or the lease is lost, and tell whether it is empty."""
        with self._changed:
            while not self._is_done() and not deadline.is_over and not self._stop.is_lost:
                self._changed.wait(min(deadline.remaining, RETRY_SECONDS))
            return self._is_done()

    def close(self) -> None:
        """Stop after the object under way; what still waits stays in the attempt's directory."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join()

    def _is_done(self) -> bool:
        return not len(self._spool) and not self._is_busy

    def _add(self, upload: Upload) -> None:
        with self._changed:
            dropped = self._spool.add(upload)
            self._changed.notify_all()
        for old in dropped:
            log.warning("checkpoint_dropped", job=self._lease.job_id, step=old.fields.get("step"))
            shutil.rmtree(old.path, ignore_errors=True)

    def _work(self) -> None:
        misses = 0
        while (upload := self._next()) is not None:
            is_settled = self._attempt(upload)
            misses = 0 if is_settled else misses + 1
            with self._changed:
                if not is_settled:
                    self._spool.give_back(upload)
                self._is_busy = False
                self._changed.notify_all()
                if misses:
                    delay = min(RETRY_SECONDS * 2 ** min(misses - 1, 10), RETRY_CAP_SECONDS)
                    self._changed.wait_for(lambda: self._is_closed, delay)

    def _next(self) -> Upload | None:
        with self._changed:
            self._changed.wait_for(lambda: len(self._spool) or self._is_closed)
            if self._is_closed:
                return None
            self._is_busy = True
            return self._spool.take()

    def _attempt(self, upload: Upload) -> bool:
        """Upload and commit; False asks to try again later."""
        if self._stop.is_lost:
            return True
        act: Callable[[Upload], None] = self._put_checkpoint if upload.is_checkpoint else self._put_artifact
        try:
            act(upload)
        except (StoreUnavailable, DatabaseUnavailable, IntegrityError) as err:
            log.warning("upload_postponed", job=self._lease.job_id, path=upload.path.name, error=str(err))
            self._failures.inc(upload.is_checkpoint)
            return False
        except LeaseLost:
            self._stop.request(StopReason.LOST)
        except Exception:
            # One thing that cannot be stored must not keep later checkpoints from being stored.
            log.exception("upload_failed", job=self._lease.job_id, path=upload.path.name)
            self._failures.inc(upload.is_checkpoint)
        return True

    def _put_checkpoint(self, upload: Upload) -> None:
        start = time.monotonic()
        step = int(upload.fields["step"])
        prefix = layout.checkpoint_prefix(self._lease.project, self._lease.job_id, step, self._lease.token)
        manifest = upload_directory(self._store, prefix, upload.path)
        new = NewCheckpoint(
            step=step,
            prefix=prefix,
            manifest_sha256=manifest.sha256(),
            size_bytes=manifest.size_bytes,
            metric=upload.fields.get("metric"),
            files=list(upload.fields.get("files", ())),
        )
        with self._database.write() as session:
            committed = jobs.commit_checkpoint(session, self._lease, new)
        self._last_checkpoint_id = committed.id
        metrics.CHECKPOINT_SECONDS.labels(self._family).observe(time.monotonic() - start)
        metrics.CHECKPOINT_BYTES.labels(self._family).inc(new.size_bytes)
        shutil.rmtree(upload.path, ignore_errors=True)

    def _put_artifact(self, upload: Upload) -> None:
        fields = upload.fields
        try:
            before = _version_of(upload.path)
        except FileNotFoundError:
            # Announced twice before the first upload: that one took the file as it was last written.
            return
        step = int(fields.get("step") or 0)
        lease = self._lease
        key = layout.artifact(lease.project, lease.job_id, f"{step:010d}-{lease.token}-{fields['name']}")
        content_type = str(fields.get("content_type") or "application/octet-stream")
        stored = self._store.put_file(key, upload.path, content_type=content_type)
        assert stored.sha256 is not None
        new = artifacts.NewArtifact(
            name=str(fields["name"]),
            kind=str(fields["kind"]),
            key=key,
            size_bytes=stored.size_bytes,
            sha256=stored.sha256,
            step=step,
            content_type=content_type,
        )
        with self._database.write() as session:
            artifacts.add(session, self._lease, new)
        if _version_of(upload.path) == before:
            upload.path.unlink()


def _version_of(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size
