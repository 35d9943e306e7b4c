"""Counts for metrics that no other store has a reason to know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from services.core.states import DeploymentState
from services.db import deployments
from services.db import tables as t
from services.db.deployments import Deployment
from services.db.session import Session
from services.db.types import now

PAGE_SIZE = 500
_ON_THE_WAY = frozenset({DeploymentState.PENDING, DeploymentState.BUILDING, DeploymentState.STARTING})


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentFigures:
    """The deployments of all projects, in the states that clients would see now."""

    by_state: Mapping[DeploymentState, int]
    unready_seconds: float
    """Time since the last change of the oldest one that is neither ready, failed nor going; 0 where there is none."""


def deployment_figures(session: Session) -> DeploymentFigures:
    """Count deployments by state, and tell how long the slowest has been on its way."""
    found = list(_all_deployments(session))
    at = session.execute(sa.select(now())).scalar_one()
    waits = [(at - one.update_time).total_seconds() for one in found if one.state in _ON_THE_WAY]
    return DeploymentFigures(by_state=Counter(one.state for one in found), unready_seconds=max([0.0, *waits]))


def _all_deployments(session: Session) -> Iterator[Deployment]:
    for project in session.execute(sa.select(t.deployments.c.project).distinct()).scalars().all():
        after = None
        while rows := deployments.page(session, project, page_size=PAGE_SIZE, after=after):
            yield from rows
            after = (rows[-1].create_time, rows[-1].id)
