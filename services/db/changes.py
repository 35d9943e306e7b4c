"""Waiting for other processes' commits without polling tables.

A hint, never the truth: whoever waits reads the tables afterwards, and again when a wait ends by its
timeout. SQLite's own change counter sees every commit; on PostgreSQL a writer calls `announce`, and
the notification leaves after the commit from a connection that does not wait for the disk, because
NOTIFY inside a transaction makes concurrent commits queue up one by one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import psycopg
from sqlalchemy.orm import Session

CHANNEL = "trainyard"
POLL_SECONDS = 0.01
SLICE_SECONDS = 0.25
"""How soon `close` ends a wait on PostgreSQL."""
RECONNECT_SECONDS = 0.5
PAUSE_SECONDS = 0.005
"""Between two notifications: a burst of commits costs a few of them, a lone commit waits for nothing."""


def announce(session: Session) -> None:
    """Mark the transaction as one that others wait for; called by every store function that writes.

    Raises:
        RuntimeError: the session is one of `Database.read()`, where nothing may be written.
    """
    if session.info.get("is_read"):
        raise RuntimeError("a store function that writes needs a session of Database.write()")
    session.info["is_announced"] = True


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
    """Watches the database file's change counter on a connection of its own."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connection = connect()
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._version = self._read()

    def wait(self, timeout_seconds: float) -> bool:
        end = time.monotonic() + timeout_seconds
        while True:
            version = self._read()
            if version != self._version:
                self._version = version
                return True
            remaining = end - time.monotonic()
            if remaining <= 0 or self._closed.wait(min(POLL_SECONDS, remaining)):
                return False

    def close(self) -> None:
        self._closed.set()
        with self._lock:
            self._connection.close()

    def _read(self) -> int | None:
        with self._lock:
            if self._closed.is_set():
                return self._version
            return int(self._connection.execute("PRAGMA data_version").fetchone()[0])


class PostgresChangeFeed:
    """Listens on a connection of its own and builds it again when it breaks."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._connection: psycopg.Connection[Any] | None = self._connect()

    def wait(self, timeout_seconds: float) -> bool:
        end = time.monotonic() + timeout_seconds
        with self._lock:
            try:
                return self._wait_until(end)
            except psycopg.Error:
                self._disconnect()
        return not self._closed.wait(max(0.0, min(RECONNECT_SECONDS, end - time.monotonic())))

    def close(self) -> None:
        self._closed.set()
        # A wait in progress sees the flag at the end of its slice; the connection is never closed under it.
        with self._lock:
            self._disconnect()

    def _wait_until(self, end: float) -> bool:
        while not self._closed.is_set():
            if self._connection is None:
                self._connection = self._connect()
                return True
            remaining = end - time.monotonic()
            notices = self._connection.notifies(timeout=max(0.0, min(remaining, SLICE_SECONDS)), stop_after=1)
            if list(notices):
                list(self._connection.notifies(timeout=0))
                return True
            if remaining <= 0:
                return False
        return False

    def _connect(self) -> psycopg.Connection[Any]:
        connection = psycopg.connect(self._conninfo, autocommit=True, connect_timeout=5)
        connection.execute(f"LISTEN {CHANNEL}")
        return connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class Notifier:
    """Sends one notification for all commits since the last, from a thread of its own.

    A notification lost with the process or the connection costs its listeners one timeout.
    """

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._wanted = threading.Condition()
        self._is_wanted = False
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def notify(self) -> None:
        """Ask for a notification; returns at once."""
        with self._wanted:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="database-notifier", daemon=True)
                self._thread.start()
            self._is_wanted = True
            self._wanted.notify()

    def close(self) -> None:
        """Send what is wanted and end."""
        with self._wanted:
            self._is_closed = True
            self._wanted.notify()
            thread = self._thread
        if thread is not None:
            thread.join(timeout=5)

    def _run(self) -> None:
        connection: psycopg.Connection[Any] | None = None
        while self._next():
            try:
                if connection is None:
                    connection = psycopg.connect(
                        self._conninfo, autocommit=True, connect_timeout=5, options="-c synchronous_commit=off"
                    )
                connection.execute(f"NOTIFY {CHANNEL}")
                time.sleep(PAUSE_SECONDS)
            except psycopg.Error:
                if connection is not None:
                    connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def _next(self) -> bool:
        with self._wanted:
            self._wanted.wait_for(lambda: self._is_wanted or self._is_closed)
            is_wanted, self._is_wanted = self._is_wanted, False
            return is_wanted
