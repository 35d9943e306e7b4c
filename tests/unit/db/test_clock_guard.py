"""When leases may be judged by the database's clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from services.db.reaper import ClockGuard

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


class Clocks:
    """Ours and the database's, moved by hand."""

    def __init__(self) -> None:
        self.ours = 1000.0
        self.theirs = NOON
        self.guard = ClockGuard(ttl_seconds=30, clock=lambda: self.ours)

    def tick(self, ours: float, theirs: float | None = None) -> bool:
        """Let both move on, differently where two figures are given, and observe."""
        self.ours += ours
        self.theirs += timedelta(seconds=ours if theirs is None else theirs)
        return self.guard.observe(self.theirs)


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


def test_trust_takes_one_lease_from_the_start(clocks: Clocks) -> None:
    assert [clocks.tick(0), clocks.tick(15), clocks.tick(14), clocks.tick(1)] == [False, False, False, True]


@pytest.mark.parametrize("jump", [3600.0, -3600.0], ids=["forward", "back"])
def test_jump_of_the_database_clock_costs_one_lease(clocks: Clocks, jump: float) -> None:
    clocks.tick(0)
    clocks.tick(15)
    assert clocks.tick(15)

    assert [clocks.tick(5, 5 + jump), clocks.tick(29), clocks.tick(1)] == [False, False, True]


def test_long_time_without_a_look_costs_one_lease(clocks: Clocks) -> None:
    clocks.tick(0)
    clocks.tick(15)
    assert clocks.tick(15)

    assert [clocks.tick(600), clocks.tick(29), clocks.tick(1)] == [False, False, True]


def test_failed_tick_costs_one_lease(clocks: Clocks) -> None:
    clocks.tick(0)
    clocks.tick(15)
    clocks.tick(15)
    clocks.guard.distrust()

    assert [clocks.tick(5), clocks.tick(29), clocks.tick(1)] == [False, False, True]


def test_clocks_that_drift_a_little_are_trusted(clocks: Clocks) -> None:
    clocks.tick(0)
    clocks.tick(15)
    clocks.tick(15)

    assert clocks.tick(5, 7)
