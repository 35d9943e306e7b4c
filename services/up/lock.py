"""One platform a state directory: a locked file that holds the pid of whoever runs it."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from services.core.clock import Deadline
from services.up.state_dir import faults_named

LOCK_NAME = "up.lock"


class AlreadyRunning(Exception):
    """A platform runs already on this state directory."""

    def __init__(self, state_dir: Path, pid: int | None) -> None:
        who = f"process {pid}" if pid else "another process"
        super().__init__(
            f"{who} already runs the platform in {state_dir}; "
            "use it, stop it with `trainyard down`, or choose another TRAINYARD_STATE_DIR"
        )
        self.pid = pid


@contextmanager
def hold_lock(state_dir: Path) -> Iterator[None]:
    """Hold the state directory for this process; the file is gone afterwards.

    Raises:
        AlreadyRunning: another process holds it.
        SettingsInvalid: it is no directory, or this user may not use it.
    """
    path = state_dir / LOCK_NAME
    with faults_named(state_dir):
        descriptor = _lock(path, state_dir)
    try:
        yield
    finally:
        # Removed while still locked: whoever opened it meanwhile sees that the name moved on.
        path.unlink(missing_ok=True)
        os.close(descriptor)


def holder(state_dir: Path) -> int | None:
    """Return the pid of the process that holds this directory, or None; a stale file counts for nothing.

    Raises:
        SettingsInvalid: it is no directory, or this user may not use it.
    """
    with faults_named(state_dir), suppress(FileNotFoundError), (state_dir / LOCK_NAME).open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read_pid(state_dir / LOCK_NAME)
    return None


def _lock(path: Path, state_dir: Path) -> int:
    # `holder` locks for an instant to ask; only a lock that stays is a running platform.
    deadline = Deadline(0.3)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            if deadline.is_over:
                raise AlreadyRunning(state_dir, _read_pid(path)) from None
            time.sleep(0.02)
            continue
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
                return descriptor
        os.close(descriptor)


def _read_pid(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
