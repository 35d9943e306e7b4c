"""Waiting for other processes' commits without polling tables.

A hint, never the truth: whoever waits reads the tables afterwards, and again when a wait ends by its
timeout. SQLite's own change counter sees every commit; on PostgreSQL a writer calls `announce`, and
the notification leaves after the commit from a connection that does not wait for the disk, because
NOTIFY inside a transaction makes concurrent commits queue up one by one.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from services.core.folder_watch import FolderWatch
from services.db.session import Session

POLL_SECONDS = 0.005
AWAKE_SECONDS = 0.1
"""How long to look often after a write began; it is seldom longer until the commit shows."""
LOOK_SECONDS = 0.25
"""Between two looks all the same: network file systems tell nobody of writes."""


def announce(session: Session) -> None:
    """Mark the transaction as one that others wait for; called by every store function that writes.

    Raises:
        RuntimeError: the session is one of `Database.read()`, where nothing may be written.
    """
    if session.is_read:
        raise RuntimeError("a store function that writes needs a session of Database.write()")
    session.is_announced = True


class ChangeFeed(Protocol):
    """Tells that something was committed. Belongs to one waiting thread; `close` may come from any."""

    def wait(self, timeout_seconds: float) -> bool:
        """Return True as soon as another connection committed since the last return, False on timeout.

        Also True when changes may have been missed. Never raises for a database that is away: it
        then waits a little and returns True, and the caller's next read tells the story.
        """

    def close(self) -> None:
        """End a running wait soon and free the connection."""


class SqliteChangeFeed:
    """Looks at the database's change counter when its files are written."""

    def __init__(self, connect: Callable[[], Any], file: Path) -> None:
        self._connection = connect()
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._watch = FolderWatch(file.parent, {file.name, f"{file.name}-wal"}.__contains__)
        self._awake_until = 0.0
        self._version = self._read()

    def wait(self, timeout_seconds: float) -> bool:
        end = time.monotonic() + timeout_seconds
        while True:
            # Before the look, so that what is written after it is told of at the next one.
            if self._watch.wait(0):
                self._awake_until = time.monotonic() + AWAKE_SECONDS
            try:
                version = self._read()
            except sqlite3.Error:
                # The caller's own read tells what is wrong, and this one comes again.
                self._closed.wait(min(LOOK_SECONDS, max(0.0, end - time.monotonic())))
                return True
            if version != self._version:
                self._version = version
                self._awake_until = 0.0
                return True
            remaining = end - time.monotonic()
            if remaining <= 0 or self._closed.is_set():
                return False
            self._sleep(remaining)

    def close(self) -> None:
        self._closed.set()
        self._watch.close()
        with self._lock:
            self._connection.close()

    def _sleep(self, limit_seconds: float) -> None:
        # A commit writes its pages, waits for the disk, and only then shows, which no file event tells.
        if time.monotonic() < self._awake_until:
            self._closed.wait(min(POLL_SECONDS, limit_seconds))
        elif self._watch.wait(min(LOOK_SECONDS, limit_seconds)):
            self._awake_until = time.monotonic() + AWAKE_SECONDS

    def _read(self) -> int | None:
        with self._lock:
            if self._closed.is_set():
                return self._version
            return int(self._connection.execute("PRAGMA data_version").fetchone()[0])
