"""How often a caller may call: one token bucket for each, and a refusal that says when to try again."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any

from services.core.clock import MonotonicClock
from services.core.errors import RateExceeded
from services.rpc.caller import callers
from services.rpc.limits import ServerLimits
from services.rpc.middleware import Call, Proceed

MAX_CALLERS = 10_000
_HEALTH = "/grpc.health."


class Buckets:
    """A bucket for each caller: it holds up to `burst` calls and gains `rate` of them a second."""

    def __init__(
        self, rate: float, burst: float, *, clock: MonotonicClock = time.monotonic, max_callers: int = MAX_CALLERS
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._max_callers = max_callers
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str) -> float:
        """Take one call and return 0, or return the seconds until one will be there."""
        now = self._clock()
        level, seen_at = self._levels.pop(caller, (self._burst, now))
        level = min(self._burst, level + (now - seen_at) * self._rate)
        wait = 0.0 if level >= 1 else (1 - level) / self._rate
        self._levels[caller] = (level if wait else level - 1, now)
        if len(self._levels) > self._max_callers:
            # The one silent for longest: its bucket is full again, or nearly so.
            self._levels.popitem(last=False)
        return wait


class RateLimit:
    """Refuses calls above the rate of their caller. Health checks are free: a probe must not be refused."""

    def __init__(self, limits: ServerLimits) -> None:
        self._buckets = Buckets(limits.calls_per_second, max(1.0, limits.calls_per_second * limits.burst_seconds))

    async def __call__(self, call: Call, proceed: Proceed) -> Any:
        if not call.method.startswith(_HEALTH):
            for caller in callers(call.context):
                if wait := self._buckets.take(caller):
                    raise RateExceeded(retry_seconds=wait)
        return await proceed()
