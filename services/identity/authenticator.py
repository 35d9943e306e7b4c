"""From the text of a token to who calls. Answers are remembered for a moment, so that most calls cost no query.

A token that was revoked or expired is refused at most `REMEMBER_SECONDS` later, while the database answers.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from services.core.clock import MonotonicClock
from services.core.errors import Unauthenticated
from services.core.roles import Role
from services.db.tokens import Credential
from services.identity.token import ParsedToken

REMEMBER_SECONDS = 2.0
MAX_REMEMBERED = 4096

Lookup = Callable[[str], Awaitable[Credential | None]]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: a token, its project and what it may do there."""

    token_id: str
    project: str
    role: Role


class TokenEnded(Unauthenticated):
    """The token was valid once: it is revoked or has expired."""

    def __init__(self, message: str | None = None, *, of: Principal | None = None) -> None:
        super().__init__(message)
        self.of = of


@dataclass(frozen=True, slots=True)
class _Remembered:
    until: float
    principal: Principal | None
    why_not: str
    was: Principal | None = None
    """Who showed it while it was valid."""


class Authenticator:
    """Checks tokens against the store. Belongs to one event loop."""

    def __init__(self, lookup: Lookup, *, clock: MonotonicClock = time.monotonic) -> None:
        self._lookup = lookup
        self._clock = clock
        self._known: OrderedDict[ParsedToken, _Remembered] = OrderedDict()
        self._asking: dict[ParsedToken, asyncio.Task[_Remembered]] = {}

    async def verify(self, token: ParsedToken) -> Principal:
        """Return who shows this token.

        Raises:
            TokenEnded: it is expired or revoked.
            Unauthenticated: it is unknown.
            DatabaseUnavailable: nobody can tell now.
        """
        known = self._known.get(token)
        if known is None or known.until <= self._clock():
            known = await self._ask(token)
        if known.was is not None:
            raise TokenEnded(known.why_not, of=known.was)
        if known.principal is None:
            raise Unauthenticated(known.why_not)
        return known.principal

    async def _ask(self, token: ParsedToken) -> _Remembered:
        task = self._asking.get(token)
        if task is None:
            # One question for all calls that wait for it; a caller that leaves must not take it along.
            task = self._asking[token] = asyncio.create_task(self._look_up(token))
            task.add_done_callback(lambda done: self._settle(token, done))
        return await asyncio.shield(task)

    async def _look_up(self, token: ParsedToken) -> _Remembered:
        asked_at = self._clock()
        return judge(token, await self._lookup(token.id), now=asked_at)

    def _settle(self, token: ParsedToken, done: asyncio.Task[_Remembered]) -> None:
        del self._asking[token]
        if done.cancelled() or done.exception() is not None:
            return
        self._known[token] = done.result()
        self._known.move_to_end(token)
        if len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)


def judge(token: ParsedToken, found: Credential | None, *, now: float) -> _Remembered:
    """Return what to remember of a token until when; a wrong secret tells no more than an unknown id."""
    until = now + REMEMBER_SECONDS
    is_right = found is not None and hmac.compare_digest(found.sha256, token.sha256)
    if found is None or not is_right or found.project != token.project:
        return _Remembered(until, None, "the token is not valid; make one with `trainyard admin token create`")
    remedy = f"make another with `trainyard admin token create --project {found.project} --role {found.role}`"
    caller = Principal(found.id, found.project, found.role)
    if found.is_revoked:
        return _Remembered(until, None, f"token {found.id} was revoked; {remedy}", was=caller)
    if found.seconds_left is not None:
        if found.seconds_left <= 0:
            return _Remembered(until, None, f"token {found.id} expired; {remedy}", was=caller)
        until = min(until, now + found.seconds_left)
    return _Remembered(until, caller, "")
