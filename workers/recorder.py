"""Writes an attempt's events in order, from one thread, many a transaction.

While the database is away events wait here; past the limit the oldest figures of steps go first, since the job's
milestones matter more than its curve.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from services.core.clock import Deadline
from services.core.errors import DatabaseUnavailable, LeaseLost
from services.db import jobs
from services.db.database import Database
from services.db.job_records import Lease
from workers.stop import StopReason, StopRequest

log = structlog.get_logger(__name__)

Line = tuple[str, Mapping[str, Any]]

Write = Callable[[Any], None]
"""A write of its own, given the open session."""

MAX_WAITING = 10_000
MAX_BATCH = 200
RETRY_SECONDS = 0.5


class Recorder:
    """Takes events at any time and without waiting; `flush` waits until they are committed."""

    def __init__(self, database: Database, lease: Lease, stop: StopRequest) -> None:
        self._database = database
        self._lease = lease
        self._stop = stop
        self._changed = threading.Condition()
        self._waiting: list[Line] = []
        self._in_doubt: list[Line] = []
        """Lines whose writing ended without an answer: they may be there, so they are tried again as they are."""
        self._num_written = 0
        self._process: Write | None = None
        self._is_writing = False
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def add(self, kind: str, payload: Mapping[str, Any]) -> None:
        with self._changed:
            if len(self._waiting) >= MAX_WAITING:
                self._thin()
            self._waiting.append((kind, payload))
            self._changed.notify_all()

    def add_process(self, write: Write) -> None:
        """Take the write that notes the attempt's process; it goes with the next events."""
        with self._changed:
            self._process = write
            self._changed.notify_all()

    def flush(self, deadline: Deadline) -> bool:
        """Wait until everything added so far is written, and tell whether it is."""
        with self._changed:
            while not self._is_settled() and not deadline.is_over and not self._stop.is_lost:
                self._changed.wait(min(deadline.remaining, RETRY_SECONDS))
            return self._is_settled()

    def close(self) -> None:
        """Stop writing; what was not flushed is dropped."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join()

    def _thin(self) -> None:
        steps = [i for i, (kind, _) in enumerate(self._waiting) if kind == "step"]
        dropped = set(steps[: MAX_WAITING // 10]) or {0}
        self._waiting = [line for i, line in enumerate(self._waiting) if i not in dropped]
        log.warning("events_dropped", job=self._lease.job_id, count=len(dropped))

    def _is_settled(self) -> bool:
        return not self._waiting and not self._in_doubt and self._process is None and not self._is_writing

    def _work(self) -> None:
        while (batch := self._next_batch()) is not None:
            try:
                self._write(*batch)
            except LeaseLost:
                self._stop.request(StopReason.LOST)
            except DatabaseUnavailable as err:
                log.warning("events_not_written", job=self._lease.job_id, error=str(err))
                self._give_back(*batch)
            except Exception:
                # An event that cannot be stored must not keep all later ones from being stored.
                log.exception("events_refused", job=self._lease.job_id, kinds=[kind for kind, _ in batch[1]])
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()

    def _write(self, process: Write | None, lines: list[Line]) -> None:
        with self._database.write() as session:
            if process is not None:
                process(session)
            if lines:
                jobs.append_events(session, self._lease, lines, position=self._num_written)
        self._num_written += len(lines)

    def _next_batch(self) -> tuple[Write | None, list[Line]] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._in_doubt or self._process or self._is_closed)
            if self._is_closed:
                return None
            if self._in_doubt:
                lines, self._in_doubt = self._in_doubt, []
            else:
                lines, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            process, self._process = self._process, None
            self._is_writing = True
            return process, lines

    def _give_back(self, process: Write | None, lines: list[Line]) -> None:
        with self._changed:
            self._process = self._process or process
            self._in_doubt = lines
            self._changed.wait_for(lambda: self._is_closed, RETRY_SECONDS)
