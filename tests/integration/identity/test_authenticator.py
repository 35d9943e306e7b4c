from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from services.core.errors import DatabaseUnavailable, Unauthenticated
from services.core.roles import Role
from services.db.tokens import Credential
from services.identity import token
from services.identity.authenticator import REMEMBER_SECONDS, Authenticator, Principal
from services.identity.token import ParsedToken


class Store:
    """A table of one token that counts how often it is asked."""

    def __init__(self, parsed: ParsedToken) -> None:
        self.row: Credential | None = Credential(
            id=parsed.id,
            project=parsed.project,
            role=Role.SUBMITTER,
            sha256=parsed.sha256,
            is_revoked=False,
            seconds_left=None,
        )
        self.asked = 0
        self.is_away = False

    async def find(self, token_id: str) -> Credential | None:
        self.asked += 1
        await asyncio.sleep(0)
        if self.is_away:
            raise DatabaseUnavailable
        return self.row if self.row is not None and self.row.id == token_id else None

    def change(self, **changes: object) -> None:
        assert self.row is not None
        values = {name: getattr(self.row, name) for name in Credential.__slots__}
        self.row = Credential(**{**values, **changes})  # type: ignore[arg-type]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def shown() -> ParsedToken:
    parsed = token.parse(token.generate("red"))
    assert parsed is not None
    return parsed


@pytest.fixture
def store(shown: ParsedToken) -> Store:
    return Store(shown)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authenticator(store: Store, clock: Clock) -> Authenticator:
    return Authenticator(store.find, clock=clock)


@contextmanager
def refused(match: str) -> Iterator[None]:
    with pytest.raises(Unauthenticated, match=match):
        yield


@pytest.mark.asyncio
async def test_a_token_is_looked_up_once_for_a_while(
    authenticator: Authenticator, store: Store, clock: Clock, shown: ParsedToken
) -> None:
    who = [await authenticator.verify(shown) for _ in range(5)]
    clock.now += REMEMBER_SECONDS + 0.01
    who.append(await authenticator.verify(shown))

    assert set(who) == {Principal(shown.id, "red", Role.SUBMITTER)}
    assert store.asked == 2


@pytest.mark.asyncio
async def test_calls_at_once_share_one_question(authenticator: Authenticator, store: Store, shown: ParsedToken) -> None:
    first = asyncio.create_task(authenticator.verify(shown))
    others = [asyncio.create_task(authenticator.verify(shown)) for _ in range(9)]
    await asyncio.sleep(0)
    first.cancel()

    assert len({await one for one in others}) == 1
    assert store.asked == 1


@pytest.mark.asyncio
async def test_a_revoked_token_is_refused_once_it_is_forgotten(
    authenticator: Authenticator, store: Store, clock: Clock, shown: ParsedToken
) -> None:
    await authenticator.verify(shown)
    store.change(is_revoked=True)

    clock.now += REMEMBER_SECONDS

    with refused("was revoked; make another"):
        await authenticator.verify(shown)


@pytest.mark.asyncio
async def test_a_token_is_not_remembered_past_its_end(
    authenticator: Authenticator, store: Store, clock: Clock, shown: ParsedToken
) -> None:
    store.change(seconds_left=0.5)
    await authenticator.verify(shown)
    store.change(seconds_left=-0.1)

    clock.now += 0.6

    with refused("expired"):
        await authenticator.verify(shown)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"sha256": "0" * 64}, id="another secret"),
        pytest.param({"id": "another"}, id="an unknown id"),
        pytest.param({"project": "blue"}, id="a token that says another project than its row"),
    ],
)
async def test_what_does_not_match_tells_nothing(
    authenticator: Authenticator, store: Store, shown: ParsedToken, change: dict[str, object]
) -> None:
    store.change(**change)

    with refused("^the token is not valid; make one with"):
        await authenticator.verify(shown)


@pytest.mark.asyncio
async def test_a_wrong_secret_of_a_revoked_token_tells_nothing_either(
    authenticator: Authenticator, store: Store, shown: ParsedToken
) -> None:
    store.change(is_revoked=True, sha256="0" * 64)

    with refused("^the token is not valid"):
        await authenticator.verify(shown)


@pytest.mark.asyncio
async def test_nobody_is_let_in_while_nobody_can_tell(
    authenticator: Authenticator, store: Store, shown: ParsedToken
) -> None:
    store.is_away = True
    with pytest.raises(DatabaseUnavailable):
        await authenticator.verify(shown)

    store.is_away = False

    assert (await authenticator.verify(shown)).project == "red"
