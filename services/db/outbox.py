"""Side effects to carry out after a commit, at least once: webhooks, clean-up. Messages to workers need none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from services.core.ids import new_id
from services.db import tables as t
from services.db.changes import announce
from services.db.session import Session
from services.db.types import now
from services.db.upsert import insert_into


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One effect to carry out; `tries` counts from 1."""

    id: str
    kind: str
    key: str
    payload: dict[str, Any]
    tries: int


def put(session: Session, kind: str, key: str, payload: Mapping[str, Any], *, delay_seconds: float = 0.0) -> None:
    """Ask for an effect in the transaction that calls for it; one per (kind, key), so repeating is safe."""
    announce(session)
    insert = insert_into(session.dialect, t.outbox).values(
        id=new_id(),
        kind=kind,
        key=key,
        payload=dict(payload),
        tries=0,
        create_time=now(),
        not_before_time=now(delay_seconds),
    )
    session.execute(insert.on_conflict_do_nothing(index_elements=["kind", "key"]))


def take(session: Session, *, limit: int, retry_after_seconds: float) -> list[Item]:
    """Return effects that are due, oldest first, and hide them until `retry_after_seconds` from now.

    Carry each out after this transaction commits, then call `done`; one never done comes again.
    """
    item = t.outbox.c
    due = (
        sa.select(item.id)
        .where(item.done_time.is_(None), item.not_before_time <= now())
        .order_by(item.not_before_time)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    update = (
        sa.update(t.outbox)
        .where(item.id.in_(sa.select(due.c.id)), item.done_time.is_(None))
        .values(tries=item.tries + 1, not_before_time=now(retry_after_seconds))
        .returning(item.id, item.kind, item.key, item.payload, item.tries)
    )
    rows = session.execute(update).all()
    return sorted((Item(**row._mapping) for row in rows), key=lambda found: found.id)


def done(session: Session, item_id: str) -> None:
    """Note that an effect was carried out. Safe to repeat."""
    update = sa.update(t.outbox).where(t.outbox.c.id == item_id, t.outbox.c.done_time.is_(None))
    session.execute(update.values(done_time=now()))


def forget(session: Session, *, older_than_seconds: float) -> int:
    """Drop effects done long ago, and return how many; their keys may then be used again."""
    gone = sa.delete(t.outbox).where(t.outbox.c.done_time < now(-older_than_seconds)).returning(t.outbox.c.id)
    return len(session.execute(gone).all())
