"""Streams end when their token does: all open ones are looked at together, once every few seconds."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from contextvars import Context
from typing import Any

import structlog

from services.core.errors import PlatformError, Unauthenticated
from services.identity.authenticator import Authenticator
from services.identity.token import ParsedToken
from services.rpc.middleware import Proceed

log = structlog.get_logger(__name__)

LOOK_SECONDS = 2.0


class Sessions:
    """The streams of one server by token. Belongs to one event loop."""

    def __init__(self, authenticator: Authenticator, *, look_seconds: float = LOOK_SECONDS) -> None:
        self._authenticator = authenticator
        self._look_seconds = look_seconds
        self._open: defaultdict[ParsedToken, set[asyncio.Timeout]] = defaultdict(set)
        self._looking: asyncio.Task[None] | None = None

    async def run(self, token: ParsedToken, proceed: Proceed) -> Any:
        """Run a stream as long as its token is valid.

        Raises:
            Unauthenticated: the token ended before the stream did.
        """
        limit = asyncio.timeout(None)
        self._open[token].add(limit)
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(), context=Context())
        try:
            async with limit:
                return await proceed()
        except TimeoutError as err:
            if limit.expired():
                raise Unauthenticated("the token expired or was revoked while the stream was open") from err
            raise
        finally:
            self._open[token].discard(limit)
            if not self._open[token]:
                del self._open[token]

    def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(self._look_seconds)
            for token in list(self._open):
                if not await self._is_valid(token):
                    self._end(self._open.get(token, ()))

    def _end(self, limits: Iterable[asyncio.Timeout]) -> None:
        for limit in limits:
            # One that was ended before may still wait for work that goes on to its end.
            if limit.when() is None:
                limit.reschedule(asyncio.get_running_loop().time())

    async def _is_valid(self, token: ParsedToken) -> bool:
        try:
            await self._authenticator.verify(token)
        except Unauthenticated:
            return False
        except PlatformError as err:
            # Nobody can tell while the database is away, and a stream shows nothing new without it.
            log.warning("token_not_checked", token_id=token.id, reason=err.reason)
        return True
