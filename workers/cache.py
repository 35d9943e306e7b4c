"""Datasets on local disk by the sha256 of their manifest: fetched once, verified, shared by all attempts of a host.

An entry appears whole, by one rename. Readers hold a shared lock on it; the least recently used ones without readers
go when the cache grows over its limit. Locks are files, so workers of one host may share a cache.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import structlog

from services.storage.manifest import download_directory
from services.storage.port import ObjectStore
from workers import metrics

log = structlog.get_logger(__name__)

Progress = Callable[[int, int], None]

_PART = ".part-"


@dataclass(frozen=True, slots=True)
class DatasetRef:
    """Which dataset, where it is stored, and how much room it needs."""

    prefix: str
    manifest_sha256: str
    size_bytes: int


class DatasetCache:
    """A folder of verified datasets."""

    def __init__(self, root: Path, store: ObjectStore, *, limit_bytes: int) -> None:
        self._root = root
        self._store = store
        self._limit_bytes = limit_bytes
        root.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def hold(self, ref: DatasetRef, *, progress: Progress | None = None) -> Iterator[Path]:
        """Keep a dataset on disk while the context lasts, fetching it first where it is not there.

        Raises:
            StoreUnavailable, ObjectNotFound, IntegrityError: it cannot be fetched.
        """
        entry = self._root / ref.manifest_sha256
        with self._lock_of(entry).open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            metrics.CACHE_LOOKUPS.labels("hit" if entry.is_dir() else "miss").inc()
            while not entry.is_dir():
                self._fetch(lock, entry, ref, progress)
            os.utime(lock.fileno())
            yield entry

    def evict(self, *, room_bytes: int = 0) -> None:
        """Drop the least recently used entries that nobody holds until `room_bytes` more fit under the limit."""
        entries = sorted(self._entries(), key=self._last_use)
        sizes = {entry: _size_bytes(entry) for entry in entries}
        total = sum(sizes.values())
        for entry in entries:
            if total + room_bytes <= self._limit_bytes:
                return
            if self._drop(entry):
                total -= sizes[entry]

    def clear(self) -> None:
        """Drop every entry that nobody holds."""
        self.evict(room_bytes=self._limit_bytes + 1)

    def sweep(self) -> None:
        """Remove what downloads and evictions cut short by a crash left behind."""
        for part in self._root.glob(f"{_PART}*"):
            with self._exclusive(self._root / part.name.removeprefix(_PART)) as is_mine:
                if is_mine:
                    shutil.rmtree(part, ignore_errors=True)

    def _fetch(self, lock: IO[bytes], entry: Path, ref: DatasetRef, progress: Progress | None) -> None:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not entry.is_dir():
            self.evict(room_bytes=ref.size_bytes)
            part = self._part_of(entry)
            shutil.rmtree(part, ignore_errors=True)
            try:
                download_directory(self._store, ref.prefix, part, ref.manifest_sha256, progress=progress)
                part.rename(entry)
            finally:
                shutil.rmtree(part, ignore_errors=True)
        # Changing the kind of a lock lets go of it in between; the caller looks again whether the entry is there.
        fcntl.flock(lock, fcntl.LOCK_SH)

    def _drop(self, entry: Path) -> bool:
        with self._exclusive(entry) as is_mine:
            if is_mine and entry.is_dir():
                part = self._part_of(entry)
                entry.rename(part)
                shutil.rmtree(part, ignore_errors=True)
                log.info("dataset_evicted", manifest_sha256=entry.name)
            return is_mine

    @contextmanager
    def _exclusive(self, entry: Path) -> Iterator[bool]:
        """Try to lock an entry against everyone, and tell whether that went."""
        with self._lock_of(entry).open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    def _entries(self) -> list[Path]:
        return [entry for entry in self._root.iterdir() if entry.is_dir() and not entry.name.startswith(".")]

    def _last_use(self, entry: Path) -> float:
        try:
            return self._lock_of(entry).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def _lock_of(self, entry: Path) -> Path:
        return self._root / f"{entry.name}.lock"

    def _part_of(self, entry: Path) -> Path:
        return self._root / f"{_PART}{entry.name}"


def _size_bytes(directory: Path) -> int:
    """Return what an entry takes; nothing where another worker of this host drops it meanwhile."""
    try:
        return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
    except FileNotFoundError:
        return 0
