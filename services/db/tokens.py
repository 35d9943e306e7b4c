"""API tokens: only the sha256 of their secrets is stored, and the database's clock says when they end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from services.core.errors import TokenNotFound
from services.core.roles import Role
from services.db import projects
from services.db import tables as t
from services.db.records import columns_of
from services.db.session import Session
from services.db.types import now
from services.db.upsert import insert_into


@dataclass(frozen=True, slots=True, kw_only=True)
class NewToken:
    """A token to store; `sha256` is that of its secret, and no lifetime means that it does not end."""

    id: str
    project: str
    role: Role
    sha256: str
    note: str = ""
    lifetime_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What may be shown of a token."""

    id: str
    project: str
    role: Role
    note: str
    create_time: datetime
    expire_time: datetime | None
    revoke_time: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What a check of a token needs, as of the database's clock."""

    id: str
    project: str
    role: Role
    sha256: str
    is_revoked: bool
    seconds_left: float | None
    """Until it expires, negative once it did; None: never."""


_COLUMNS = columns_of(Token, t.tokens)
_token = t.tokens.c
_FIND = sa.select(
    _token.id, _token.project, _token.role, _token.sha256, _token.revoke_time, _token.expire_time, now().label("at")
).where(_token.id == sa.bindparam("id"))


def insert(session: Session, new: NewToken) -> Token:
    """Store a token.

    Raises:
        ProjectNotFound: there is no such project.
    """
    projects.get(session, new.project)
    row = session.execute(sa.insert(t.tokens).values(_values(new)).returning(*_COLUMNS)).one()
    return _to_token(row)


def put(session: Session, new: NewToken) -> Token:
    """Store a token whose secret an operator chose, with its project; another secret replaces the one before.

    The same secret changes nothing, so one that was revoked stays revoked. Safe to repeat.
    """
    projects.ensure(session, new.project)
    given = _values(new)
    statement = insert_into(session.dialect, t.tokens).values(given)
    renewed = {name: statement.excluded[name] for name in given if name != "id"}
    statement = statement.on_conflict_do_update(
        index_elements=["id"],
        set_={**renewed, "revoke_time": None},
        where=_token.sha256 != statement.excluded.sha256,
    )
    session.execute(statement)
    return _get(session, new.id)


def find(session: Session, token_id: str) -> Credential | None:
    """Return what a check of the token needs, or None where there is none of this id."""
    row = session.execute(_FIND, {"id": token_id}).one_or_none()
    if row is None:
        return None
    left = None if row.expire_time is None else (row.expire_time - row.at).total_seconds()
    return Credential(
        id=row.id,
        project=row.project,
        role=Role(row.role),
        sha256=row.sha256,
        is_revoked=row.revoke_time is not None,
        seconds_left=left,
    )


def revoke(session: Session, token_id: str) -> Token:
    """End a token now; the time of the first revocation stays. Safe to repeat.

    Raises:
        TokenNotFound: there is none of this id.
    """
    values = {"revoke_time": sa.func.coalesce(_token.revoke_time, now())}
    session.execute(sa.update(t.tokens).where(_token.id == token_id).values(values))
    return _get(session, token_id)


def list_all(session: Session, project: str | None = None) -> list[Token]:
    """Return the tokens of one project or of all, newest first."""
    query = sa.select(*_COLUMNS).order_by(_token.create_time.desc(), _token.id.desc())
    if project is not None:
        query = query.where(_token.project == project)
    return [_to_token(row) for row in session.execute(query)]


def _get(session: Session, token_id: str) -> Token:
    row = session.execute(sa.select(*_COLUMNS).where(_token.id == token_id)).one_or_none()
    if row is None:
        raise TokenNotFound(f"there is no token {token_id!r}; `trainyard admin token list` shows all")
    return _to_token(row)


def _values(new: NewToken) -> dict[str, Any]:
    return {
        "id": new.id,
        "project": new.project,
        "role": new.role.value,
        "note": new.note,
        "sha256": new.sha256,
        "create_time": now(),
        "expire_time": None if new.lifetime_seconds is None else now(new.lifetime_seconds),
    }


def _to_token(row: sa.Row[Any]) -> Token:
    return Token(**{**row._mapping, "role": Role(row.role)})
