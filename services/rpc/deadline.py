"""Ends calls of one request and one response that have no deadline of their own, so that none stays for ever."""

from __future__ import annotations

import asyncio
from typing import Any

from services.core.errors import DeadlineExceeded
from services.rpc.middleware import Call, Proceed

DEFAULT_SECONDS = 120.0


class Deadline:
    """gRPC itself ends calls whose deadline passes; this covers those without one. Streams may stay."""

    def __init__(self, seconds: float = DEFAULT_SECONDS) -> None:
        self._seconds = seconds

    async def __call__(self, call: Call, proceed: Proceed) -> Any:
        if not call.is_unary or call.context.time_remaining() is not None:
            return await proceed()
        limit = asyncio.timeout(self._seconds)
        try:
            async with limit:
                return await proceed()
        except TimeoutError as err:
            if limit.expired():
                raise DeadlineExceeded(f"the call took longer than {self._seconds:g} s; set a deadline") from err
            raise
