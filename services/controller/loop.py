"""One thing done again and again in a thread of its own, while this process leads."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from services.controller import metrics
from services.core.errors import BrokerUnavailable, DatabaseUnavailable, StoreUnavailable
from services.core.outage import Outage

log = structlog.get_logger(__name__)

IDLE_SECONDS = 0.5
_OUTSIDE = (BrokerUnavailable, DatabaseUnavailable, StoreUnavailable)


class Loop:
    """Calls `tick` at every interval, and at once when woken. One that fails is logged and comes after an interval."""

    def __init__(self, name: str, tick: Callable[[], object], *, interval_seconds: float) -> None:
        self.name = name
        self._tick = tick
        self._interval = interval_seconds
        self._outage = Outage(away="tick_postponed", back="ticks_again")
        self._woken = threading.Event()
        self._leading = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def lead(self, is_leading: bool) -> None:
        """Tick from now on, or not any more after the current tick."""
        if is_leading:
            self._leading.set()
        else:
            self._leading.clear()

    def wake(self) -> None:
        """Tick as soon as possible."""
        self._woken.set()

    def stop(self, *, timeout_seconds: float) -> None:
        """End after the current tick; one that hangs longer than the timeout is left behind."""
        self._stopping.set()
        self._leading.set()
        self._woken.set()
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while not self._stopping.is_set():
            if not self._leading.wait(IDLE_SECONDS) or self._stopping.is_set():
                continue
            self._woken.clear()
            if self._tick_once():
                self._woken.wait(self._interval)
            else:
                # What is away is not asked again at every wake.
                self._stopping.wait(self._interval)

    def _tick_once(self) -> bool:
        state = "ok"
        try:
            self._tick()
        except _OUTSIDE as err:
            state = "unavailable"
            self._outage.miss(loop=self.name, reason=err.reason, error=str(err))
        except Exception:
            state = "failed"
            log.exception("tick_failed", loop=self.name)
        else:
            self._outage.answer(loop=self.name)
        metrics.TICKS.labels(self.name, state).inc()
        return state == "ok"
