"""Receives an uploaded archive into a private folder: counted and hashed while it arrives, gone afterwards."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from services.core.clock import Deadline
from services.core.errors import DeadlineExceeded, LimitExceeded, RequestInvalid, Violation
from services.core.units import human_bytes
from services.datasets.room import check_room
from services.datasets.workplace import workplace

T = TypeVar("T")

CHUNK_PATIENCE_SECONDS = 60.0
MIN_BYTES_PER_SECOND = 32 * 1024
MAX_UPLOADS = 16


@dataclass(frozen=True, slots=True)
class Expected:
    """What the header announced; an empty digest is not checked."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Received:
    """A whole archive on this machine."""

    path: Path
    sha256: str


class Uploads:
    """Where archives arrive. Belongs to one event loop; files are written by `threads`."""

    def __init__(self, directory: Path, threads: Executor, *, limit_bytes: int) -> None:
        self._directory = directory
        self._threads = threads
        self._limit_bytes = limit_bytes
        self._running = 0

    @asynccontextmanager
    async def receive(self, expected: Expected, chunks: AsyncIterator[bytes]) -> AsyncIterator[Received]:
        """Yield the archive once it is complete; it is removed when the block ends.

        Raises:
            RequestInvalid: size or digest are not what was announced.
            LimitExceeded: it is too large, or too much arrives at once.
            DeadlineExceeded: the sender stopped sending.
        """
        self._check(expected)
        self._running += 1
        loop = asyncio.get_running_loop()
        place = workplace(self._directory)
        try:
            folder = await loop.run_in_executor(self._threads, place.__enter__)
            try:
                yield await self._write(folder / "archive", expected, chunks)
            finally:
                await asyncio.shield(loop.run_in_executor(self._threads, place.__exit__, None, None, None))
        finally:
            self._running -= 1

    def _check(self, expected: Expected) -> None:
        if expected.size_bytes <= 0:
            raise _invalid("header.size_bytes", "must be the size of the archive in bytes")
        if expected.size_bytes > self._limit_bytes:
            size, limit = human_bytes(expected.size_bytes), human_bytes(self._limit_bytes)
            raise LimitExceeded(f"the archive has {size}; this server takes {limit}")
        if self._running >= MAX_UPLOADS:
            raise LimitExceeded(f"{MAX_UPLOADS} uploads are under way; try again later")
        self._directory.mkdir(parents=True, exist_ok=True)
        check_room(self._directory, needed_bytes=expected.size_bytes)

    async def _write(self, path: Path, expected: Expected, chunks: AsyncIterator[bytes]) -> Received:
        loop = asyncio.get_running_loop()
        digest = hashlib.sha256()
        size_bytes = 0
        pace = Deadline(CHUNK_PATIENCE_SECONDS + expected.size_bytes / MIN_BYTES_PER_SECOND)
        with path.open("wb") as file:
            while (chunk := await next_message(chunks)) is not None:
                if pace.is_over:
                    # Else one byte a minute would hold a place of the few there are for ever.
                    raise DeadlineExceeded(f"it arrived slower than {MIN_BYTES_PER_SECOND} bytes a second")
                size_bytes += len(chunk)
                if size_bytes > expected.size_bytes:
                    raise _invalid("header.size_bytes", f"is {expected.size_bytes}, but more bytes were sent")
                await loop.run_in_executor(self._threads, _append, file, digest, chunk)
        if size_bytes != expected.size_bytes:
            raise _invalid("header.size_bytes", f"is {expected.size_bytes}, but {size_bytes} bytes were sent")
        sha256 = digest.hexdigest()
        if expected.sha256 and expected.sha256.lower() != sha256:
            raise _invalid("header.sha256", f"does not match what was sent, whose digest is {sha256}; send it again")
        return Received(path, sha256)


async def next_message(messages: AsyncIterator[T]) -> T | None:
    """Return what the sender sends next, None at the end.

    Raises:
        DeadlineExceeded: nothing comes.
    """
    try:
        async with asyncio.timeout(CHUNK_PATIENCE_SECONDS):
            return await anext(messages, None)
    except TimeoutError as err:
        raise DeadlineExceeded(f"nothing was sent for {CHUNK_PATIENCE_SECONDS:g} s") from err


def _append(file: BinaryIO, digest: hashlib._Hash, chunk: bytes) -> None:
    file.write(chunk)
    digest.update(chunk)


def _invalid(field: str, description: str) -> RequestInvalid:
    return RequestInvalid(violations=[Violation(field, description)])
