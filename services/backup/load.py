"""Restores a backup into an empty database and store, of whatever kind: objects first, then all rows at once."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from services.backup.vault import OBJECTS_FILE, BackedObject, Snapshot, Vault, read_objects
from services.core.errors import IntegrityError, ObjectNotFound, PreconditionFailed
from services.core.ids import new_id
from services.db import dump
from services.db.changes import announce
from services.db.database import Database
from services.db.session import Session
from services.storage.port import ObjectStore

_THREADS = 4
_ROOT = "projects/"


@dataclass(frozen=True, slots=True)
class Restored:
    """What was put back."""

    snapshot: Snapshot
    rows: int


class Restore:
    """One run of a restore. Interrupted, it can be run again: the rows come last and together."""

    def __init__(self, database: Database, store: ObjectStore, vault: Vault) -> None:
        self._database = database
        self._store = store
        self._vault = vault

    def load(self, snapshot_id: str = "") -> Restored:
        """Restore a snapshot, the newest where none is named, and migrate what comes back.

        Raises:
            BackupNotFound: there is no such backup.
            PreconditionFailed: the database or the store is not empty, or the backup is of a later release.
            IntegrityError: the backup is damaged.
        """
        snapshot = self._vault.open(snapshot_id)
        with tempfile.TemporaryDirectory(prefix="trainyard-restore-") as name:
            folder = Path(name)
            for file in snapshot.files:
                self._vault.get_file(snapshot, file, folder / file)
            objects = {one.key: one for one in read_objects(folder / OBJECTS_FILE)}
            self._check_store(objects)
            dump.prepare(self._database, snapshot.revision)
            self._put_objects(objects, folder)
            rows = self._put_rows(snapshot, folder)
        self._database.migrate()
        return Restored(snapshot, rows)

    def _check_store(self, objects: dict[str, BackedObject]) -> None:
        foreign = next((info.key for info in self._store.list(_ROOT) if info.key not in objects), None)
        if foreign is not None:
            raise PreconditionFailed(f"the object store is not empty (it holds {foreign}); restore into a new one")

    def _put_objects(self, objects: dict[str, BackedObject], folder: Path) -> None:
        there = {info.key: info.size_bytes for info in self._store.list(_ROOT)}
        # Left by a restore that was interrupted; an object is whole or not there.
        missing = [one for key, one in objects.items() if there.get(key) != one.size_bytes]
        with ThreadPoolExecutor(_THREADS) as threads:
            for _ in threads.map(lambda one: self._put_object(one, folder), missing):
                pass

    def _put_object(self, one: BackedObject, folder: Path) -> None:
        path = folder / f"object-{new_id()}"
        try:
            self._vault.get_blob(one.sha256, path)
            self._store.put_file(one.key, path)
        except ObjectNotFound as err:
            raise IntegrityError(f"the backup lacks the bytes of {one.key}; `admin verify` tells all that is") from err
        finally:
            path.unlink(missing_ok=True)

    def _put_rows(self, snapshot: Snapshot, folder: Path) -> int:
        with self._database.write() as session:
            self._database.take_time(session)
            announce(session)
            dump.defer_references(session)
            count = sum(
                self._put_table(session, snapshot, name, kinds, folder) for name, kinds in snapshot.tables.items()
            )
            dump.settle_sequences(session, snapshot.tables)
        return count

    def _put_table(self, session: Session, snapshot: Snapshot, name: str, kinds: dict[str, str], folder: Path) -> int:
        count = dump.load(session, name, kinds, _rows(folder / f"{name}.jsonl"))
        if count != snapshot.files[f"{name}.jsonl"].rows:
            raise IntegrityError(f"{name} has {count} rows, the backup says {snapshot.files[f'{name}.jsonl'].rows}")
        return count


def _rows(path: Path) -> Iterator[dump.Row]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
