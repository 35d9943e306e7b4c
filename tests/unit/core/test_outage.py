"""How often a log speaks of something that is away."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from services.core.outage import EVERY_SECONDS, Outage


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def outage(clock: Clock) -> Outage:
    return Outage(away="gone", back="here", clock=clock)


def test_a_long_outage_is_told_when_it_begins_once_a_minute_and_when_it_ends(outage: Outage, clock: Clock) -> None:
    with capture_logs() as logs:
        for _ in range(int(2.5 * EVERY_SECONDS)):
            outage.miss(error="no answer")
            clock.now += 1.0
        outage.answer()

    assert [(line["event"], line.get("away_seconds"), line.get("misses")) for line in logs] == [
        ("gone", None, None),
        ("gone", 60.0, 61),
        ("gone", 120.0, 121),
        ("here", 150.0, 150),
    ]
    assert logs[0]["error"] == "no answer"


def test_what_answers_every_time_is_not_spoken_of(outage: Outage) -> None:
    with capture_logs() as logs:
        outage.answer()
        outage.answer()

    assert logs == []


def test_the_next_outage_is_told_at_once(outage: Outage, clock: Clock) -> None:
    with capture_logs() as logs:
        for _ in range(2):
            outage.miss()
            clock.now += 1.0
            outage.answer()

    assert [line["event"] for line in logs] == ["gone", "here", "gone", "here"]
