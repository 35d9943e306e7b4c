"""The port every store fulfils. `tests/contract/storage` holds all of them to it.

An object appears whole or not at all, and its sha256 is recorded when it is written. Keys are
immutable by convention (`layout` never reuses a prefix); writing one again replaces it whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

CHUNK_BYTES = 1 << 20
DEFAULT_CONTENT_TYPE = "application/octet-stream"
_SAFE_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]{0,199}")
_MAX_KEY_BYTES = 900


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a store knows of one object. `sha256` is None where nobody recorded it, as in listings."""

    key: str
    size_bytes: int
    sha256: str | None


class ObjectStore(Protocol):
    """Blobs by key.

    Every method raises StoreUnavailable when the store does not answer; the methods that read raise
    ObjectNotFound. ValueError means a key or prefix that `layout` cannot have built.
    """

    def put(
        self,
        key: str,
        source: BinaryIO | bytes,
        *,
        size_bytes: int | None = None,
        content_type: str = DEFAULT_CONTENT_TYPE,
    ) -> ObjectInfo:
        """Store a blob. With `size_bytes`, a source of another length raises IntegrityError and stores nothing."""
        ...

    def put_file(self, key: str, path: Path, *, content_type: str = DEFAULT_CONTENT_TYPE) -> ObjectInfo: ...

    def open(self, key: str) -> AbstractContextManager[BinaryIO]:
        """Stream an object; the bytes are not verified, use `get_file` for that."""
        ...

    def get(self, key: str, *, sha256: str | None = None) -> bytes:
        """Return a small object whole, held against `sha256` or else the recorded one, or raise IntegrityError."""
        ...

    def get_file(self, key: str, path: Path, *, sha256: str | None = None) -> ObjectInfo:
        """Write an object to `path`, which appears only once verified, or raise IntegrityError."""
        ...

    def stat(self, key: str) -> ObjectInfo: ...

    def exists(self, key: str) -> bool: ...

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""
        ...

    def delete_prefix(self, prefix: str) -> None:
        """Remove everything under a prefix, which must end with a slash."""
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects under a prefix (empty, or ending with a slash) in key order."""
        ...

    def presigned_get(self, key: str, seconds: int) -> str | None:
        """Return an address that lets its holder read this one object for a while; None where there is no server."""
        ...

    def presigned_put(self, key: str, seconds: int) -> str | None: ...


def check_key(key: str) -> str:
    """Return `key`, or raise ValueError unless it is made of plain name parts and slashes."""
    if len(key) > _MAX_KEY_BYTES or not all(_SAFE_PART.fullmatch(part) for part in key.split("/")):
        raise ValueError(f"not an object key: {key[:200]!r}")
    return key


def check_prefix(prefix: str) -> str:
    """Return `prefix`, or raise ValueError unless it ends with a slash after plain name parts."""
    if not prefix.endswith("/"):
        raise ValueError(f"not an object prefix (it must end with a slash): {prefix[:200]!r}")
    check_key(prefix[:-1])
    return prefix
