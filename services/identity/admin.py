"""What an administrator does on the database itself: projects, tokens, quotas. Each is recorded with who did it."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from services.core.roles import Role
from services.core.settings import Settings
from services.db import audit, projects, quotas, tokens
from services.db.audit import AuditLine, Stored
from services.db.database import Database
from services.db.paging import Key
from services.db.projects import Project
from services.db.session import Session
from services.db.tokens import NewToken, Token
from services.identity import token as token_text

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Usage:
    """A project and what it holds now."""

    project: Project
    running_jobs: int
    queued_jobs: int
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class Created:
    """A new token and, this once, its text."""

    token: Token
    text: str


class Admin:
    """One administrator at one database."""

    def __init__(self, database: Database, actor: str) -> None:
        self._database = database
        self._actor = actor

    def is_ready(self) -> bool:
        """Return whether the database has the schema of this code."""
        return self._database.is_at_head()

    def create_project(self, project_id: str) -> Project:
        """Raises RequestInvalid for an id that cannot be one, and AlreadyExists."""
        what = f"projects/{project_id}"
        return self._write("create", what, lambda session: projects.insert(session, project_id), project=project_id)

    def set_quotas(self, project_id: str, changes: dict[str, int | None]) -> Project:
        """Raises ProjectNotFound, and RequestInvalid for a negative quota."""
        what = f"projects/{project_id} " + " ".join(f"{name}={value}" for name, value in sorted(changes.items()))
        return self._write(
            "set-quota", what, lambda session: projects.set_quotas(session, project_id, changes), project=project_id
        )

    def list_projects(self) -> list[Usage]:
        with self._database.read() as session:
            return [
                Usage(one, *quotas.job_counts(session, one.id), quotas.stored_bytes(session, one.id))
                for one in projects.list_all(session)
            ]

    def create_token(self, project_id: str, role: Role, *, note: str, lifetime_seconds: float | None) -> Created:
        """Raises ProjectNotFound."""
        text = token_text.generate(project_id)
        parsed = token_text.parse(text)
        assert parsed is not None
        new = NewToken(
            id=parsed.id,
            project=project_id,
            role=role,
            sha256=parsed.sha256,
            note=note,
            lifetime_seconds=lifetime_seconds,
        )
        what = f"projects/{project_id}/tokens/{new.id} {role}"
        stored = self._write("create", what, lambda session: tokens.insert(session, new), project=project_id)
        return Created(stored, text)

    def revoke_token(self, token_id: str) -> Token:
        """Raises TokenNotFound."""
        with self._database.read() as session:
            known = tokens.find(session, token_id)
        what, project = f"tokens/{token_id}", "" if known is None else known.project
        return self._write("revoke", what, lambda session: tokens.revoke(session, token_id), project=project)

    def list_tokens(self, project_id: str | None) -> list[Token]:
        with self._database.read() as session:
            return tokens.list_all(session, project_id)

    def audit_lines(self, *, project: str | None, token_id: str | None, limit: int) -> Iterator[Stored]:
        """Yield up to `limit` lines of the audit log, newest first."""
        after: Key | None = None
        while limit > 0:
            with self._database.read() as session:
                size = min(limit, 500)
                found = audit.page(session, project=project, token_id=token_id, page_size=size, after=after)
            yield from found
            if len(found) < size:
                return
            limit -= size
            after = (found[-1].create_time, found[-1].id)

    def _write(self, verb: str, resource: str, change: Callable[[Session], T], *, project: str = "") -> T:
        with self._database.write() as session:
            done = change(session)
            line = AuditLine(action=f"admin {verb}", project=project, peer=self._actor, resource=resource)
            audit.write(session, [line])
        return done


@contextmanager
def open_admin(settings: Settings) -> Iterator[Admin]:
    """Open the database of the settings for an administrator: the user of this process."""
    database = Database(settings.resolved_database_url)
    try:
        yield Admin(database, f"{_user()}@{socket.gethostname()}")
    finally:
        database.dispose()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A user id without a name, as in a container.
        return "unknown"
