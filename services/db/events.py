"""The history of a job: numbered from 1 without gaps, in the order of commits.

Numbers come from `jobs.event_seq` under the job's row lock, never from a sequence: whoever has read
up to n misses nothing by asking for what follows n.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from services.core.errors import LeaseLost
from services.db import fence
from services.db import tables as t
from services.db.changes import announce
from services.db.job_records import Event, Lease
from services.db.session import Session
from services.db.types import now

_INSERT = sa.insert(t.events).values(create_time=now())

Line = tuple[int, int, str, Mapping[str, Any]]
"""One event to write: seq, token, kind, payload."""


def append_event(session: Session, lease: Lease, kind: str, payload: Mapping[str, Any]) -> int:
    """Append one event of a running attempt and return its number; see `append_events`."""
    return append_events(session, lease, [(kind, payload)])


def append_events(session: Session, lease: Lease, lines: Sequence[tuple[str, Mapping[str, Any]]]) -> int:
    """Append events of a running attempt in order and return the number of the last one.

    The last payload of kind `step` with `step` and `total` also becomes the job's progress. Not
    idempotent: a call repeated after DatabaseUnavailable may write its lines twice.

    Raises:
        LeaseLost: the token is no longer the job's.
    """
    announce(session)
    values: dict[str, Any] = {"event_seq": t.jobs.c.event_seq + len(lines), "update_time": now()}
    for kind, payload in reversed(lines):
        if kind == "step" and "step" in payload:
            values |= {"progress_step": payload["step"], "progress_total": payload.get("total", 0)}
            break
    update = sa.update(t.jobs).where(fence.is_held(lease)).values(values).returning(t.jobs.c.event_seq)
    last: int | None = session.execute(update).scalar_one_or_none()
    if last is None:
        raise LeaseLost
    first = last - len(lines) + 1
    write(session, lease.job_id, [(first + i, lease.token, *line) for i, line in enumerate(lines)])
    return last


def events_after(session: Session, job_id: str, after_seq: int, limit: int) -> list[Event]:
    """Return up to `limit` events numbered above `after_seq`, in order; 0 starts at the beginning."""
    query = (
        sa.select(t.events.c.seq, t.events.c.token, t.events.c.kind, t.events.c.payload, t.events.c.create_time)
        .where(t.events.c.job_id == job_id, t.events.c.seq > after_seq)
        .order_by(t.events.c.seq)
        .limit(limit)
    )
    return [Event(*row) for row in session.execute(query)]


def write(session: Session, job_id: str, lines: Sequence[Line]) -> None:
    """Insert events whose numbers the caller took from `jobs.event_seq` in this same transaction."""
    rows = [
        {"job_id": job_id, "seq": seq, "token": token, "kind": kind, "payload": dict(payload)}
        for seq, token, kind, payload in lines
    ]
    if len(rows) == 1:
        session.execute(_INSERT, rows[0])
    elif rows:
        session.execute(_INSERT, rows)
