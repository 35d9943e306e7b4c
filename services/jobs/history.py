"""The events of the past for streams that catch up: read in blocks that streams of the same job share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from services.db.jobs import Event, events_after
from services.db.session import Session

BLOCK = 64
"""Events of one read; a stream that wants the last of them reads the others in vain."""
KEPT_BLOCKS = 128
"""Of all jobs together: a few megabytes."""

_Key = tuple[str, int]


class Reader(Protocol):
    """Reads the database off the event loop."""

    def read(self, function: Callable[[Session], list[Event]]) -> Awaitable[list[Event]]: ...


class History:
    """Reads the table once for all streams that are behind by the same events, as after a restart of the server."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._full: dict[_Key, Sequence[Event]] = {}
        self._reading: dict[_Key, asyncio.Task[Sequence[Event]]] = {}

    async def after(self, job_id: str, seq: int) -> Sequence[Event]:
        """Return the next events after `seq`, at most a block; none if the table held none when it was read."""
        number = seq // BLOCK
        key = (job_id, number)
        events = self._full.get(key)
        if events is None:
            # Shielded: the reader may be gone before the others that wait for the same block.
            events = await asyncio.shield(self._reading.get(key) or self._read(key))
        return events[seq - number * BLOCK :]

    def _read(self, key: _Key) -> asyncio.Task[Sequence[Event]]:
        task = self._reading[key] = asyncio.create_task(self._block(key))
        # Where everybody who waited is gone, nobody asks what became of it.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    async def _block(self, key: _Key) -> Sequence[Event]:
        job_id, number = key
        try:
            events = await self._reader.read(lambda session: events_after(session, job_id, number * BLOCK, BLOCK))
        finally:
            del self._reading[key]
        if len(events) == BLOCK:
            # Full blocks never change: events are only ever added, with numbers that leave no gap.
            self._full[key] = events
            while len(self._full) > KEPT_BLOCKS:
                del self._full[next(iter(self._full))]
        return events
