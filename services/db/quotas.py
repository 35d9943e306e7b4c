"""Quotas of projects, checked where work is taken in and where it starts.

Checks happen in the transaction of the write, and those take turns, so that no two pass together. A
project without a quota waits and counts nothing.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from services.core.errors import QuotaExceeded
from services.core.units import human_bytes
from services.db import tables as t
from services.db.session import Session

_CLAIMS, _INTAKE = 7_305_210_966_158_101, 7_305_210_966_158_102
"""Any constants: keys of advisory locks."""
_RAISE = "raise the limit with `trainyard admin project set-quota {project} --{quota} N`"
_project = t.projects.c


def is_below_running_quota() -> ColumnElement[bool]:
    """Tell of each row of `jobs` whether its project may have one more running.

    The projects that are full are found once a statement, not once a row. Callers that claim run
    `take_turns` before.
    """
    running = t.jobs.alias("running")
    # Spelled out as in the partial index, which a planner matches only by the constant itself.
    is_running = running.c.state == sa.literal_column("'running'")
    count = (
        sa.select(sa.func.count()).select_from(running).where(running.c.project == _project.id, is_running)
    ).scalar_subquery()
    full = sa.select(_project.id).where(_project.max_running_jobs.is_not(None), _project.max_running_jobs <= count)
    return t.jobs.c.project.not_in(full)


def take_turns(session: Session) -> None:
    """Let one transaction at a time claim jobs, where any project has a running quota; SQLite always does."""
    if session.dialect == "postgresql":
        has_quota = sa.exists().where(_project.max_running_jobs.is_not(None))
        session.execute(sa.select(sa.func.pg_advisory_xact_lock(_CLAIMS)).where(has_quota))


def is_running_full(session: Session, project: str) -> bool:
    """Return whether a project runs as many jobs as it may."""
    limit = _limit(session, project, _project.max_running_jobs)
    return limit is not None and job_counts(session, project)[0] >= limit


def check_queued(session: Session, project: str) -> None:
    """Check that the jobs waiting now, with those of this transaction, are within the quota.

    Raises:
        QuotaExceeded: they are more.
    """
    limit = _limit(session, project, _project.max_queued_jobs)
    if limit is None:
        return
    waiting = sa.select(sa.literal(1)).where(t.jobs.c.project == project, t.IS_QUEUED).limit(limit + 1).subquery()
    if session.execute(sa.select(sa.func.count()).select_from(waiting)).scalar_one() > limit:
        raise QuotaExceeded(
            f"project {project!r} has {limit} queued jobs and may have no more; wait until one starts, cancel one, "
            f"or {_RAISE.format(project=project, quota='queued-jobs')}"
        )


def check_stored(session: Session, project: str, *, added: int = 0) -> None:
    """Check that the project's bytes are within the quota with the `added` ones that are stored already.

    Raises:
        QuotaExceeded: they are more, or nothing was left before.
    """
    limit = _limit(session, project, _project.max_stored_bytes)
    if limit is None:
        return
    stored = stored_bytes(session, project)
    if stored > limit or stored - added >= limit:
        asked = f", and this needs {human_bytes(added)} more" if added else ""
        raise QuotaExceeded(
            f"project {project!r} stores {human_bytes(stored - added)} of {human_bytes(limit)}{asked}; "
            f"delete datasets, models or checkpoints, or {_RAISE.format(project=project, quota='stored-bytes')}"
        )


def stored_bytes(session: Session, project: str) -> int:
    """Return the bytes of a project's datasets, checkpoints, artifacts, models, archives and kept images of faces."""
    versions = t.model_versions
    parts = [
        sa.select(t.dataset_versions.c.size_bytes).where(
            t.dataset_versions.c.project == project, t.dataset_versions.c.purge_time.is_(None)
        ),
        _of_jobs(t.checkpoints, project).where(t.checkpoints.c.state != "deleting"),
        _of_jobs(t.artifacts, project),
        sa.select(versions.c.size_bytes).where(versions.c.project == project),
        sa.select(t.archives.c.size_bytes)
        .join(versions, versions.c.id == t.archives.c.model_version_id)
        .where(versions.c.project == project),
        sa.select(t.identity_images.c.size_bytes)
        .join(t.identities, t.identities.c.id == t.identity_images.c.identity_uid)
        .join(t.galleries, t.galleries.c.id == t.identities.c.gallery_uid)
        .where(t.galleries.c.project == project),
    ]
    sums = [
        sa.select(sa.func.coalesce(sa.func.sum(part.subquery().c.size_bytes), 0)).scalar_subquery() for part in parts
    ]
    return sum(int(value) for value in session.execute(sa.select(*sums)).one())


def job_counts(session: Session, project: str) -> tuple[int, int]:
    """Return how many jobs of a project run and wait."""
    query = sa.select(sa.func.count().filter(t.IS_RUNNING), sa.func.count().filter(t.IS_QUEUED)).where(
        t.jobs.c.project == project, t.IS_LIVE
    )
    running, queued = session.execute(query).one()
    return running, queued


def _of_jobs(table: sa.Table, project: str) -> sa.Select[Any]:
    return sa.select(table.c.size_bytes).join(t.jobs, t.jobs.c.id == table.c.job_id).where(t.jobs.c.project == project)


def _limit(session: Session, project: str, column: ColumnElement[int | None]) -> int | None:
    """Return a project's limit, after this transaction's turn came where there is one; remembered for its length."""
    key = f"quota:{project}:{column.key}"
    if key not in session.info:
        session.info[key] = session.execute(sa.select(column).where(_project.id == project)).scalar_one_or_none()
    limit: int | None = session.info[key]
    if limit is not None and session.dialect == "postgresql" and not session.is_read and "quota" not in session.info:
        # One lock for all projects: two of them taken in another order would wait for each other.
        session.execute(sa.select(sa.func.pg_advisory_xact_lock(_INTAKE)))
        session.info["quota"] = True
    return limit
