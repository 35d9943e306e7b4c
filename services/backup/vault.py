"""Where backups lie: objects by their digest, each once however many backups have it, and one folder a backup.

blobs/<aa>/<sha256>            bytes of objects
snapshots/<id>/<table>.jsonl   rows, one a line
snapshots/<id>/objects.jsonl   key, size and sha256 of every object
snapshots/<id>/backup.json     what the snapshot is made of, written last: without it there is none
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from services.core.errors import IntegrityError, NotFound, ObjectNotFound
from services.core.settings import Settings
from services.storage.digest import hash_stream
from services.storage.local import LocalStore
from services.storage.open import open_store
from services.storage.port import ObjectStore

FORMAT_VERSION = 1
OBJECTS_FILE = "objects.jsonl"
_MANIFEST = "backup.json"
_SNAPSHOT = re.compile(r"snapshots/([a-z0-9]+)/backup\.json")


class BackupNotFound(NotFound):
    """There is no backup here."""


class StoredFile(BaseModel):
    """One file of a snapshot."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    sha256: str


class Snapshot(BaseModel):
    """What a backup is made of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    id: str
    create_time: datetime
    revision: str
    """The schema's."""
    tables: dict[str, dict[str, str]]
    """Kinds of the columns of each table, in the order to load them."""
    files: dict[str, StoredFile]
    num_objects: int
    object_bytes: int
    problems: list[str]
    """Objects that were missing or damaged in the platform itself."""


class BackedObject(NamedTuple):
    """One object of the platform and the blob that holds its bytes."""

    key: str
    size_bytes: int
    sha256: str


class Vault:
    """Backups in one place. Threads may share it."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def blobs(self) -> dict[str, int]:
        """Return the size of every blob by its digest."""
        return {info.key.rpartition("/")[2]: info.size_bytes for info in self._store.list("blobs/")}

    def put_blob(self, sha256: str, path: Path) -> None:
        self._store.put_file(_blob(sha256), path)

    def get_blob(self, sha256: str, path: Path) -> None:
        """Write a blob to `path`.

        Raises:
            ObjectNotFound: it is not there.
            IntegrityError: its bytes are not those it is named for.
        """
        self._store.get_file(_blob(sha256), path, sha256=sha256)

    def check_blob(self, sha256: str) -> None:
        """Read a blob to its end; raises like `get_blob`."""
        with self._store.open(_blob(sha256)) as source:
            _, found = hash_stream(source)
        if found != sha256:
            raise IntegrityError(f"its bytes have sha256 {found}")

    def put_file(self, snapshot_id: str, name: str, path: Path) -> str:
        """Store a file of a snapshot and return its sha256."""
        info = self._store.put_file(f"snapshots/{snapshot_id}/{name}", path)
        assert info.sha256 is not None
        return info.sha256

    def get_file(self, snapshot: Snapshot, name: str, path: Path) -> None:
        """Fetch a file of a snapshot, verified."""
        self._store.get_file(f"snapshots/{snapshot.id}/{name}", path, sha256=snapshot.files[name].sha256)

    def commit(self, snapshot: Snapshot) -> None:
        body = snapshot.model_dump_json(indent=2).encode()
        self._store.put(f"snapshots/{snapshot.id}/{_MANIFEST}", body, content_type="application/json")

    def snapshots(self) -> list[str]:
        """Return the ids of all complete snapshots, the oldest first."""
        keys = (_SNAPSHOT.fullmatch(info.key) for info in self._store.list("snapshots/"))
        return sorted(match[1] for match in keys if match)

    def open(self, snapshot_id: str = "") -> Snapshot:
        """Return a snapshot, the newest where none is named.

        Raises:
            BackupNotFound: there is no such backup.
            IntegrityError: it cannot be read.
        """
        known = self.snapshots()
        wanted = snapshot_id or (known[-1] if known else "")
        if wanted not in known:
            raise BackupNotFound(f"no backup {snapshot_id} here; there are: {', '.join(known)}" if known else None)
        try:
            snapshot = Snapshot.model_validate_json(self._store.get(f"snapshots/{wanted}/{_MANIFEST}"))
        except (ValidationError, ObjectNotFound) as err:
            raise IntegrityError(f"{_MANIFEST} of backup {wanted} cannot be read") from err
        if snapshot.format_version != FORMAT_VERSION:
            raise IntegrityError(f"backup {wanted} has format {snapshot.format_version}, this release reads 1")
        return snapshot


def open_vault(where: str, settings: Settings, *, is_new: bool = False) -> Vault:
    """Return the vault in a directory or at `s3://host:port/bucket`; a new directory is its owner's alone.

    Raises:
        ValueError: it is neither.
    """
    if not where.startswith("s3://"):
        directory = Path(where).absolute()
        if is_new:
            # It will hold everybody's data and the digests of their tokens.
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Vault(LocalStore(directory))
    keys = {"s3_access_key": settings.backup_s3_access_key, "s3_secret_key": settings.backup_s3_secret_key}
    own = {name: key for name, key in keys.items() if key.get_secret_value()}
    return Vault(open_store(settings.model_copy(update={"object_store_url": where, **own})))


def read_objects(path: Path) -> Iterator[BackedObject]:
    """Yield the lines of `objects.jsonl`."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            found = json.loads(line)
            yield BackedObject(found["key"], found["size_bytes"], found["sha256"])


def _blob(sha256: str) -> str:
    return f"blobs/{sha256[:2]}/{sha256}"
