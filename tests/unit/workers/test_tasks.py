from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from services.core.errors import DatabaseUnavailable
from workers import tasks
from workers.runtime import Slot, Slots


@pytest.fixture
def runtime() -> Any:
    """Return the part of a worker that rings meet: one slot."""
    return SimpleNamespace(slots=Slots([Slot()]))


def test_a_ring_between_the_last_look_and_the_leaving_is_heard(runtime: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []

    def find_nothing(runtime: Any, hint: str) -> None:
        runtime.slots.forget_missed()
        looks.append(hint)
        if len(looks) == 1:
            # The job is stored after this look, and its ring finds the slot still held.
            tasks.run_attempts(runtime, hint="second")

    monkeypatch.setattr(tasks, "_claim", find_nothing)

    tasks.run_attempts(runtime, hint="first")

    assert len(looks) == 2


def test_a_ring_that_comes_just_after_the_holder_looked_for_missed_ones_takes_its_slot() -> None:
    slots = Slots([Slot()])
    next_slot, answers = slots._next, [None]
    # The first try meets the busy slot, which is left before the ring is noted.
    slots._next = lambda: answers.pop() if answers else next_slot()  # type: ignore[method-assign]

    with slots.take() as slot:
        assert slot is not None


@pytest.mark.parametrize("ends", ["nothing is due", "the database is away"])
def test_a_worker_that_nobody_rang_leaves(ends: str, runtime: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []

    def look(runtime: Any, hint: str) -> None:
        runtime.slots.forget_missed()
        looks.append(hint)
        if ends == "the database is away":
            raise DatabaseUnavailable("away")

    monkeypatch.setattr(tasks, "_claim", look)

    tasks.run_attempts(runtime, hint="first")

    assert looks == ["first"]


def test_each_look_is_for_all_that_rang_before(runtime: Any) -> None:
    runtime.slots._missed.set()
    runtime.drain = SimpleNamespace(is_set=True)

    assert tasks._claim(runtime, "first") is None
    assert not runtime.slots.was_missed
