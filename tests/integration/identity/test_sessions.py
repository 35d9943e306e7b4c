from __future__ import annotations

import asyncio

import pytest

from services.core.errors import DatabaseUnavailable, Unauthenticated
from services.core.roles import Role
from services.db.tokens import Credential
from services.identity import token
from services.identity.authenticator import Authenticator
from services.identity.sessions import Sessions
from services.identity.token import ParsedToken

LOOK_SECONDS = 0.01


def shown() -> ParsedToken:
    parsed = token.parse(token.generate("red"))
    assert parsed is not None
    return parsed


class Valid:
    """Says of each token whether it is valid now."""

    def __init__(self) -> None:
        self.revoked: set[str] = set()
        self.is_away = False
        self.rows: dict[str, Credential] = {}
        self.asked = asyncio.Event()

    def add(self) -> ParsedToken:
        parsed = shown()
        self.rows[parsed.id] = Credential(
            id=parsed.id, project="red", role=Role.VIEWER, sha256=parsed.sha256, is_revoked=False, seconds_left=None
        )
        return parsed

    async def find(self, token_id: str) -> Credential | None:
        self.asked.set()
        if self.is_away:
            raise DatabaseUnavailable
        row = self.rows[token_id]
        return Credential(
            **{name: getattr(row, name) for name in Credential.__slots__} | {"is_revoked": token_id in self.revoked}
        )


@pytest.mark.asyncio
async def test_the_streams_of_a_revoked_token_end_and_no_others() -> None:
    valid = Valid()
    ended, kept = valid.add(), valid.add()
    # A clock that runs ahead: nothing is remembered.
    sessions = Sessions(Authenticator(valid.find, clock=iter(range(0, 10**6, 100)).__next__), look_seconds=LOOK_SECONDS)
    streams = [asyncio.create_task(sessions.run(ended, asyncio.Event().wait)) for _ in range(3)]
    other = asyncio.create_task(sessions.run(kept, asyncio.Event().wait))
    await asyncio.sleep(0)

    valid.revoked.add(ended.id)
    results = await asyncio.gather(*streams, return_exceptions=True)

    assert [type(result) for result in results] == [Unauthenticated] * 3
    assert not other.done()
    other.cancel()
    sessions.close()


@pytest.mark.asyncio
async def test_streams_outlive_a_database_that_is_away() -> None:
    valid = Valid()
    one = valid.add()
    sessions = Sessions(Authenticator(valid.find, clock=iter(range(0, 10**6, 100)).__next__), look_seconds=LOOK_SECONDS)
    done = asyncio.Event()
    stream = asyncio.create_task(sessions.run(one, done.wait))
    valid.is_away = True
    for _ in range(2):
        valid.asked.clear()
        await valid.asked.wait()

    done.set()

    assert await stream is True
    sessions.close()
