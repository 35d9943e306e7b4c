"""Locks by files that their holders remove: a lock on a removed file keeps nobody out."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO


def lock_file(path: Path, *, waits: bool = True) -> IO[bytes]:
    """Make and lock a file; the lock lasts while the returned file is open, and its holder may remove the file.

    Raises:
        BlockingIOError: another holds it, and `waits` is False.
        FileNotFoundError: its folder does not exist.
    """
    while True:
        lock = path.open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(path, lock):
                return lock
        except BaseException:
            lock.close()
            raise
        # Its last holder removed it between these two lines: whoever comes next makes another.
        lock.close()


def _is_still(path: Path, lock: IO[bytes]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(lock.fileno()))
    except FileNotFoundError:
        return False
