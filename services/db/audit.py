"""Who did what: lines that are only ever added, those of writes in the transaction of the write.

A call that is to be audited sets `pending` before it runs. The first transaction that runs in its
context carries the line along, so that a change and its line are stored together or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa

from services.core.ids import new_id
from services.db import tables as t
from services.db.paging import Key, newest_first
from services.db.records import columns_of
from services.db.session import Session
from services.db.types import now

if TYPE_CHECKING:
    from services.db.database import Database

OK = "OK"


@dataclass(slots=True, kw_only=True)
class AuditLine:
    """One action, by whom, on what and how it ended. Nothing in it is secret."""

    action: str
    """`/package.Service/Method`, or a command of the administrator."""
    project: str = ""
    token_id: str = ""
    peer: str = ""
    resource: str = ""
    outcome: str = OK
    """OK, or the name of a status code."""
    request_id: str = ""


@dataclass(slots=True)
class Pending:
    """The line of a running call. `is_stored` once a transaction of the call committed with it."""

    line: AuditLine
    is_stored: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A line as it was stored."""

    id: str
    project: str
    token_id: str
    peer: str
    action: str
    resource: str
    outcome: str
    request_id: str
    create_time: datetime


pending: ContextVar[Pending | None] = ContextVar("audit_pending", default=None)

_COLUMNS = columns_of(Stored, t.audit_lines)
_INSERT = sa.insert(t.audit_lines).values(create_time=now())


def write(session: Session, lines: Sequence[AuditLine]) -> None:
    """Store lines in the order given."""
    if lines:
        session.execute(_INSERT, [{"id": new_id(), **asdict(line)} for line in lines])


@contextmanager
def writing(database: Database) -> Iterator[Session]:
    """Open a transaction that stores the line of the running call with what it writes."""
    found = pending.get()
    with database.write() as session:
        yield session
        if found is not None and not found.is_stored:
            write(session, [found.line])
    if found is not None:
        found.is_stored = True


def name_resource(name: str) -> None:
    """Note what the running call made, for its line."""
    found = pending.get()
    if found is not None:
        found.line.resource = name


def page(
    session: Session,
    *,
    project: str | None = None,
    token_id: str | None = None,
    page_size: int,
    after: Key | None = None,
) -> list[Stored]:
    """Return lines, newest first, that come after the (create_time, id) last seen."""
    query = sa.select(*_COLUMNS)
    if project is not None:
        query = query.where(t.audit_lines.c.project == project)
    if token_id is not None:
        query = query.where(t.audit_lines.c.token_id == token_id)
    query = newest_first(query, t.audit_lines, page_size=page_size, after=after)
    return [Stored(**row._mapping) for row in session.execute(query)]
