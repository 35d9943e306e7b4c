"""Bytes to and from the platform: chunked, with progress, verified, and visible only when complete."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from trainyard.v1 import dataset_pb2, model_pb2

from services.client.errors import TransferFailed

CHUNK_BYTES = 2**20

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A file that arrived whole."""

    path: Path
    size_bytes: int
    sha256: str


def ignore_progress(done: int, total: int) -> None:
    """Drop the figures."""


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def upload_messages(
    header: dataset_pb2.CreateDatasetHeader, path: Path, on_progress: Progress
) -> Iterator[dataset_pb2.CreateDatasetRequest]:
    """Yield the header, then the file in chunks; progress counts what the transport took."""
    yield dataset_pb2.CreateDatasetRequest(header=header)
    done = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield dataset_pb2.CreateDatasetRequest(chunk=chunk)
            done += len(chunk)
            on_progress(done, header.size_bytes)


def receive(messages: Iterator[model_pb2.DownloadArtifactResponse], target: Path, on_progress: Progress) -> Downloaded:
    """Write a download to `target`: a file of that name appears complete and verified, or not at all.

    `target` may be a folder; then the server's file name is used.

    Raises:
        TransferFailed: the bytes are not those the header announced.
    """
    header = next(messages, model_pb2.DownloadArtifactResponse()).header
    if not header.sha256:
        raise TransferFailed("the server sent no header; update the client or the server")
    path = target / safe_relative(header.file_name).name if target.is_dir() else target
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            digest, size = hashlib.sha256(), 0
            for message in messages:
                file.write(message.chunk)
                digest.update(message.chunk)
                size += len(message.chunk)
                on_progress(size, header.size_bytes)
            file.flush()
            os.fsync(file.fileno())
        if size != header.size_bytes or digest.hexdigest() != header.sha256:
            raise TransferFailed(
                f"{path.name}: received {size} bytes that do not match their sha256; download it again"
            )
        temporary.replace(path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
    return Downloaded(path, size, header.sha256)


def safe_relative(name: str) -> PurePosixPath:
    """Return a file name of the server as a path that stays inside a folder.

    Raises:
        TransferFailed: the name leads elsewhere.
    """
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts:
        raise TransferFailed(f"the server names a file {name!r}, which leads out of the folder")
    return path
