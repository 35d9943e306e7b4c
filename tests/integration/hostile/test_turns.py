"""Turns: a caller's calls are worked on a few at a time, in order, and hold up nobody else's."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from trainyard.v1 import deployment_pb2, gallery_pb2

from services.api.compose import SERVICES, UNHURRIED
from services.rpc.limits import ServerLimits
from services.rpc.middleware import Call
from services.rpc.turns import Turns

LIMITS = ServerLimits(turns_per_caller=2)


@dataclass
class Context:
    token: str

    def peer(self) -> str:
        return "ipv4:192.0.2.7:1"

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", self.token),)


class Work:
    """Calls that go on until they are let go; what began, in order."""

    def __init__(self, turns: Turns) -> None:
        self.began: list[str] = []
        self._turns = turns
        self._gates: dict[str, asyncio.Event] = {}

    def call(self, name: str, *, token: str = "a", method: str = "/s/Get", is_unary: bool = True) -> asyncio.Task[Any]:
        context: Any = Context(token)
        self._gates[name] = asyncio.Event()

        async def proceed() -> str:
            self.began.append(name)
            await self._gates[name].wait()
            return name

        return asyncio.ensure_future(self._turns(Call(method, is_unary, context, None), proceed))

    def end(self, *names: str) -> None:
        for name in names:
            self._gates[name].set()


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_calls_of_one_caller_wait_and_others_do_not() -> None:
    async def scenario() -> None:
        work = Work(Turns(LIMITS))
        mine = [work.call(f"a{number}") for number in range(4)]
        await settled()
        theirs = work.call("b0", token="b")
        await settled()
        assert work.began == ["a0", "a1", "b0"]

        work.end("a1")
        await settled()
        assert work.began == ["a0", "a1", "b0", "a2"]

        work.end("a0", "a2", "a3", "b0")
        assert await asyncio.gather(*mine, theirs) == ["a0", "a1", "a2", "a3", "b0"]

    asyncio.run(scenario())


def test_a_call_given_up_in_the_line_or_at_work_leaves_its_place() -> None:
    async def scenario() -> None:
        turns = Turns(LIMITS)
        work = Work(turns)
        calls = [work.call(f"a{number}") for number in range(5)]
        await settled()
        for number in (0, 2):
            calls[number].cancel()
        await settled()
        assert work.began == ["a0", "a1", "a3"]

        work.end("a1", "a3", "a4")
        await asyncio.gather(*calls, return_exceptions=True)
        assert turns._lines == {}

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param({"is_unary": False}, id="a stream"),
        pytest.param({"method": "/s/Slow"}, id="a call that waits for another machine"),
    ],
)
def test_what_lasts_takes_no_turn(kind: dict[str, Any]) -> None:
    async def scenario() -> None:
        work = Work(Turns(LIMITS, unhurried=("/s/Slow",)))
        calls = [work.call(f"a{number}", **kind) for number in range(5)]
        await settled()
        assert len(work.began) == 5
        work.end(*work.began)
        await asyncio.gather(*calls)

    asyncio.run(scenario())


def test_every_method_that_takes_no_turn_is_one_of_the_api() -> None:
    services = [
        service
        for module in (deployment_pb2, gallery_pb2)
        for service in module.DESCRIPTOR.services_by_name.values()
        if service.full_name in SERVICES
    ]
    assert set(UNHURRIED) <= {f"/{one.full_name}/{method.name}" for one in services for method in one.methods}
