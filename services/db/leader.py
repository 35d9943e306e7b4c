"""One active process among many: an advisory lock of PostgreSQL, or of a file beside SQLite.

Both go away with their process. Leadership only avoids double work: every statement of a leader is
safe beside a second one.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from pathlib import Path
from typing import Any, Protocol

import psycopg


class Leadership(Protocol):
    """A named election. Belongs to one thread."""

    def acquire(self) -> bool:
        """Return whether this process leads now; never waits, and asks the database each time it is called."""

    def release(self) -> None:
        """Let another process lead."""


class FileLeadership:
    """A lock on a file of the one machine that SQLite runs on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        if self._descriptor is not None:
            return True
        descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


class PostgresLeadership:
    """A session's advisory lock: lost with the connection, and noticed at the next `acquire`."""

    def __init__(self, conninfo: str, name: str) -> None:
        self._conninfo = conninfo
        self._key = int.from_bytes(hashlib.sha256(f"trainyard/{name}".encode()).digest()[:8], "big", signed=True)
        self._connection: psycopg.Connection[Any] | None = None

    def acquire(self) -> bool:
        try:
            if self._connection is not None:
                self._connection.execute("SELECT 1")
                return True
            return self._try_lock()
        except psycopg.Error:
            self.release()
            return False

    def release(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _try_lock(self) -> bool:
        connection = psycopg.connect(self._conninfo, autocommit=True, connect_timeout=5)
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", (self._key,)).fetchone()
        if row is not None and row[0]:
            self._connection = connection
            return True
        connection.close()
        return False
