"""Why a queued job does not run yet."""

from __future__ import annotations

from dataclasses import dataclass

from services.db import quotas, workers
from services.db.jobs import Job
from services.db.session import Session
from services.db.workers import Capacity


@dataclass(frozen=True, slots=True)
class Waiting:
    """Who could run a queued job, and whether its project may run one more."""

    queue: str
    capacity: Capacity
    is_at_quota: bool


def waiting_of(session: Session, job: Job) -> Waiting:
    is_at_quota = quotas.is_running_full(session, job.project)
    return Waiting(job.queue, workers.capacity(session, job.queue), is_at_quota)
