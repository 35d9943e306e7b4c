"""Objects as plain files of a local directory: `objects/<key>`, their recorded digests in `sha256/<key>`.

For one machine and for tests. An object becomes visible by one rename after its bytes are durable.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from services.core.errors import IntegrityError, ObjectNotFound, StoreUnavailable
from services.core.lock_file import lock_file
from services.storage.digest import copy_hashing, require_sha256, sync_directory, whole_file
from services.storage.port import DEFAULT_CONTENT_TYPE, ObjectInfo, check_key, check_prefix

_COMMIT_TRIES = 10
_ABANDONED_SECONDS = 24 * 3600


class LocalStore:
    """An object store in a directory; processes of one machine may share it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._objects = root / "objects"
        self._digests = root / "sha256"
        self._scratch = root / "scratch"
        self._locks = root / "locks"
        self._is_swept = False

    def put(
        self,
        key: str,
        source: BinaryIO | bytes,
        *,
        size_bytes: int | None = None,
        content_type: str = DEFAULT_CONTENT_TYPE,
    ) -> ObjectInfo:
        del content_type  # files have none
        check_key(key)
        with _write_faults_translated():
            self._prepare()
            staged = self._scratch / os.urandom(12).hex()
            try:
                with whole_file(staged) as target:
                    stream = io.BytesIO(source) if isinstance(source, bytes) else source
                    written, digest = copy_hashing(stream, target)
                    if size_bytes is not None and written != size_bytes:
                        raise IntegrityError(f"{key}: the source has {written} bytes, announced were {size_bytes}")
                self._commit(key, staged, digest)
            finally:
                staged.unlink(missing_ok=True)
        return ObjectInfo(key, written, digest)

    def put_file(self, key: str, path: Path, *, content_type: str = DEFAULT_CONTENT_TYPE) -> ObjectInfo:
        with path.open("rb") as source:
            return self.put(key, source, content_type=content_type)

    @contextmanager
    def open(self, key: str) -> Iterator[BinaryIO]:
        path = self._objects / check_key(key)
        with _faults_translated(key):
            source = path.open("rb")
        with source:
            yield source

    def get(self, key: str, *, sha256: str | None = None) -> bytes:
        target = io.BytesIO()
        self._copy(key, target, sha256)
        return target.getvalue()

    def get_file(self, key: str, path: Path, *, sha256: str | None = None) -> ObjectInfo:
        with whole_file(path) as target:
            return self._copy(key, target, sha256)

    def stat(self, key: str) -> ObjectInfo:
        with _faults_translated(key):
            path = self._objects / check_key(key)
            if path.is_dir():
                raise ObjectNotFound(f"no object {key}")
            return ObjectInfo(key, path.stat().st_size, self._recorded(key))

    def exists(self, key: str) -> bool:
        with _faults_translated(key):
            return (self._objects / check_key(key)).is_file()

    def delete(self, key: str) -> None:
        check_key(key)
        with _faults_translated(key), suppress(ObjectNotFound):
            (self._objects / key).unlink(missing_ok=True)
            (self._digests / key).unlink(missing_ok=True)
            _prune(self._objects, (self._objects / key).parent)
            _prune(self._digests, (self._digests / key).parent)

    def delete_prefix(self, prefix: str) -> None:
        check_prefix(prefix)
        for info in list(self.list(prefix)):
            self.delete(info.key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        top = self._objects / check_prefix(prefix) if prefix else self._objects
        with _faults_translated(prefix):
            paths = [Path(folder) / name for folder, _, names in os.walk(top) for name in names]
        for key, path in sorted((path.relative_to(self._objects).as_posix(), path) for path in paths):
            with suppress(FileNotFoundError):
                yield ObjectInfo(key, path.stat().st_size, None)

    def presigned_get(self, key: str, seconds: int) -> str | None:
        del key, seconds
        return None

    def presigned_put(self, key: str, seconds: int) -> str | None:
        del key, seconds
        return None

    def _copy(self, key: str, target: BinaryIO, sha256: str | None) -> ObjectInfo:
        with _faults_translated(key):
            # The digest is read first: a writer that replaces the object in between is caught, not served.
            recorded = self._recorded(check_key(key))
            source = (self._objects / key).open("rb")
        with source:
            size_bytes, digest = copy_hashing(source, target)
        require_sha256(key, digest, sha256)
        require_sha256(key, digest, recorded)
        return ObjectInfo(key, size_bytes, digest)

    def _recorded(self, key: str) -> str | None:
        try:
            return (self._digests / key).read_text()
        except FileNotFoundError:
            return None

    def _prepare(self) -> None:
        """Make the scratch folder; once per store, drop what writers killed long ago left in it."""
        for folder in (self._scratch, self._locks):
            folder.mkdir(parents=True, exist_ok=True)
        if not self._is_swept:
            self._is_swept = True
            _sweep(self._scratch)

    def _commit(self, key: str, staged: Path, digest: str) -> None:
        """Make the staged file the object. Killed between any two lines, no object is visible with a wrong digest.

        A key that exists loses its digest first and gets it back last; a fresh key has it before it is visible.
        """
        with _sole_writer(self._locks / hashlib.sha256(key.encode()).hexdigest()):
            is_fresh = not (self._objects / key).exists()
            if is_fresh:
                self._record(key, digest)
            else:
                (self._digests / key).unlink(missing_ok=True)
            _rename_into(staged, self._objects / key)
            if not is_fresh:
                self._record(key, digest)

    def _record(self, key: str, digest: str) -> None:
        staged = self._scratch / os.urandom(12).hex()
        with whole_file(staged) as target:
            target.write(digest.encode())
        _rename_into(staged, self._digests / key)


def _rename_into(source: Path, target: Path) -> None:
    """Rename a file into place; a concurrent delete may prune the folder between making and using it."""
    for attempt in range(_COMMIT_TRIES):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            source.replace(target)
        except (FileNotFoundError, FileExistsError):
            if attempt == _COMMIT_TRIES - 1:
                raise
        else:
            sync_directory(target.parent)
            return


@contextmanager
def _sole_writer(path: Path) -> Iterator[None]:
    """Hold the lock of one key: a process that hangs with it keeps nobody from writing another."""
    with lock_file(path):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    oldest = time.time() - _ABANDONED_SECONDS
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < oldest:
                path.unlink()


def _prune(root: Path, folder: Path) -> None:
    """Remove folders that became empty, up to the root."""
    with suppress(OSError):
        while folder != root:
            folder.rmdir()
            folder = folder.parent


@contextmanager
def _faults_translated(key: str) -> Iterator[None]:
    with _write_faults_translated():
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as err:
            raise ObjectNotFound(f"no object {key}") from err


@contextmanager
def _write_faults_translated() -> Iterator[None]:
    try:
        yield
    except OSError as err:
        raise StoreUnavailable(f"the object store's directory cannot be used: {err.strerror or err}") from err
