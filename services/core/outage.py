"""What the log holds of something that is away: when it went, once a minute that it still is, and when it came back."""

from __future__ import annotations

import time
from typing import Any

import structlog

from services.core.clock import MonotonicClock

log = structlog.get_logger(__name__)

EVERY_SECONDS = 60.0


class Outage:
    """One thing that is asked again and again, and may not answer. For one thread."""

    def __init__(self, *, away: str, back: str, clock: MonotonicClock = time.monotonic) -> None:
        """Log the event `away` while it is, and `back` once it answers again."""
        self._away = away
        self._back = back
        self._clock = clock
        self._since: float | None = None
        self._said = 0.0
        self._misses = 0

    def miss(self, **fields: Any) -> None:
        """Note that it did not answer; `fields` say why."""
        now = self._clock()
        self._misses += 1
        if self._since is None:
            self._since = self._said = now
            log.warning(self._away, **fields)
        elif now - self._said >= EVERY_SECONDS:
            self._said = now
            log.warning(self._away, **fields, away_seconds=round(now - self._since, 1), misses=self._misses)

    def answer(self, **fields: Any) -> None:
        """Note that it answered."""
        if self._since is not None:
            log.info(self._back, **fields, away_seconds=round(self._clock() - self._since, 1), misses=self._misses)
        self._since, self._misses = None, 0
