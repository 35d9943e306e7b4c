"""The history of a job: numbered from 1 without gaps, in the order of commits.

Numbers come from `jobs.event_seq` under the job's row lock, never from a sequence: whoever has read
up to n misses nothing by asking for what follows n.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

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


def append_events(
    session: Session, lease: Lease, lines: Sequence[tuple[str, Mapping[str, Any]]], *, position: int | None = None
) -> int:
    """Append events of a running attempt in order and return the number of the job's newest one.

    The last payload of kind `step` with `step` and `total` also becomes the job's progress. `position` is
    how many lines the attempt wrote before these: with it a call repeated after DatabaseUnavailable, with
    the very same lines, writes them once.

    Raises:
        LeaseLost: the token is no longer the job's.
    """
    announce(session)
    if position is not None and _lines_written(session, lease) == position + len(lines):
        return _newest_seq(session, lease)
    values: dict[str, Any] = {"event_seq": t.jobs.c.event_seq + len(lines), "update_time": now()}
    for kind, payload in reversed(lines):
        if kind == "step" and "step" in payload:
            saved, step = t.jobs.c.checkpoint_step, payload["step"]
            # A checkpoint is committed at once, lines are written together: it may be further than its own step's line.
            values["progress_step"] = sa.case((saved > step, saved), else_=step)
            values["progress_total"] = payload.get("total", 0)
            break
    update = sa.update(t.jobs).where(fence.is_held(lease)).values(values).returning(t.jobs.c.event_seq)
    last: int | None = session.execute(update).scalar_one_or_none()
    if last is None:
        raise LeaseLost
    if position is not None:
        _count_lines(session, lease, position, position + len(lines))
    first = last - len(lines) + 1
    write(session, lease.job_id, [(first + i, lease.token, *line) for i, line in enumerate(lines)])
    return last


def _lines_written(session: Session, lease: Lease) -> int | None:
    found: int | None = session.execute(sa.select(t.attempts.c.num_lines).where(_attempt(lease))).scalar_one_or_none()
    return found


def _count_lines(session: Session, lease: Lease, before: int, after: int) -> None:
    counted = sa.update(t.attempts).where(_attempt(lease), t.attempts.c.num_lines == before).values(num_lines=after)
    if session.execute(counted.returning(t.attempts.c.token)).one_or_none() is None:
        raise ValueError(f"the attempt has not written {before} lines")


def _attempt(lease: Lease) -> ColumnElement[bool]:
    return (t.attempts.c.job_id == lease.job_id) & (t.attempts.c.token == lease.token)


def _newest_seq(session: Session, lease: Lease) -> int:
    return int(session.execute(sa.select(t.jobs.c.event_seq).where(t.jobs.c.id == lease.job_id)).scalar_one())


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
