"""Holds a platform's objects, or a backup's, against the rows that need them: what is missing, damaged or nobody's."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Literal

from ulid import ULID

from services.backup.vault import OBJECTS_FILE, Vault, read_objects
from services.core.errors import IntegrityError, ObjectNotFound
from services.db import references
from services.db.database import Database
from services.db.references import Reference
from services.storage.digest import hash_stream
from services.storage.manifest import Manifest
from services.storage.port import ObjectStore

_THREADS = 4
_ROOT = "projects/"
# The collector's own patience: what is younger may get its row yet.
_SETTLED = timedelta(hours=24)
_JOB = re.compile(r"projects/[^/]+/jobs/([^/]+)/")
_MADE = re.compile(r"projects/[^/]+/(?:datasets|models|galleries)/[^/]+/([^/]+)/")

Fault = Literal["missing", "corrupt", "orphan"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One object that is not as it should be."""

    fault: Fault
    kind: str
    key: str
    detail: str


@dataclass(slots=True)
class Report:
    """What a verification saw."""

    num_objects: int = 0
    num_bytes: int = 0
    findings: list[Finding] = field(default_factory=list)
    unsettled: list[str] = field(default_factory=list)
    """Objects without a row that may still get one, or are to go: their job runs or was deleted, or they are of today."""

    @property
    def is_sound(self) -> bool:
        return not self.findings

    def counts(self) -> dict[str, int]:
        counted = Counter(finding.fault for finding in self.findings)
        return {fault: counted[fault] for fault in ("missing", "corrupt", "orphan")}

    def add(self, size_bytes: int, finding: Finding | None = None) -> None:
        self.num_objects += 1
        self.num_bytes += size_bytes
        if finding is not None:
            self.findings.append(finding)


@dataclass(frozen=True, slots=True)
class _Expected:
    """One object as its row or its manifest has it."""

    kind: str
    key: str
    sha256: str
    owner: str
    """Key of what the row itself names: the manifest, or the object."""
    size_bytes: int | None = None
    """Known from manifests only."""


class PlatformCheck:
    """One verification of a platform that may be running; the store is read by several threads."""

    def __init__(self, database: Database, store: ObjectStore, *, is_quick: bool = False) -> None:
        """`is_quick` believes the sizes and digests that the store recorded, instead of reading every byte."""
        self._database = database
        self._store = store
        self._is_quick = is_quick

    def run(self) -> Report:
        report = Report()
        # Listed before the rows are read: what has a row then was stored before it.
        stored = {info.key: info.size_bytes for info in self._store.list(_ROOT)}
        with self._database.snapshot() as session:
            needed = list(references.required(session))
            keys, prefixes = references.known_keys(session), references.known_prefixes(session)
            loose = [key for key in stored if key not in keys and not _is_under(key, prefixes)]
            jobs = references.unsettled_jobs(session, {match[1] for key in loose if (match := _JOB.match(key))})
        faults = self._check_all(needed, report)
        report.findings += self._still_needed(faults)
        for key in loose:
            if _is_unsettled(key, jobs):
                report.unsettled.append(key)
            elif self._store.exists(key):
                detail = f"{stored[key]} bytes that no row refers to"
                report.findings.append(Finding("orphan", key.split("/")[2], key, detail))
        return report

    def _check_all(self, needed: list[Reference], report: Report) -> list[tuple[str, Finding]]:
        """Return what is wrong, each with the key its row names."""
        faults: list[tuple[str, Finding]] = []
        with ThreadPoolExecutor(_THREADS) as threads:
            expected: list[_Expected] = []
            for listed, finding in threads.map(self._expand, needed):
                expected += listed
                if finding is not None:
                    faults.append((finding.key, finding))
            for one, (size_bytes, found) in zip(expected, threads.map(self._check, expected), strict=True):
                report.add(size_bytes)
                if found is not None:
                    faults.append((one.owner, found))
        return faults

    def _expand(self, reference: Reference) -> tuple[list[_Expected], Finding | None]:
        """Return the objects behind a reference, and what is wrong with its manifest."""
        kind, key = reference.kind, reference.key
        own = _Expected(kind, key, reference.sha256, key)
        if not reference.is_manifest:
            return [own], None
        try:
            manifest = Manifest.from_json(self._store.get(key, sha256=reference.sha256))
        except ObjectNotFound:
            return [], Finding("missing", kind, key, "the manifest is not in the store")
        except IntegrityError as err:
            return [], Finding("corrupt", kind, key, str(err))
        files = manifest.files.items()
        listed = [
            _Expected(kind, reference.prefix + name, entry.sha256, key, entry.size_bytes) for name, entry in files
        ]
        return [own, *listed], None

    def _check(self, expected: _Expected) -> tuple[int, Finding | None]:
        """Return the size of an object, and what is wrong with it."""
        try:
            size_bytes, sha256 = self._look(expected.key)
        except ObjectNotFound:
            return 0, Finding("missing", expected.kind, expected.key, "not in the store")
        except IntegrityError as err:
            return 0, Finding("corrupt", expected.kind, expected.key, str(err))
        if expected.size_bytes is not None and size_bytes != expected.size_bytes:
            detail = f"has {size_bytes} bytes instead of {expected.size_bytes}"
            return size_bytes, Finding("corrupt", expected.kind, expected.key, detail)
        if sha256 != expected.sha256:
            detail = f"has sha256 {sha256} instead of {expected.sha256}"
            return size_bytes, Finding("corrupt", expected.kind, expected.key, detail)
        return size_bytes, None

    def _look(self, key: str) -> tuple[int, str]:
        info = self._store.stat(key)
        if self._is_quick and info.sha256 is not None:
            return info.size_bytes, info.sha256
        with self._store.open(key) as source:
            return hash_stream(source)

    def _still_needed(self, faults: list[tuple[str, Finding]]) -> list[Finding]:
        """Leave out what was retired, in order, while it was looked for."""
        if not faults:
            return []
        with self._database.snapshot() as session:
            needed = {reference.key for reference in references.required(session)}
        return [finding for owner, finding in faults if owner in needed]


