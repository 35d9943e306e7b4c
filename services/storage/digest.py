"""sha256 while bytes pass, and files that appear whole or not at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from services.core.errors import IntegrityError
from services.storage.port import CHUNK_BYTES


class HashingReader:
    """A binary source that hashes and counts what is read through it."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    def read(self, size: int = -1) -> bytes:
        chunk = self._source.read(size)
        self._hash.update(chunk)
        self.size_bytes += len(chunk)
        return chunk

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


def hash_stream(source: BinaryIO) -> tuple[int, str]:
    """Return size and sha256 of what is left to read."""
    reader = HashingReader(source)
    while reader.read(CHUNK_BYTES):
        pass
    return reader.size_bytes, reader.sha256


def hash_file(path: Path) -> tuple[int, str]:
    with path.open("rb") as source:
        return hash_stream(source)


def copy_hashing(source: BinaryIO, target: BinaryIO) -> tuple[int, str]:
    """Copy everything and return size and sha256."""
    reader = HashingReader(source)
    while chunk := reader.read(CHUNK_BYTES):
        target.write(chunk)
    return reader.size_bytes, reader.sha256


def require_sha256(key: str, actual: str, expected: str | None) -> None:
    """Raise IntegrityError unless the digests agree; None expects nothing."""
    if expected is not None and actual != expected:
        raise IntegrityError(f"{key}: stored bytes have sha256 {actual}, recorded is {expected}")


@contextmanager
def whole_file(path: Path, *, scratch: Path | None = None) -> Iterator[BinaryIO]:
    """Yield a file that becomes `path` when the block ends well, durable, and vanishes otherwise.

    `scratch` is a directory of the same file system for the unfinished file; by default it lies beside `path`.
    """
    descriptor, name = tempfile.mkstemp(dir=scratch or path.parent, prefix=".part-")
    try:
        with os.fdopen(descriptor, "wb") as target:
            yield target
            target.flush()
            os.fsync(target.fileno())
        Path(name).replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(name).unlink()
        raise
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make renames inside a directory survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
