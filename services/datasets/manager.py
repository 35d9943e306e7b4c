"""Use cases of datasets: an import becomes an immutable version, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import structlog

from services.core import names
from services.core.errors import DatabaseUnavailable, DatasetNotFound, PlatformError, RequestInvalid, Violation
from services.core.ids import new_id
from services.core.retry import Backoff
from services.core.settings import Settings
from services.datasets.canonical import FAMILY
from services.datasets.child import CANONICAL_DIR
from services.datasets.detect import READERS
from services.datasets.limits import ImportLimits
from services.datasets.report import Report
from services.datasets.sandbox import run_import
from services.datasets.workplace import workplace
from services.db import datasets
from services.db.database import Database
from services.db.datasets import DatasetVersion, NewDatasetVersion
from services.db.paging import Key
from services.storage import layout
from services.storage.digest import hash_file
from services.storage.manifest import Manifest, upload_directory
from services.storage.port import ObjectStore

log = structlog.get_logger(__name__)

_INSERT_TRIES = 5
_INSERT_BACKOFF = Backoff(base_seconds=0.5, cap_seconds=5.0)
# Each import may use a core and gigabytes of memory.
_MAX_IMPORTS = 2


@dataclass(frozen=True, slots=True)
class _Import:
    """One create request, checked."""

    project: str
    request_id: str
    request_sha256: str
    dataset_id: str
    version_id: str
    archive_path: Path
    source_format: str | None
    display_name: str

    @property
    def prefix(self) -> str:
        return layout.dataset_prefix(self.project, self.dataset_id, self.version_id)


class DatasetManager:
    """Imports, finds and deletes datasets. Threads may share it; its methods block."""

    def __init__(
        self,
        database: Database,
        store: ObjectStore,
        settings: Settings,
        *,
        limits: ImportLimits | None = None,
        backoff: Backoff = _INSERT_BACKOFF,
    ) -> None:
        self._database = database
        self._store = store
        self._workplaces = settings.state_dir / "imports"
        self._limits = limits or ImportLimits()
        self._backoff = backoff
        self._slots = threading.BoundedSemaphore(_MAX_IMPORTS)

    def create(
        self,
        project: str,
        *,
        request_id: str,
        dataset_id: str,
        archive_path: Path,
        format: str | None = None,  # noqa: A002 - the word of the wire contract
        family: str = FAMILY,
        display_name: str = "",
        archive_sha256: str | None = None,
    ) -> DatasetVersion:
        """Import an archive as the next version of a dataset; the same request returns the same version.

        Waits for its turn while others import. The archive stays the caller's. `archive_sha256` saves
        reading it once more where the caller knows the digest.

        Raises:
            DatasetInvalid: everything wrong with the dataset.
            RequestInvalid: everything wrong with the request.
            IdempotencyConflict: the request_id was used for another request.
        """
        _check_request(dataset_id, format, family)
        body = [dataset_id, format, family, display_name, archive_sha256 or hash_file(archive_path)[1]]
        wanted = _Import(
            project=project,
            request_id=request_id or new_id(),
            request_sha256=hashlib.sha256(json.dumps(body).encode()).hexdigest(),
            dataset_id=dataset_id,
            version_id=new_id(),
            archive_path=archive_path,
            source_format=format,
            display_name=display_name,
        )
        if (known := self._find(wanted)) is not None:
            return known
        with self._slots, workplace(self._workplaces) as work:
            report = run_import(archive_path, work, source_format=format, limits=self._limits)
            return self._publish(wanted, work / CANONICAL_DIR, report)

    def get(self, project: str, dataset_id: str, version: int | None = None) -> DatasetVersion:
        with self._database.read() as session:
            return datasets.get(session, project, dataset_id, version)

    def list(
        self, project: str, *, page_size: int, after: Key | None = None, family: str | None = None
    ) -> list[DatasetVersion]:
        """Return the newest versions of a project's datasets, newest first, after the last one seen."""
        with self._database.read() as session:
            return datasets.page(session, project, page_size=page_size, after=after, family=family)

    def delete(self, project: str, dataset_id: str) -> None:
        """Hide a dataset at once; the controller removes its objects when nothing reads them any more."""
        with self._database.write() as session:
            datasets.delete(session, project, dataset_id)

    def _find(self, wanted: _Import) -> DatasetVersion | None:
        try:
            with self._database.read() as session:
                return datasets.find_request(session, wanted.project, wanted.request_id, wanted.request_sha256)
        except DatasetNotFound:
            return None

    def _publish(self, wanted: _Import, canonical: Path, report: Report) -> DatasetVersion:
        """Upload, then insert the row: until then nobody knows the prefix, and on failure it is emptied."""
        try:
            manifest = upload_directory(self._store, wanted.prefix, canonical, meta={"kind": "dataset"})
        except BaseException:
            self._discard(wanted.prefix)
            raise
        try:
            version, _ = self._insert(_row(wanted, manifest, report))
        except DatabaseUnavailable:
            # The row may have been stored, so its objects stay; the controller's sweep decides later.
            log.warning("dataset_insert_unknown", project=wanted.project, version_id=wanted.version_id)
            raise
        except BaseException:
            self._discard(wanted.prefix)
            raise
        if version.id != wanted.version_id:
            # The same request ran twice at once and the other one was first.
            self._discard(wanted.prefix)
        log.info("dataset_imported", project=wanted.project, dataset=wanted.dataset_id, version=version.version)
        return version

    def _insert(self, row: NewDatasetVersion) -> tuple[DatasetVersion, bool]:
        rng = random.Random()
        for attempt in range(1, _INSERT_TRIES):
            try:
                with self._database.write() as session:
                    return datasets.insert(session, row)
            except DatabaseUnavailable:
                time.sleep(self._backoff.delay_seconds(attempt, rng))
        with self._database.write() as session:
            return datasets.insert(session, row)

    def _discard(self, prefix: str) -> None:
        try:
            self._store.delete_prefix(prefix)
        except PlatformError as err:
            # Orphans without a row are harmless; the controller's sweep removes them.
            log.warning("dataset_orphans_left", prefix=prefix, error=str(err))


def _check_request(dataset_id: str, source_format: str | None, family: str) -> None:
    violations = []
    if not names.SLUG.fullmatch(dataset_id):
        violations.append(Violation("dataset_id", f"{dataset_id!r} is not a valid id: {names.SLUG_RULE}"))
    if source_format is not None and source_format not in READERS:
        known = ", ".join(READERS)
        violations.append(Violation("format", f"{source_format!r} is not known; use one of {known} or none"))
    if family != FAMILY:
        violations.append(Violation("family", f"{family!r} cannot be imported; use {FAMILY!r}"))
    if violations:
        raise RequestInvalid(violations=violations)


def _row(wanted: _Import, manifest: Manifest, report: Report) -> NewDatasetVersion:
    return NewDatasetVersion(
        id=wanted.version_id,
        project=wanted.project,
        dataset_id=wanted.dataset_id,
        request_id=wanted.request_id,
        request_sha256=wanted.request_sha256,
        family=FAMILY,
        format=report.format,
        classes=report.classes,
        counts={name: {"images": split.images, "boxes": split.boxes} for name, split in report.splits.items()},
        manifest_key=layout.manifest(wanted.prefix),
        manifest_sha256=manifest.sha256(),
        size_bytes=manifest.size_bytes,
        report={**report.model_dump(mode="json"), "display_name": wanted.display_name},
    )
