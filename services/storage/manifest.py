"""What a prefix holds, as one small object that is written last.

A reader that sees the manifest may trust that every blob it lists is there; its sha256 in the
database is what ties stored bytes to a committed fact.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from services.core.errors import IntegrityError
from services.storage import layout
from services.storage.port import ObjectStore, check_key

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


class FileEntry(NamedTuple):
    """Size and digest of one blob."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """Blobs by their name below the prefix, and whatever the writer wants to say about them."""

    files: Mapping[str, FileEntry]
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        return sum(entry.size_bytes for entry in self.files.values())

    def to_json(self) -> bytes:
        """Return canonical bytes: the same manifest is the same bytes everywhere."""
        files = {name: {"size_bytes": entry.size_bytes, "sha256": entry.sha256} for name, entry in self.files.items()}
        content = {"format_version": 1, "files": files, "meta": dict(self.meta)}
        return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()

    def sha256(self) -> str:
        return hashlib.sha256(self.to_json()).hexdigest()

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Parse a manifest, or raise IntegrityError: nobody but this class writes one."""
        try:
            content = json.loads(data)
            if content["format_version"] != 1:
                raise ValueError(f"format_version {content['format_version']!r}")
            files = {check_key(name): _entry(entry) for name, entry in content["files"].items()}
            return cls(files, dict(content["meta"]))
        except (ValueError, KeyError, TypeError, AttributeError) as err:
            raise IntegrityError(f"not a manifest: {err}") from err


def upload_directory(
    store: ObjectStore,
    prefix: str,
    directory: Path,
    *,
    meta: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Store every regular file of a directory under a fresh prefix, the manifest last.

    Raises:
        ValueError: the directory holds a link, a device or a name that is no object key.
    """
    paths = {name: directory / name for name in _names(directory)}
    total = sum(path.stat().st_size for path in paths.values())
    files: dict[str, FileEntry] = {}
    done = 0
    for name, path in paths.items():
        info = store.put_file(prefix + name, path)
        assert info.sha256 is not None
        files[name] = FileEntry(info.size_bytes, info.sha256)
        done += info.size_bytes
        if progress is not None:
            progress(done, total)
    manifest = Manifest(files, meta or {})
    store.put(layout.manifest(prefix), manifest.to_json(), content_type="application/json")
    return manifest


def read_manifest(store: ObjectStore, prefix: str, sha256: str) -> Manifest:
    """Return the manifest with this digest, or raise IntegrityError or ObjectNotFound."""
    return Manifest.from_json(store.get(layout.manifest(prefix), sha256=sha256))


def download_directory(
    store: ObjectStore, prefix: str, directory: Path, manifest_sha256: str, *, progress: Progress | None = None
) -> Manifest:
    """Fetch everything a manifest lists into a directory that does not exist yet, verifying every byte.

    On failure the directory is removed; a crash may leave it, so share it only after renaming it.
    """
    manifest = read_manifest(store, prefix, manifest_sha256)
    directory.mkdir(parents=True)
    try:
        done = 0
        for name, entry in sorted(manifest.files.items()):
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            store.get_file(prefix + name, path, sha256=entry.sha256)
            done += entry.size_bytes
            if progress is not None:
                progress(done, manifest.size_bytes)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    return manifest


def _names(directory: Path) -> list[str]:
    names = []
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise ValueError(f"not a regular file: {name}")
        if path.is_file():
            if name == layout.MANIFEST:
                raise ValueError(f"{layout.MANIFEST} is the name of the manifest itself")
            names.append(check_key(name))
    return names


def _entry(value: Mapping[str, Any]) -> FileEntry:
    size_bytes, sha256 = value["size_bytes"], value["sha256"]
    if not isinstance(size_bytes, int) or not _SHA256.fullmatch(sha256):
        raise ValueError("a file entry without size or sha256")
    return FileEntry(size_bytes, sha256)
