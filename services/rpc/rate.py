"""How often a caller may call: a token bucket for each. Calls above the rate wait, and are refused if that takes long.

Waiting is what protects the others: whoever is refused at once calls again at once, and a refusal costs the server
nearly as much as an answer.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from services.core.clock import MonotonicClock
from services.core.errors import RateExceeded
from services.rpc.caller import callers
from services.rpc.limits import ServerLimits
from services.rpc.middleware import Call, Proceed

MAX_CALLERS = 10_000
MAX_HELD, MAX_HELD_BYTES = 1000, 64 * 1024
"""Calls of one caller that wait for their refusal, and the size of each: what takes more memory hears it at once."""
_HEALTH = "/grpc.health."


@dataclass(frozen=True, slots=True)
class Admission:
    """When a call may go on, in seconds from now; a refused one may come back then."""

    wait_seconds: float = 0.0
    is_refused: bool = False


class Buckets:
    """A bucket for each caller: it holds up to `burst` calls and gains `rate` of them a second.

    It lends calls that it will gain within `patience_seconds`.
    """

    def __init__(
        self,
        rate: float,
        burst: float,
        *,
        patience_seconds: float = 0.0,
        clock: MonotonicClock = time.monotonic,
        max_callers: int = MAX_CALLERS,
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._patience_seconds = patience_seconds
        self._clock = clock
        self._max_callers = max_callers
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str) -> Admission:
        """Take one call, or say when one will be there."""
        now = self._clock()
        level, seen_at = self._levels.pop(caller, (self._burst, now))
        level = min(self._burst, level + (now - seen_at) * self._rate)
        wait_seconds = max(0.0, (1 - level) / self._rate)
        is_refused = wait_seconds > self._patience_seconds
        self._levels[caller] = (level if is_refused else level - 1, now)
        if len(self._levels) > self._max_callers:
            # The one silent for longest: its bucket is full again, or nearly so.
            self._levels.popitem(last=False)
        return Admission(wait_seconds, is_refused)


class RateLimit:
    """Slows and refuses calls above the rate of their caller. Health checks are free: a probe must not be refused."""

    def __init__(self, limits: ServerLimits) -> None:
        self._patience_seconds = limits.rate_patience_seconds
        self._callers = self._buckets(limits, 1.0)
        self._addresses = self._buckets(limits, limits.callers_per_address)
        self._held: Counter[str] = Counter()

    async def __call__(self, call: Call, proceed: Proceed) -> Any:
        if call.method.startswith(_HEALTH):
            return await proceed()
        address, caller = callers(call.context)
        admissions = (self._addresses.take(address), self._callers.take(caller))
        if any(one.is_refused for one in admissions):
            held_seconds = await self._hold(caller, call.request)
            wait_seconds = max(one.wait_seconds for one in admissions if one.is_refused)
            raise RateExceeded(retry_seconds=wait_seconds - held_seconds)
        if wait_seconds := max(one.wait_seconds for one in admissions):
            await asyncio.sleep(wait_seconds)
        return await proceed()

    async def _hold(self, caller: str, request: object) -> float:
        """Wait for as long as a refused call may be kept waiting, and return that, in seconds."""
        is_large = isinstance(request, Message) and request.ByteSize() > MAX_HELD_BYTES
        if is_large or self._held[caller] >= MAX_HELD:
            return 0.0
        self._held[caller] += 1
        try:
            await asyncio.sleep(self._patience_seconds)
            return self._patience_seconds
        finally:
            self._held[caller] -= 1
            if not self._held[caller]:
                del self._held[caller]

    @staticmethod
    def _buckets(limits: ServerLimits, factor: float) -> Buckets:
        rate = limits.calls_per_second * factor
        return Buckets(rate, max(1.0, rate * limits.burst_seconds), patience_seconds=limits.rate_patience_seconds)
