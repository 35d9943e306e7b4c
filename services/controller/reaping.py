"""Takes back the leases of dead workers, only while the database's clock can be trusted."""

from __future__ import annotations

import time

import structlog

from services.controller import metrics
from services.core.clock import MonotonicClock
from services.core.settings import Timings
from services.db.database import Database
from services.db.reaper import ClockGuard, Reaper

log = structlog.get_logger(__name__)


class Reaping:
    """One reaper for the life of the process, so that its guard remembers both clocks."""

    def __init__(self, database: Database, timings: Timings, *, clock: MonotonicClock = time.monotonic) -> None:
        self._reaper = Reaper(database, ClockGuard(ttl_seconds=timings.lease_ttl, clock=clock))
        self._retry_delay = timings.retry_base

    def tick(self) -> None:
        for reaped in self._reaper.tick(retry_delay_seconds=self._retry_delay):
            metrics.REAPED.labels(reaped.state.value).inc()
            log.warning(
                "lease_reaped",
                job=reaped.job_id,
                worker=reaped.worker_id,
                token=reaped.token,
                state=reaped.state.value,
            )
