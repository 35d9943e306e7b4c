"""An object store in a dict, for tests that make thousands of objects; the contract suite holds it to the port."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from services.core.errors import IntegrityError, ObjectNotFound
from services.storage.digest import copy_hashing, require_sha256, whole_file
from services.storage.port import DEFAULT_CONTENT_TYPE, ObjectInfo, check_key, check_prefix


@dataclass(slots=True)
class Stored:
    """An object's bytes and the digest recorded when it was written."""

    body: bytes
    sha256: str


class MemoryStore:
    """Blobs by key, gone with the process."""

    def __init__(self) -> None:
        self.objects: dict[str, Stored] = {}

    def put(
        self,
        key: str,
        source: BinaryIO | bytes,
        *,
        size_bytes: int | None = None,
        content_type: str = DEFAULT_CONTENT_TYPE,
    ) -> ObjectInfo:
        del content_type
        check_key(key)
        target = io.BytesIO()
        copy_hashing(io.BytesIO(source) if isinstance(source, bytes) else source, target)
        body = target.getvalue()
        if size_bytes is not None and len(body) != size_bytes:
            raise IntegrityError(f"{key}: the source has {len(body)} bytes, announced were {size_bytes}")
        stored = Stored(body, hashlib.sha256(body).hexdigest())
        self.objects[key] = stored
        return ObjectInfo(key, len(body), stored.sha256)

    def put_file(self, key: str, path: Path, *, content_type: str = DEFAULT_CONTENT_TYPE) -> ObjectInfo:
        return self.put(key, path.read_bytes(), content_type=content_type)

    @contextmanager
    def open(self, key: str) -> Iterator[BinaryIO]:
        yield io.BytesIO(self._find(key).body)

    def get(self, key: str, *, sha256: str | None = None) -> bytes:
        stored = self._find(key)
        digest = hashlib.sha256(stored.body).hexdigest()
        require_sha256(key, digest, sha256)
        require_sha256(key, digest, stored.sha256)
        return stored.body

    def get_file(self, key: str, path: Path, *, sha256: str | None = None) -> ObjectInfo:
        body = self.get(key, sha256=sha256)
        with whole_file(path) as target:
            target.write(body)
        return self.stat(key)

    def stat(self, key: str) -> ObjectInfo:
        stored = self._find(key)
        return ObjectInfo(key, len(stored.body), stored.sha256)

    def exists(self, key: str) -> bool:
        return check_key(key) in self.objects

    def delete(self, key: str) -> None:
        self.objects.pop(check_key(key), None)

    def delete_prefix(self, prefix: str) -> None:
        check_prefix(prefix)
        for info in list(self.list(prefix)):
            self.delete(info.key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        if prefix:
            check_prefix(prefix)
        for key in sorted(self.objects):
            if key.startswith(prefix):
                yield ObjectInfo(key, len(self.objects[key].body), None)

    def presigned_get(self, key: str, seconds: int) -> str | None:
        del key, seconds
        return None

    def presigned_put(self, key: str, seconds: int) -> str | None:
        del key, seconds
        return None

    def flip_a_bit(self, key: str) -> None:
        """Spoil an object behind the back of its recorded digest."""
        stored = self._find(key)
        body = bytearray(stored.body)
        body[len(body) // 2] ^= 1
        stored.body = bytes(body)

    def truncate(self, key: str) -> None:
        stored = self._find(key)
        stored.body = stored.body[:-1]

    def _find(self, key: str) -> Stored:
        try:
            return self.objects[check_key(key)]
        except KeyError:
            raise ObjectNotFound(f"no object {key}") from None
