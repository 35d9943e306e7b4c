"""Finds stored objects that no row owns: what a crash left between an upload and its commit.

The database is never guessed from the store: a listing only names candidates, and each goes only if the
rows say that nobody can commit it any more and that this has been so for a day.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import structlog
from ulid import ULID

from services.controller import metrics
from services.db import garbage
from services.db.database import Database
from services.storage import layout
from services.storage.port import ObjectStore

log = structlog.get_logger(__name__)

AGE = timedelta(hours=24)
ROOT = "projects/"
_CHECKPOINT = re.compile(r"projects/[^/]+/jobs/(?P<job>[^/]+)/checkpoints/\d+-(?P<token>\d+)/")
_ARTIFACT = re.compile(r"projects/[^/]+/jobs/(?P<job>[^/]+)/artifacts/.+")
_DATASET = re.compile(r"projects/[^/]+/datasets/[^/]+/(?P<id>[^/]+)/")
_BUNDLE = re.compile(r"projects/[^/]+/models/[^/]+/(?P<id>[^/]+)/bundle/")
_IMAGE = re.compile(r"projects/[^/]+/galleries/[^/]+/(?P<id>[^/]+)/.+")
_ARCHIVE = re.compile(r"projects/[^/]+/models/[^/]+/(?P<id>[^/]+)/archives/[^/]+/.+")


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class Candidates:
    """What the store holds: a prefix or key of each kind, with what its path tells."""

    checkpoints: dict[str, tuple[str, int]] = field(default_factory=dict)
    artifacts: dict[str, str] = field(default_factory=dict)
    datasets: dict[str, str] = field(default_factory=dict)
    bundles: dict[str, str] = field(default_factory=dict)
    archives: dict[str, str] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)

    def add(self, key: str) -> None:
        if match := _CHECKPOINT.match(key):
            self.checkpoints[match.group()] = match["job"], int(match["token"])
        elif match := _ARTIFACT.fullmatch(key):
            self.artifacts[key] = match["job"]
        elif match := _DATASET.match(key):
            self.datasets[match.group()] = match["id"]
        elif match := _BUNDLE.match(key):
            self.bundles[match.group()] = match["id"]
        elif match := _ARCHIVE.fullmatch(key):
            self.archives[key] = match["id"]
        elif match := _IMAGE.fullmatch(key):
            self.images[key] = match["id"]


class Sweep:
    """Removes orphans; one listing and a few queries a round."""

    def __init__(
        self, database: Database, store: ObjectStore, *, age: timedelta = AGE, clock: Callable[[], datetime] = _utc_now
    ) -> None:
        self._database = database
        self._store = store
        self._age = age
        self._clock = clock

    def tick(self) -> None:
        found = Candidates()
        for info in self._store.list(ROOT):
            found.add(info.key)
        for kind, orphan in self._orphans(found):
            log.info("orphan_removed", kind=kind, key=orphan)
            if orphan.endswith("/"):
                self._store.delete_prefix(orphan)
            else:
                self._store.delete(orphan)
            metrics.COLLECTED.labels(f"orphan_{kind}").inc()

    def _orphans(self, found: Candidates) -> list[tuple[str, str]]:
        age = self._age.total_seconds()
        with self._database.read() as session:
            # Who may still write is asked before what is known, so that a commit in between is seen.
            abandoned = garbage.abandoned_attempts(session, set(found.checkpoints.values()), older_than_seconds=age)
            ended = garbage.ended_jobs(session, set(found.artifacts.values()), older_than_seconds=age)
            # What an attempt wrote after its job was deleted has no row of its own that tells of an end.
            jobs = {job for job, _ in found.checkpoints.values()} | set(found.artifacts.values())
            deleted = garbage.deleted_jobs(session, jobs)
            building = garbage.versions_in_building(session, set(found.archives.values()))
            versions = garbage.known_versions(session, set(found.archives.values()))
            prefixes = garbage.known_prefixes(session, [*found.checkpoints, *found.bundles])
            manifests = {layout.manifest(prefix): prefix for prefix in found.datasets}
            keys = garbage.known_keys(session, [*found.artifacts, *found.archives, *found.images, *manifests])
        orphans = {
            "image": [k for k, made in found.images.items() if k not in keys and self._is_old(made)],
            "checkpoint": [
                p
                for p, (job, token) in found.checkpoints.items()
                if ((job, token) in abandoned or job in deleted) and p not in prefixes
            ],
            "artifact": [k for k, job in found.artifacts.items() if job in ended | deleted and k not in keys],
            "dataset": [p for k, p in manifests.items() if k not in keys and self._is_old(found.datasets[p])],
            "bundle": [p for p, made in found.bundles.items() if p not in prefixes and self._is_old(made)],
            "archive": [
                k
                for k, version in found.archives.items()
                # Of a version that was deleted nobody can publish one any more, however old its id says it is.
                if k not in keys and version not in building and (version not in versions or self._is_old(version))
            ],
        }
        return [(kind, orphan) for kind, of_kind in orphans.items() for orphan in of_kind]

    def _is_old(self, made_id: str) -> bool:
        """Tell whether an id was made long ago; ids carry the time of their making."""
        try:
            made = ULID.from_str(made_id.upper()).datetime
        except ValueError:
            return False
        return self._clock() - made > self._age
