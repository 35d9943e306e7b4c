"""Streams of stored bytes: which object a name means, and its chunks, read off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from services.core import names
from services.core.errors import (
    IntegrityError,
    NotSupported,
    ObjectNotFound,
    PreconditionFailed,
    RequestInvalid,
    Violation,
)
from services.db import artifacts, checkpoints, jobs, models
from services.db.session import Session
from services.db.work import Work
from services.models.version import version_number
from services.storage import layout
from services.storage.manifest import read_manifest
from services.storage.port import ObjectStore

READ_BYTES = 1 << 20
CHUNK_BYTES = 1 << 16
"""Small messages: what waits for a slow reader is counted in messages as much as in bytes."""
THREADS = 8
LINK_SECONDS = 15 * 60


@dataclass(frozen=True, slots=True)
class Source:
    """One object to send, with what is recorded of it."""

    key: str
    file_name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Link:
    """An address of one object; whoever has it may read until it ends."""

    url: str = field(repr=False)
    expire_time: datetime


class DownloadManager:
    """Finds and reads objects by the names of resources; no key ever comes from a caller."""

    def __init__(self, work: Work, store: ObjectStore) -> None:
        self._work = work
        self._store = store
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="download")

    async def find(self, name: str, file: str) -> Source:
        """Return the object that `file` of the resource `name` is.

        Raises:
            NotFound: no such resource, or it has no such file.
            RequestInvalid: the name is of no resource with bytes.
        """
        collections = tuple(name.split("/")[2::2])
        find = self._finders().get(collections)
        if find is None:
            text = f"{name[:200]!r} does not name an artifact, a checkpoint or a model version"
            raise RequestInvalid(violations=[Violation("name", text)])
        parsed = names.parse(name, *collections)
        return await self._work.read(lambda session: find(session, parsed, file))

    async def link(self, source: Source) -> Link:
        """Make an address that reads this one object for LINK_SECONDS.

        Raises:
            NotSupported: the store has no server.
        """
        expire_time = datetime.now(UTC) + timedelta(seconds=LINK_SECONDS)
        loop = asyncio.get_running_loop()
        url = await loop.run_in_executor(self._threads, self._store.presigned_get, source.key, LINK_SECONDS)
        if url is None:
            raise NotSupported("the object store of this platform has no addresses; use DownloadArtifact")
        return Link(url, expire_time)

    async def chunks(self, source: Source, name: str, file: str) -> AsyncIterator[bytes]:
        """Yield the bytes of the object that was found by this name and file.

        Raises:
            NotFound: it was deleted since.
            IntegrityError: the store lost it, or holds another number of bytes.
        """
        loop = asyncio.get_running_loop()
        opened = self._store.open(source.key)
        try:
            stream = await loop.run_in_executor(self._threads, opened.__enter__)
        except ObjectNotFound as err:
            await self.find(name, file)
            raise IntegrityError(f"{source.key} has a row, but no object") from err
        sent = 0
        try:
            while block := await loop.run_in_executor(self._threads, stream.read, READ_BYTES):
                for start in range(0, len(block), CHUNK_BYTES):
                    yield block[start : start + CHUNK_BYTES]
                sent += len(block)
        finally:
            self._threads.submit(opened.__exit__, None, None, None)
        if sent != source.size_bytes:
            raise IntegrityError(f"{source.key} has {sent} bytes instead of {source.size_bytes}")

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _finders(self) -> dict[tuple[str, ...], Callable[[Session, names.Name, str], Source]]:
        return {
            ("jobs", "artifacts"): self._artifact,
            ("jobs", "checkpoints"): self._checkpoint,
            ("models", "versions"): self._bundle,
        }

    def _artifact(self, session: Session, name: names.Name, file: str) -> Source:
        if file:
            raise RequestInvalid(violations=[Violation("file", "an artifact is one file; leave this empty")])
        job_id, artifact_id = name.ids
        jobs.get(session, name.project, job_id)
        artifact = artifacts.get(session, job_id, artifact_id)
        return Source(artifact.key, artifact.name, artifact.size_bytes, artifact.sha256)

    def _checkpoint(self, session: Session, name: names.Name, file: str) -> Source:
        job_id, checkpoint_id = name.ids
        jobs.get(session, name.project, job_id)
        checkpoint = checkpoints.get(session, job_id, checkpoint_id)
        files = {entry["name"]: (entry["size_bytes"], entry["sha256"]) for entry in checkpoint.files}
        return self._of_prefix(checkpoint.prefix, checkpoint.manifest_sha256, files, file)

    def _bundle(self, session: Session, name: names.Name, file: str) -> Source:
        model_id, version = name.ids
        row = models.get(session, name.project, model_id, version_number(version))
        if not row.bundle_sha256:
            raise PreconditionFailed("the model version is not packaged yet")
        manifest = read_manifest(self._store, row.bundle_prefix, row.bundle_sha256)
        files = {name: (entry.size_bytes, entry.sha256) for name, entry in manifest.files.items()}
        return self._of_prefix(row.bundle_prefix, row.bundle_sha256, files, file)

    def _of_prefix(self, prefix: str, manifest_sha256: str, files: dict[str, tuple[int, str]], file: str) -> Source:
        if file in ("", layout.MANIFEST):
            key = layout.manifest(prefix)
            return Source(key, layout.MANIFEST, self._store.stat(key).size_bytes, manifest_sha256)
        if file not in files:
            raise ObjectNotFound(f"there is no file {file[:200]!r}; use one of: {', '.join(sorted(files))}")
        size_bytes, sha256 = files[file]
        return Source(prefix + file, file, size_bytes, sha256)
