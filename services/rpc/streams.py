"""How many streams may be open, how long each may stay, and how long its reader may take nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from services.core.errors import LimitExceeded, StreamEnded
from services.rpc.caller import callers
from services.rpc.limits import ServerLimits
from services.rpc.middleware import Call, Proceed


class Streams:
    """Counts the streams of each caller and of all, and ends those that stay too long."""

    def __init__(self, limits: ServerLimits) -> None:
        self._limits = limits
        self._open: Counter[str] = Counter()

    async def __call__(self, call: Call, proceed: Proceed) -> Any:
        if call.is_unary:
            return await proceed()
        held = {*callers(call.context), ""}
        self._check(held)
        self._open.update(held)
        try:
            return await self._within_time(proceed)
        finally:
            self._open.subtract(held)
            for caller in held:
                if not self._open[caller]:
                    del self._open[caller]

    def _check(self, held: set[str]) -> None:
        if self._open[""] >= self._limits.streams:
            raise LimitExceeded(f"{self._limits.streams} streams are open on this server; try again later")
        if any(self._open[caller] >= self._limits.streams_per_caller for caller in held if caller):
            text = f"you have {self._limits.streams_per_caller} streams open; end some before you open more"
            raise LimitExceeded(text)

    async def _within_time(self, proceed: Proceed) -> Any:
        limit = asyncio.timeout(self._limits.stream_seconds)
        try:
            async with limit:
                return await proceed()
        except TimeoutError as err:
            if limit.expired():
                raise StreamEnded from err
            raise
