"""Returning the work of dead workers, only while the clock can be trusted.

An outage of the database or a jump of its clock makes every lease look expired although the workers
live. Until the database's clock and ours have moved alike for one whole lease, with the database never
out of sight for that long, nothing is reaped, so that live workers can renew first.
"""

from __future__ import annotations

import time
from datetime import datetime

import sqlalchemy as sa

from services.core.clock import MonotonicClock
from services.core.errors import DatabaseUnavailable
from services.db import archives
from services.db.database import Database
from services.db.job_records import Reaped
from services.db.transitions import reap
from services.db.types import now


class ClockGuard:
    """Compares two clocks tick by tick; trust needs `ttl_seconds` without a fault.

    Jumps that cancel out between two readings go unseen. A live job may then be taken and run again, which
    costs time; its fencing token keeps even that safe.
    """

    def __init__(
        self, *, ttl_seconds: float, tolerance_seconds: float = 5.0, clock: MonotonicClock = time.monotonic
    ) -> None:
        self._ttl = ttl_seconds
        self._tolerance = tolerance_seconds
        self._clock = clock
        self._last: tuple[float, float] | None = None
        self._trusted_since = 0.0

    def observe(self, database_time: datetime) -> bool:
        """Take one reading of the database's clock and return whether leases may be judged by it now.

        Readings that lie a lease apart start over: the database may have been away between them unseen,
        as while another controller led or this process was stopped.
        """
        ours, theirs = self._clock(), database_time.timestamp()
        if self._last is None or not self._is_continued(ours, theirs, *self._last):
            self._trusted_since = ours
        self._last = (ours, theirs)
        return ours - self._trusted_since >= self._ttl

    def distrust(self) -> None:
        """Begin again, after a tick that failed."""
        self._last = None

    def _is_continued(self, ours: float, theirs: float, our_last: float, their_last: float) -> bool:
        is_alike = abs((theirs - their_last) - (ours - our_last)) <= self._tolerance
        return is_alike and ours - our_last < max(self._ttl, self._tolerance)


class Reaper:
    """Runs ticks on one database; call `tick` at every reap interval. Any number of reapers may run."""

    def __init__(self, database: Database, guard: ClockGuard, *, limit: int = 100) -> None:
        self._database = database
        self._guard = guard
        self._limit = limit

    def tick(self, *, retry_delay_seconds: float = 10.0) -> list[Reaped]:
        """Reap jobs and builds once, or return nothing while the clock is not trusted; returns the jobs.

        Raises:
            DatabaseUnavailable: the database is away; the guard starts over.
        """
        try:
            with self._database.write() as session:
                if not self._guard.observe(session.execute(sa.select(now())).scalar_one()):
                    return []
                archives.reap(session)
                return reap(session, limit=self._limit, retry_delay_seconds=retry_delay_seconds)
        except DatabaseUnavailable:
            self._guard.distrust()
            raise