def verify_backup(vault: Vault, snapshot_id: str = "") -> Report:
    """Check every file and blob of a snapshot, the newest where none is named, and look for blobs of no snapshot.

    Raises:
        BackupNotFound: there is no such backup.
        IntegrityError: what it is made of cannot be read.
    """
    report = Report()
    snapshot = vault.open(snapshot_id)
    used: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="trainyard-verify-") as name:
        folder = Path(name)
        for file in snapshot.files:
            finding = _fault_of("table", file, partial(vault.get_file, snapshot, file, folder / file))
            report.add(0, finding)
        objects = list(read_objects(folder / OBJECTS_FILE)) if (folder / OBJECTS_FILE).exists() else []
        for other in vault.snapshots():
            vault.get_file(vault.open(other), OBJECTS_FILE, folder / "other")
            used.update(one.sha256 for one in read_objects(folder / "other"))
    blobs = vault.blobs()
    with ThreadPoolExecutor(_THREADS) as threads:
        unique = {one.sha256: one for one in objects}
        checks = threads.map(
            lambda one: _fault_of("object", one.key, partial(vault.check_blob, one.sha256)), unique.values()
        )
        for one, finding in zip(unique.values(), checks, strict=True):
            report.add(one.size_bytes, finding)
    for sha256 in sorted(blobs.keys() - used):
        report.findings.append(Finding("orphan", "blob", sha256, f"{blobs[sha256]} bytes that no backup refers to"))
    return report


def _fault_of(kind: str, key: str, look: Callable[[], None]) -> Finding | None:
    try:
        look()
    except ObjectNotFound:
        return Finding("missing", kind, key, "not in the backup")
    except IntegrityError as err:
        return Finding("corrupt", kind, key, str(err))
    return None


def _is_under(key: str, prefixes: set[str]) -> bool:
    """Tell whether one of the folders above a key is a known prefix."""
    return any(key[: at + 1] in prefixes for at, letter in enumerate(key) if letter == "/")


def _is_unsettled(key: str, jobs: set[str]) -> bool:
    if match := _JOB.match(key):
        return match[1] in jobs
    if match := _MADE.match(key):
        try:
            return datetime.now(UTC) - ULID.from_str(match[1].upper()).datetime < _SETTLED
        except ValueError:
            return False
    return False
