from __future__ import annotations

import threading

import pytest

from services.core.errors import DatabaseUnavailable, LeaseLost
from services.core.settings import Timings
from workers.lease import LeaseKeeper
from workers.stop import Latch, StopReason, StopRequest

TIMINGS = Timings(heartbeat=5.0, no_contact_limit=60.0)


class World:
    """A database that answers as told, and a clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.is_away = False
        self.is_lost = False
        self.reason: StopReason | None = None
        self.renewals: list[float] = []
        self.stop = StopRequest(Latch())
        self.asked = threading.Event()

    def clock(self) -> float:
        return self.now

    def renew(self) -> StopReason | None:
        self.asked.set()
        if self.is_lost:
            raise LeaseLost
        if self.is_away:
            raise DatabaseUnavailable
        self.renewals.append(self.now)
        return self.reason

    def look(self) -> StopReason | None:
        self.asked.set()
        if self.is_away:
            raise DatabaseUnavailable
        return self.reason

    def keeper(self, timings: Timings = TIMINGS) -> LeaseKeeper:
        return LeaseKeeper(self.renew, look=self.look, stop=self.stop, timings=timings, clock=self.clock)


@pytest.fixture
def world() -> World:
    return World()


def test_the_lease_is_renewed_once_a_heartbeat(world: World) -> None:
    keeper = world.keeper()

    for world.now in (1.0, 2.0, 5.0, 6.0, 10.5):
        keeper.tick()

    assert world.renewals == [5.0, 10.5]


@pytest.mark.parametrize("reason", [StopReason.CANCEL, StopReason.YIELD])
def test_a_reason_to_stop_is_seen_between_two_heartbeats(world: World, reason: StopReason) -> None:
    keeper = world.keeper()
    world.reason = reason

    world.now = 1.0
    keeper.tick()

    assert world.stop.reason is reason
    assert world.renewals == []


def test_a_renewal_that_was_missed_is_tried_again_at_once(world: World) -> None:
    keeper = world.keeper()
    world.is_away, world.now = True, 5.0
    with pytest.raises(DatabaseUnavailable):
        keeper.tick()

    world.is_away, world.now = False, 5.1
    keeper.tick()

    assert world.renewals == [5.1]


def test_a_lost_lease_is_the_gravest_reason_to_stop(world: World) -> None:
    world.is_lost = True
    world.stop.request(StopReason.CANCEL)
    keeper = world.keeper(Timings(heartbeat=0.01))
    world.now = 1.0
    keeper.start()

    assert world.asked.wait(10)
    keeper.close()

    assert world.stop.reason is StopReason.LOST


def test_silence_of_the_database_stops_nothing_before_the_limit(world: World) -> None:
    world.is_away = True
    keeper = world.keeper(Timings(heartbeat=0.01, no_contact_limit=60.0))
    world.now = 59.0
    keeper.start()

    assert world.asked.wait(10)
    keeper.close()

    assert world.stop.reason is None


def test_silence_past_the_limit_asks_the_trainer_to_stop(world: World) -> None:
    world.is_away = True
    keeper = world.keeper(Timings(heartbeat=0.01, no_contact_limit=60.0))
    world.now = 61.0
    keeper.start()

    assert world.asked.wait(10)
    keeper.close()

    assert world.stop.reason is StopReason.NO_CONTACT
