"""One active process among many: an advisory lock of PostgreSQL (`postgres.py`), or of a file beside SQLite.

Both go away with their process. Leadership only avoids double work: every statement of a leader is
safe beside a second one.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Protocol


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
