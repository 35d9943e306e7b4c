"""What the collector needs to know: which jobs have checkpoints to retire, and which stored prefixes nobody owns."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from services.db import tables as t
from services.db.deletion import DELETE_OBJECTS
from services.db.session import Session
from services.db.types import now

BATCH = 500


def jobs_to_tidy(session: Session, *, keep_last: int, changed_within_seconds: float) -> dict[str, str]:
    """Return the recipes, by job, of jobs that changed lately and have more than `keep_last` checkpoints, or one whose deletion is begun."""
    row = t.checkpoints.c
    count = sa.func.count()
    is_deleting = sa.func.max(sa.case((row.state == "deleting", 1), else_=0))
    query = (
        sa.select(row.job_id, t.jobs.c.recipe)
        .join_from(t.checkpoints, t.jobs, row.job_id == t.jobs.c.id)
        .where(row.state.in_(("committed", "deleting")))
        .group_by(row.job_id, t.jobs.c.recipe, t.jobs.c.update_time)
        .having((is_deleting == 1) | ((count > keep_last) & (t.jobs.c.update_time > now(-changed_within_seconds))))
    )
    return {row.job_id: row.recipe for row in session.execute(query)}


def pinned_checkpoints(session: Session, job_id: str) -> set[str]:
    """Return the checkpoints that a model version of the job is still to be packaged from, or a job to start from."""
    version = t.model_versions.c
    query = sa.select(version.checkpoint_id).where(version.job_id == job_id, version.bundle_sha256 == "")
    packaged = {checkpoint_id for checkpoint_id in session.execute(query).scalars() if checkpoint_id}
    of_job = sa.select(t.checkpoints.c.id).where(t.checkpoints.c.job_id == job_id)
    started = sa.select(t.jobs.c.source_checkpoint_id).where(t.IS_LIVE, t.jobs.c.source_checkpoint_id.in_(of_job))
    return packaged | set(session.execute(started).scalars())


def abandoned_attempts(
    session: Session, attempts: Collection[tuple[str, int]], *, older_than_seconds: float
) -> set[tuple[str, int]]:
    """Return those (job id, token) whose attempt ended that long ago: they can write nothing any more."""
    return {
        (row.job_id, row.token)
        for batch in _batches(sorted({job_id for job_id, _ in attempts}))
        for row in session.execute(
            sa.select(t.attempts.c.job_id, t.attempts.c.token).where(
                t.attempts.c.job_id.in_(batch), t.attempts.c.end_time < now(-older_than_seconds)
            )
        )
        if (row.job_id, row.token) in attempts
    }


def ended_jobs(session: Session, job_ids: Collection[str], *, older_than_seconds: float) -> set[str]:
    """Return those jobs that ended that long ago."""
    is_old = t.jobs.c.end_time < now(-older_than_seconds)
    return _found(session, t.jobs.c.id, job_ids, is_old)


def deleted_jobs(session: Session, job_ids: Collection[str]) -> set[str]:
    """Return those jobs that were deleted, as the outbox remembers for some days; no row alone proves nothing."""
    return _found(session, t.outbox.c.key, job_ids, t.outbox.c.kind == DELETE_OBJECTS)


def known_prefixes(session: Session, prefixes: Collection[str]) -> set[str]:
    """Return those that a checkpoint or a model bundle has."""
    found = _found(session, t.checkpoints.c.prefix, prefixes)
    return found | _found(session, t.model_versions.c.bundle_prefix, prefixes)


def known_keys(session: Session, keys: Collection[str]) -> set[str]:
    """Return those that an artifact, a dataset's manifest, an archive or an enrolled identity has."""
    columns = (t.artifacts.c.key, t.dataset_versions.c.manifest_key, t.archives.c.key, t.identity_images.c.key)
    return {key for column in columns for key in _found(session, column, keys)}


def known_versions(session: Session, version_ids: Collection[str]) -> set[str]:
    """Return those model versions that were not deleted."""
    return _found(session, t.model_versions.c.id, version_ids)


def versions_in_building(session: Session, version_ids: Collection[str]) -> set[str]:
    """Return those model versions that have an archive not built yet."""
    is_open = t.archives.c.state.in_(("queued", "building"))
    return _found(session, t.archives.c.model_version_id, version_ids, is_open)


def _found(session: Session, column: Any, values: Collection[str], *conditions: Any) -> set[str]:
    found: set[str] = set()
    for batch in _batches(sorted(values)):
        found.update(session.execute(sa.select(column).where(column.in_(batch), *conditions)).scalars())
    return found


def _batches(values: list[str]) -> list[list[str]]:
    return [values[start : start + BATCH] for start in range(0, len(values), BATCH)]
