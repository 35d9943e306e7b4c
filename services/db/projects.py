"""Projects: what tokens, names, lists and quotas belong to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from services.core import names
from services.core.errors import AlreadyExists, ProjectNotFound, RequestInvalid, Violation
from services.db import tables as t
from services.db.records import columns_of
from services.db.session import Session
from services.db.types import now
from services.db.upsert import insert_into


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """How much a project may hold; None is no limit."""

    max_running_jobs: int | None = None
    max_queued_jobs: int | None = None
    max_stored_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """One project and its quotas."""

    id: str
    max_running_jobs: int | None
    max_queued_jobs: int | None
    max_stored_bytes: int | None
    create_time: datetime


_COLUMNS = columns_of(Project, t.projects)


def insert(session: Session, project_id: str) -> Project:
    """Store a project without quotas.

    Raises:
        RequestInvalid: the id cannot be one.
        AlreadyExists: there is one of this id.
    """
    if not ensure(session, project_id):
        raise AlreadyExists(f"project {project_id!r} exists already")
    return get(session, project_id)


def ensure(session: Session, project_id: str) -> bool:
    """Store a project unless it exists, and return whether it is new. Safe to repeat.

    Raises:
        RequestInvalid: the id cannot be one.
    """
    names.check_slug(project_id, field="project")
    if "--" in project_id:
        # TorchServe knows a deployment as `project--deployment`, which must have one reading.
        raise RequestInvalid(violations=[Violation("project", f"{project_id!r} must not contain two hyphens in a row")])
    statement = insert_into(session.dialect, t.projects).values(id=project_id, create_time=now())
    found = session.execute(statement.on_conflict_do_nothing().returning(t.projects.c.id))
    return found.one_or_none() is not None


def get(session: Session, project_id: str) -> Project:
    """Return one project.

    Raises:
        ProjectNotFound: there is none of this id.
    """
    row = session.execute(sa.select(*_COLUMNS).where(t.projects.c.id == project_id)).one_or_none()
    if row is None:
        raise ProjectNotFound(
            f"there is no project {project_id!r}; make it with `trainyard admin project create {project_id}`"
        )
    return Project(**row._mapping)


def list_all(session: Session) -> list[Project]:
    """Return every project by id."""
    return [Project(**row._mapping) for row in session.execute(sa.select(*_COLUMNS).order_by(t.projects.c.id))]


def is_only(session: Session, project_id: str) -> bool:
    """Return whether the platform has this project and no other."""
    ids = session.scalars(sa.select(t.projects.c.id).limit(2)).all()
    return list(ids) == [project_id]


def set_quotas(session: Session, project_id: str, changes: dict[str, int | None]) -> Project:
    """Change the quotas named in `changes` (fields of Quotas); None takes a limit away.

    Raises:
        ProjectNotFound: there is no such project.
        RequestInvalid: a quota is negative.
    """
    violations = [
        Violation(name, f"must not be negative, but is {value}")
        for name, value in changes.items()
        if value is not None and value < 0
    ]
    if violations:
        raise RequestInvalid(violations=violations)
    values: dict[str, Any] = {name: changes[name] for name in changes if name in Quotas.__slots__}
    if values:
        session.execute(sa.update(t.projects).where(t.projects.c.id == project_id).values(values))
    return get(session, project_id)
