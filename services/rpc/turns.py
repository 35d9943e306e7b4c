"""How many short calls of one caller are worked on at once; the others wait for their turn, in the order they came.

Without it whoever sends hundreds of calls at once is served first, and everybody else waits behind all of them: a
rate bounds what comes in a second, not what stands in the way of the next call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from services.rpc.caller import callers
from services.rpc.limits import ServerLimits
from services.rpc.middleware import Call, Proceed


@dataclass(slots=True)
class _Line:
    """Who works and who waits, of one caller."""

    turns: asyncio.Semaphore
    calls: int = field(default=0)


class Turns:
    """Lets a caller's short calls in a few at a time. A holder of a token shares its turns with nobody else."""

    def __init__(self, limits: ServerLimits, *, unhurried: Collection[str] = ()) -> None:
        """`unhurried` methods wait for other machines most of their time and take no turn."""
        self._turns = limits.turns_per_caller
        self._unhurried = frozenset(unhurried)
        self._lines: dict[str, _Line] = {}

    async def __call__(self, call: Call, proceed: Proceed) -> Any:
        if not call.is_unary or call.method in self._unhurried:
            return await proceed()
        key = callers(call.context)[-1]
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = _Line(asyncio.Semaphore(self._turns))
        line.calls += 1
        try:
            async with line.turns:
                return await proceed()
        finally:
            line.calls -= 1
            if not line.calls:
                del self._lines[key]
