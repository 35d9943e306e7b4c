"""Every object that some row refers to: what must be stored, and what may be.

One place for backup and verification; a test holds it against the columns of the tables, so that a new
kind of object cannot be forgotten.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from services.db import tables as t
from services.db.garbage import deleted_jobs
from services.db.session import Session
from services.storage import layout

BATCH = 1000

COLUMNS = frozenset(
    {
        "dataset_versions.manifest_key",
        "checkpoints.prefix",
        "artifacts.key",
        "model_versions.bundle_prefix",
        "archives.key",
        "identity_images.key",
    }
)
"""The columns that hold keys or prefixes of objects."""


@dataclass(frozen=True, slots=True)
class Reference:
    """One object that a committed fact needs: a manifest, which lists more of them beside it, or a plain object."""

    kind: str
    key: str
    sha256: str
    is_manifest: bool

    @property
    def prefix(self) -> str:
        """Where the files of a manifest lie."""
        return self.key.removesuffix(layout.MANIFEST)


def required(session: Session) -> Iterator[Reference]:
    """Yield what every reader may rely on, kind by kind."""
    dataset, checkpoint, model = t.dataset_versions.c, t.checkpoints.c, t.model_versions.c
    artifact, archive, image = t.artifacts.c, t.archives.c, t.identity_images.c
    manifests = {
        "dataset": sa.select(dataset.manifest_key, dataset.manifest_sha256).where(dataset.purge_time.is_(None)),
        "checkpoint": sa.select(checkpoint.prefix + layout.MANIFEST, checkpoint.manifest_sha256).where(
            checkpoint.state == "committed"
        ),
        "model": sa.select(model.bundle_prefix + layout.MANIFEST, model.bundle_sha256).where(model.bundle_sha256 != ""),
    }
    plain = {
        "artifact": sa.select(artifact.key, artifact.sha256),
        "archive": sa.select(archive.key, archive.sha256).where(archive.state == "ready"),
        "image": sa.select(image.key, image.sha256),
    }
    for is_manifest, queries in ((True, manifests), (False, plain)):
        for kind, query in queries.items():
            for key, sha256 in session.execute(query, execution_options={"yield_per": BATCH}):
                yield Reference(kind, key, sha256, is_manifest)


def known_prefixes(session: Session) -> set[str]:
    """Return the prefixes that rows of any state have; what lies under one is nobody's orphan."""
    checkpoints = session.scalars(sa.select(t.checkpoints.c.prefix))
    bundles = session.scalars(sa.select(t.model_versions.c.bundle_prefix).where(t.model_versions.c.bundle_prefix != ""))
    manifests = session.scalars(sa.select(t.dataset_versions.c.manifest_key))
    return {*checkpoints, *bundles, *(key.removesuffix(layout.MANIFEST) for key in manifests)}


def known_keys(session: Session) -> set[str]:
    """Return the keys of single objects that rows of any state have."""
    artifacts = session.scalars(sa.select(t.artifacts.c.key))
    archives = session.scalars(sa.select(t.archives.c.key).where(t.archives.c.key.is_not(None)))
    images = session.scalars(sa.select(t.identity_images.c.key))
    return {*artifacts, *archives, *images}


def unsettled_jobs(session: Session, job_ids: Collection[str]) -> set[str]:
    """Return those jobs whose objects may lack rows for now: rows are to come, or the objects are to go."""
    found = deleted_jobs(session, job_ids)
    ids = sorted(job_ids)
    for start in range(0, len(ids), BATCH):
        is_open = t.jobs.c.end_time.is_(None)
        query = sa.select(t.jobs.c.id).where(t.jobs.c.id.in_(ids[start : start + BATCH]), is_open)
        found.update(session.scalars(query))
    return found
