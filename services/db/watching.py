"""Which of many jobs have new events: one query for all streams of a server."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from services.db import tables as t
from services.db.session import Session

# SQLite takes 32,766 parameters in one statement.
MAX_IDS = 10_000


def last_seqs(session: Session, job_ids: Iterable[str]) -> dict[str, int]:
    """Return the number of the newest event of each job; unknown ids are left out."""
    ids = list(job_ids)
    found: dict[str, int] = {}
    for start in range(0, len(ids), MAX_IDS):
        query = sa.select(t.jobs.c.id, t.jobs.c.event_seq).where(t.jobs.c.id.in_(ids[start : start + MAX_IDS]))
        found.update((row.id, row.event_seq) for row in session.execute(query))
    return found
