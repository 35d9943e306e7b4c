"""How long the reader of a stream may take nothing: one timer a stream, because one a message is a third of its cost."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from services.core.errors import ReaderTooSlow


class Patience:
    """Around a stream: ends it when one of its writes has not come back for `seconds`.

    Raises:
        ReaderTooSlow: at the end of the block, when that happened.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._limit = asyncio.timeout(None)
        self._writing_since: float | None = None
        self._timer = self._loop.call_later(seconds, self._look)

    def begin(self) -> None:
        """A write starts."""
        self._writing_since = self._loop.time()

    def end(self) -> None:
        """The write came back."""
        self._writing_since = None

    async def __aenter__(self) -> Self:
        await self._limit.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        try:
            await self._limit.__aexit__(kind, err, trace)
        except TimeoutError as timeout:
            raise ReaderTooSlow from timeout

    def _look(self) -> None:
        now = self._loop.time()
        since = now if self._writing_since is None else self._writing_since
        if now - since >= self._seconds:
            self._limit.reschedule(now)
        else:
            self._timer = self._loop.call_at(since + self._seconds, self._look)
