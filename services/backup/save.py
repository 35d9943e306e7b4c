"""Makes a backup: all rows as of one moment, and every object they need, while the platform goes on.

Objects are immutable, so copying them takes its time. What a row of the moment needs may be retired
meanwhile; then a later moment is taken, for which all but the newest objects are already copied.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import structlog

from services.backup.vault import OBJECTS_FILE, BackedObject, Snapshot, StoredFile, Vault
from services.core.errors import IntegrityError, ObjectNotFound, PreconditionFailed
from services.core.ids import new_id
from services.db import dump, migrations, references
from services.db.database import Database
from services.db.references import Reference
from services.storage.manifest import Manifest
from services.storage.port import ObjectStore

log = structlog.get_logger(__name__)

_MOMENTS = 3
_THREADS = 4


@dataclass(frozen=True, slots=True)
class Saved:
    """A finished backup, and how much of it was new."""

    snapshot: Snapshot
    copied_objects: int
    copied_bytes: int


@dataclass(slots=True)
class _Copy:
    """What copying the objects of one moment found."""

    objects: dict[str, BackedObject] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    """What is wrong in the platform's own store, by key."""


class Backup:
    """One run of a backup; the store and the vault are read and written by several threads."""

    def __init__(self, database: Database, store: ObjectStore, vault: Vault) -> None:
        self._database = database
        self._store = store
        self._vault = vault
        self._blobs: dict[str, int] = {}
        self._copied_objects = 0
        self._copied_bytes = 0

    def save(self) -> Saved:
        """Make a backup. Repeating it copies only what is new.

        Raises:
            PreconditionFailed: the database has another schema than this code.
        """
        if not self._database.is_at_head():
            raise PreconditionFailed("the database has another schema than this release; migrate it first")
        self._blobs = self._vault.blobs()
        known_faults: set[str] = set()
        with tempfile.TemporaryDirectory(prefix="trainyard-backup-") as folder:
            for moment in range(1, _MOMENTS + 1):
                rows, needed = self._dump(Path(folder))
                copy = self._copy(needed, Path(folder))
                # What was there and is not was retired meanwhile; what is gone for two moments is gone.
                if copy.problems.keys() <= known_faults or moment == _MOMENTS:
                    break
                log.info("backup_taken_again", problems=len(copy.problems))
                known_faults = set(copy.problems)
            return Saved(self._commit(Path(folder), rows, copy), self._copied_objects, self._copied_bytes)

    def _dump(self, folder: Path) -> tuple[dict[str, int], list[Reference]]:
        """Write every table of one moment; return the number of rows of each, and what they need."""
        counts = {}
        with self._database.snapshot() as session:
            for name in dump.dumped_tables():
                counts[name] = 0
                with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as lines:
                    for row in dump.rows(session, name):
                        lines.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")
                        counts[name] += 1
            return counts, list(references.required(session))

    def _copy(self, needed: list[Reference], folder: Path) -> _Copy:
        copy = _Copy()
        with ThreadPoolExecutor(_THREADS) as threads:
            for found in threads.map(lambda one: list(self._copy_one(one, folder)), needed):
                for one in found:
                    if isinstance(one, BackedObject):
                        copy.objects[one.key] = one
                    else:
                        copy.problems.update([one])
        return copy

    def _copy_one(self, reference: Reference, folder: Path) -> Iterator[BackedObject | tuple[str, str]]:
        """Copy an object and, where it is a manifest, what it lists; yield each, or its key and what is wrong."""
        files: list[tuple[str, str]] = []
        try:
            if reference.is_manifest:
                body = self._store.get(reference.key, sha256=reference.sha256)
                listed = Manifest.from_json(body).files
                files = [(reference.prefix + name, entry.sha256) for name, entry in listed.items()]
        except (ObjectNotFound, IntegrityError) as err:
            yield reference.key, str(err)
            return
        for key, sha256 in ((reference.key, reference.sha256), *files):
            try:
                yield self._copy_object(key, sha256, folder)
            except (ObjectNotFound, IntegrityError) as err:
                yield key, str(err)

    def _copy_object(self, key: str, sha256: str, folder: Path) -> BackedObject:
        if sha256 in self._blobs:
            # The bytes are safe already; whether the platform still has them is for its own verification.
            return BackedObject(key, self._blobs[sha256], sha256)
        path = folder / f"object-{new_id()}"
        try:
            info = self._store.get_file(key, path, sha256=sha256)
            self._vault.put_blob(sha256, path)
        finally:
            path.unlink(missing_ok=True)
        self._blobs[sha256] = info.size_bytes
        self._copied_objects += 1
        self._copied_bytes += info.size_bytes
        return BackedObject(key, info.size_bytes, sha256)

    def _commit(self, folder: Path, counts: dict[str, int], copy: _Copy) -> Snapshot:
        with (folder / OBJECTS_FILE).open("w", encoding="utf-8") as lines:
            for key in sorted(copy.objects):
                lines.write(json.dumps(copy.objects[key]._asdict(), separators=(",", ":")) + "\n")
        snapshot_id = new_id()
        names = {**{f"{name}.jsonl": count for name, count in counts.items()}, OBJECTS_FILE: len(copy.objects)}
        files = {
            name: StoredFile(rows=count, sha256=self._vault.put_file(snapshot_id, name, folder / name))
            for name, count in names.items()
        }
        snapshot = Snapshot(
            id=snapshot_id,
            create_time=datetime.now(UTC),
            revision=migrations.HEAD,
            tables={name: dict(kinds) for name, kinds in dump.dumped_tables().items()},
            files=files,
            num_objects=len(copy.objects),
            object_bytes=sum(one.size_bytes for one in copy.objects.values()),
            problems=[f"{key}: {text}" for key, text in sorted(copy.problems.items())],
        )
        self._vault.commit(snapshot)
        return snapshot
