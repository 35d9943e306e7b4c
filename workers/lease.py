"""The heartbeat: one thread that renews a lease and passes on what it learns.

A lost lease means that another attempt owns the job: its request to stop kills the child at once. A silent
database does not: the trainer goes on, and only after the limit of no contact it is asked to stop.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from services.core.clock import MonotonicClock
from services.core.errors import DatabaseUnavailable, LeaseLost
from services.core.settings import Timings
from workers.stop import StopReason, StopRequest

log = structlog.get_logger(__name__)

LOOKS_PER_HEARTBEAT = 5
"""How often a reason to stop is looked for between two heartbeats: a read of one row."""


class LeaseKeeper:
    """Keeps one lease alive from `start` to `close`."""

    def __init__(
        self,
        renew: Callable[[], StopReason | None],
        *,
        look: Callable[[], StopReason | None],
        stop: StopRequest,
        timings: Timings,
        clock: MonotonicClock = time.monotonic,
    ) -> None:
        self._renew = renew
        self._look = look
        self._stop = stop
        self._timings = timings
        self._clock = clock
        self._last_contact = self._last_renewal = clock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop renewing; returns when no renewal is under way any more."""
        self._closing.set()
        self._thread.join()

    def _keep(self) -> None:
        try:
            while not self._closing.wait(self._timings.heartbeat / LOOKS_PER_HEARTBEAT):
                try:
                    self.tick()
                except DatabaseUnavailable as err:
                    self._miss(err)
        except LeaseLost:
            log.warning("lease_lost")
            self._stop.request(StopReason.LOST)
        finally:
            # However this thread ends before `close`, nobody renews any more: the attempt may not go on.
            if not self._closing.is_set():
                self._stop.request(StopReason.LOST)

    def tick(self) -> None:
        """Renew the lease if it is time, else only look for a reason to stop.

        Raises:
            LeaseLost: another attempt owns the job.
            DatabaseUnavailable: nobody answered.
        """
        now = self._clock()
        is_due = now - self._last_renewal >= self._timings.heartbeat
        reason = self._renew() if is_due else self._look()
        if is_due:
            self._last_renewal = now
        self._last_contact = self._clock()
        if reason is not None:
            self._stop.request(reason)

    def _miss(self, err: DatabaseUnavailable) -> None:
        silence = self._clock() - self._last_contact
        log.warning("heartbeat_missed", silence_seconds=round(silence, 1), error=str(err))
        if silence > self._timings.no_contact_limit:
            self._stop.request(StopReason.NO_CONTACT)
