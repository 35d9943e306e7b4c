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
from services.core.errors import (
    DatabaseUnavailable,
    DatasetNotFound,
    LimitExceeded,
    PlatformError,
    RequestInvalid,
    Violation,
)
from services.core.ids import new_id
from services.core.retry import Backoff
from services.core.settings import Settings
from services.datasets.address import Guard
from services.datasets.errand import CANONICAL_DIR
from services.datasets.fetch import Fetcher, FetchLimits, digest_of_request
from services.datasets.formats import request_faults
from services.datasets.limits import ImportLimits
from services.datasets.report import Report
from services.datasets.sandbox import run_import
from services.datasets.split_rule import SplitRule
from services.datasets.workplace import workplace
from services.db import audit, datasets, quotas
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
_MAX_FETCHES = 4
# Each import may use a core and gigabytes of memory.
_MAX_IMPORTS = 2
_DEFAULT_RULE = SplitRule()


@dataclass(frozen=True, slots=True)
class _Import:
    """One create request, checked."""

    project: str
    request_id: str
    request_sha256: str
    dataset_id: str
    version_id: str
    archive_path: Path
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
        fetcher: Fetcher | None = None,
        backoff: Backoff = _INSERT_BACKOFF,
    ) -> None:
        self._database = database
        self._store = store
        self._workplaces = settings.state_dir / "imports"
        self._limits = limits or ImportLimits()
        self._fetcher = fetcher or _fetcher(settings)
        self._fetching = threading.BoundedSemaphore(_MAX_FETCHES)
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
        family: str | None = None,
        rule: SplitRule = _DEFAULT_RULE,
        display_name: str = "",
        source_sha256: str | None = None,
    ) -> DatasetVersion:
        """Import an archive as the next version of a dataset; the same request returns the same version.

        Waits for its turn while others import. The archive stays the caller's. `source_sha256` is the digest
        of what the request named, by default of the archive. `rule` makes a val split where there is none.

        Raises:
            DatasetInvalid: everything wrong with the dataset.
            RequestInvalid: everything wrong with the request.
            IdempotencyConflict: the request_id was used for another request.
            QuotaExceeded: the project would store more than it may.
        """
        _check_request(dataset_id, format, family)
        digest = source_sha256 or hash_file(archive_path)[1]
        wanted = _Import(
            project=project,
            request_id=request_id or new_id(),
            request_sha256=_body_digest(dataset_id, format, family, rule.model_dump_json(), display_name, digest),
            dataset_id=dataset_id,
            version_id=new_id(),
            archive_path=archive_path,
            display_name=display_name,
        )
        if (known := self._find_request(project, wanted.request_id, wanted.request_sha256)) is not None:
            return known
        self.check_room(project)
        with self._slots, workplace(self._workplaces) as work:
            report = run_import(archive_path, work, source_format=format, limits=self._limits, family=family, rule=rule)
            return self._publish(wanted, work / CANONICAL_DIR, report)

    def create_from_url(
        self,
        project: str,
        *,
        url: str,
        request_id: str,
        dataset_id: str,
        format: str | None = None,  # noqa: A002 - the word of the wire contract
        family: str | None = None,
        rule: SplitRule = _DEFAULT_RULE,
        display_name: str = "",
        sha256: str = "",
        abandoned: threading.Event | None = None,
    ) -> DatasetVersion:
        """Fetch an archive and import it; the same request returns the same version, whatever the address holds then.

        Setting `abandoned` ends a fetch, not an import.

        Raises:
            DatasetInvalid: everything wrong with the dataset.
            RequestInvalid: the request is wrong, or the address may not be fetched.
            SourceUnavailable: the address does not answer with an archive.
            LimitExceeded: the archive is too large, or too many are being fetched.
            QuotaExceeded: the project would store more than it may.
        """
        _check_request(dataset_id, format, family)
        digest = digest_of_request(url, sha256)
        request_sha256 = _body_digest(dataset_id, format, family, rule.model_dump_json(), display_name, digest)
        if request_id and (known := self._find_request(project, request_id, request_sha256)):
            return known
        self.check_room(project)
        if not self._fetching.acquire(blocking=False):
            raise LimitExceeded(f"{_MAX_FETCHES} datasets are being fetched; try again later")
        with workplace(self._workplaces) as work:
            try:
                fetched = self._fetcher.fetch(url, work / "fetched", sha256=sha256, abandoned=abandoned)
            finally:
                self._fetching.release()
            return self.create(
                project,
                request_id=request_id,
                dataset_id=dataset_id,
                archive_path=fetched.path,
                format=format,
                family=family,
                rule=rule,
                display_name=display_name,
                source_sha256=digest,
            )

    def check_room(self, project: str, request_id: str = "") -> None:
        """Refuse what would only fail at its end; a repetition of a request that was stored needs no room.

        Raises:
            QuotaExceeded: the project stores all it may.
        """
        with self._database.read() as session:
            if not datasets.has_request(session, project, request_id):
                quotas.check_stored(session, project)

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
        with audit.writing(self._database) as session:
            datasets.delete(session, project, dataset_id)

    def _find_request(self, project: str, request_id: str, request_sha256: str) -> DatasetVersion | None:
        try:
            with self._database.read() as session:
                return datasets.find_request(session, project, request_id, request_sha256)
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
                return self._insert_once(row)
            except DatabaseUnavailable:
                time.sleep(self._backoff.delay_seconds(attempt, rng))
        return self._insert_once(row)

    def _insert_once(self, row: NewDatasetVersion) -> tuple[DatasetVersion, bool]:
        audit.name_resource(names.dataset(row.project, row.dataset_id))
        with audit.writing(self._database) as session:
            version, is_new = datasets.insert(session, row)
            if is_new:
                quotas.check_stored(session, row.project, added=row.size_bytes)
            return version, is_new

    def _discard(self, prefix: str) -> None:
        try:
            self._store.delete_prefix(prefix)
        except PlatformError as err:
            # Orphans without a row are harmless; the controller's sweep removes them.
            log.warning("dataset_orphans_left", prefix=prefix, error=str(err))


def _fetcher(settings: Settings) -> Fetcher:
    limits = FetchLimits(max_bytes=settings.api_upload_limit_bytes)
    return Fetcher(Guard.of_setting(settings.dataset_url_hosts), limits)


def _check_request(dataset_id: str, source_format: str | None, family: str | None) -> None:
    violations = []
    if not names.SLUG.fullmatch(dataset_id):
        violations.append(Violation("dataset_id", f"{dataset_id!r} is not a valid id: {names.SLUG_RULE}"))
    violations += [Violation(field, fault) for field, fault in request_faults(source_format, family)]
    if violations:
        raise RequestInvalid(violations=violations)


def _body_digest(*body: str | None) -> str:
    """Return what makes two requests the same: the same fields in the same order, the source's digest last."""
    return hashlib.sha256(json.dumps(list(body)).encode()).hexdigest()


def _row(wanted: _Import, manifest: Manifest, report: Report) -> NewDatasetVersion:
    return NewDatasetVersion(
        id=wanted.version_id,
        project=wanted.project,
        dataset_id=wanted.dataset_id,
        request_id=wanted.request_id,
        request_sha256=wanted.request_sha256,
        family=report.family,
        format=report.format,
        classes=report.classes,
        counts={name: split.units() for name, split in report.splits.items()},
        manifest_key=layout.manifest(wanted.prefix),
        manifest_sha256=manifest.sha256(),
        size_bytes=manifest.size_bytes,
        report={**report.model_dump(mode="json", exclude_none=True), "display_name": wanted.display_name},
    )
