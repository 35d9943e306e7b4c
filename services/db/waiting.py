"""Whether anything waits for its first message: a cheap question for whoever is woken by every commit."""

from __future__ import annotations

import sqlalchemy as sa

from services.db import archives
from services.db import tables as t
from services.db.session import Session


def has_unsent_jobs(session: Session) -> bool:
    """Return whether a queued job was never sent for since it was queued."""
    query = sa.select(t.jobs.c.id).where(t.IS_QUEUED, t.jobs.c.dispatch_time.is_(None))
    # In the order of the index of waiting jobs, whose first are the ones that were sent for: a plan without
    # it may read all jobs that ended before it meets the first that waits.
    query = query.order_by(t.jobs.c.queue, t.jobs.c.project, t.jobs.c.order_time).limit(1)
    return session.execute(query).one_or_none() is not None


def has_unsent_archives(session: Session) -> bool:
    """Return whether an archive that somebody wants built was never sent for."""
    query = sa.select(t.archives.c.id).where(archives.IS_WAITING, t.archives.c.dispatch_time.is_(None)).limit(1)
    return session.execute(query).one_or_none() is not None
