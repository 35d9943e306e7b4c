"""Virtual time, the order of what happens in it, and everything random: one seed decides all of it."""

from __future__ import annotations

import heapq
import itertools
import random
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from ulid import ULID

from services.core import ids
from tests.simulation.plan import Fault, Plan
from tests.stack.virtual import START, VirtualClock


class Crashed(BaseException):
    """The process that runs now dies here; nothing of it catches this."""


class World:
    """The machine room: whoever wants to do something later asks `at`."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.rng = random.Random(plan.seed)
        self.time = 0.0
        """True time, in seconds; every monotonic clock shows it."""
        self.database_clock = VirtualClock()
        self.is_calm = False
        """Whether faults are over."""
        self.trace: list[str] = []
        self.broken: list[str] = []
        """What was seen to go wrong while it happened."""
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._jump_seconds = 0.0
        self.names: dict[str, str] = {}
        """Short names of ids, for the trace."""

    def at(self, delay_seconds: float, act: Callable[[], None]) -> None:
        """Do something that many seconds from now; of two at one moment the one asked for first."""
        heapq.heappush(self._agenda, (self.time + delay_seconds, next(self._numbers), act))

    def run_until(self, is_done: Callable[[], bool], *, limit: float) -> bool:
        """Let time pass until `is_done` or the limit, in true time, and return whether it is done."""
        while not is_done():
            if not self._agenda or self._agenda[0][0] > limit:
                self._move(limit)
                return is_done()
            time, _, act = heapq.heappop(self._agenda)
            self._move(time)
            try:
                act()
            except Exception as err:
                self.complain(f"L4: nobody expected {err!r}")
                self.trace += traceback.format_exc().splitlines()
        return True

    def leap(self, seconds: float) -> None:
        """Let time pass without anything happening in it."""
        self._move(self.time + seconds)

    def jump(self, seconds: float) -> None:
        """Set the database's clock forward or back."""
        self._jump_seconds += seconds
        self._move(self.time)

    def happens(self, fault: Fault, share: float) -> bool:
        """Draw whether a fault of the plan strikes now."""
        return fault in self.plan.faults and not self.is_calm and self.rng.random() < share

    def hazard(self) -> None:
        """Give the process that runs now a chance to die between two of its actions."""
        if self.happens(Fault.WORKER_CRASH, 0.004):
            raise Crashed

    def monotonic(self) -> float:
        return self.time

    def wall_clock(self) -> datetime:
        return datetime.fromtimestamp(START + self.time, UTC)

    def say(self, who: str, what: str, **facts: Any) -> None:
        told = " ".join(f"{key}={self.names.get(str(value), value)}" for key, value in facts.items())
        self.trace.append(f"{self.time:9.2f}  {who:<14} {what} {told}".rstrip())

    def complain(self, text: str) -> None:
        """Note a violation that only shows while it happens."""
        self.broken.append(text)
        self.say("!!", text)

    @contextmanager
    def ids_by_seed(self) -> Iterator[None]:
        """Let new ids come from virtual time and a counter instead of the machine's clock and chance."""
        count = itertools.count(1)

        def next_id() -> ULID:
            milliseconds = int(self.wall_clock().timestamp() * 1000)
            return ULID(milliseconds.to_bytes(6, "big") + next(count).to_bytes(10, "big"))

        real, ids.ULID = ids.ULID, next_id  # type: ignore[misc,assignment]
        try:
            yield
        finally:
            ids.ULID = real  # type: ignore[misc]

    def _move(self, time: float) -> None:
        self.time = max(self.time, time)
        self.database_clock.now = START + self.time + self._jump_seconds
