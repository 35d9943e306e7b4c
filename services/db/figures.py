"""Counts for metrics that no other store has a reason to know."""

from __future__ import annotations

from collections import Counter

import sqlalchemy as sa

from services.core.states import DeploymentState
from services.db import deployments
from services.db import tables as t
from services.db.session import Session

PAGE_SIZE = 500


def deployments_by_state(session: Session) -> dict[DeploymentState, int]:
    """Count the deployments of all projects by the state a client would see now."""
    counts: Counter[DeploymentState] = Counter()
    for project in session.execute(sa.select(t.deployments.c.project).distinct()).scalars().all():
        after = None
        while rows := deployments.page(session, project, page_size=PAGE_SIZE, after=after):
            counts.update(row.state for row in rows)
            after = (rows[-1].create_time, rows[-1].id)
    return dict(counts)
