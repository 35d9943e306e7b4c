from __future__ import annotations

import select

import pytest

from workers.stop import Latch, Stopped, StopReason, StopRequest


def test_the_gravest_reason_decides() -> None:
    stop = StopRequest(Latch())

    for reason in (StopReason.CANCEL, StopReason.LOST, StopReason.NO_CONTACT):
        stop.request(reason)

    assert stop.reason is StopReason.LOST


def test_a_draining_worker_stops_every_attempt() -> None:
    drain = Latch()
    stop = StopRequest(drain)
    stop.check()

    drain.set()

    with pytest.raises(Stopped) as caught:
        stop.check()
    assert caught.value.reason is StopReason.DRAIN


def test_a_cancellation_beats_a_drain() -> None:
    drain = Latch()
    drain.set()
    stop = StopRequest(drain)

    stop.request(StopReason.CANCEL)

    assert stop.reason is StopReason.CANCEL


def test_a_latch_stays_readable_for_everyone() -> None:
    latch = Latch()
    assert select.select([latch], [], [], 0)[0] == []

    latch.set()

    assert select.select([latch], [], [], 0)[0] == [latch]
    assert select.select([latch], [], [], 0)[0] == [latch]
