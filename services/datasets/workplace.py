"""Temporary folders of imports: removed when an import ends, and swept when its process did not end well."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.core.ids import new_id


@contextmanager
def workplace(root: Path) -> Iterator[Path]:
    """Yield a fresh private folder that is gone afterwards, whatever happens."""
    root.mkdir(parents=True, exist_ok=True)
    with _lock(root / "sweep.lock"):
        # Between making a folder and locking it, it looks abandoned; the sweep waits for both.
        _sweep(root)
        folder = root / new_id()
        folder.mkdir(mode=0o700)
        mine = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(mine, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(mine)


def _sweep(root: Path) -> None:
    """Remove folders whose owner no longer lives: its lock went with it."""
    for folder in root.iterdir():
        if not folder.is_dir():
            continue
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
