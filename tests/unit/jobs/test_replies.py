from __future__ import annotations

from datetime import UTC, datetime

import pytest

from services.db.jobs import Event
from services.jobs import replies
from services.jobs.convert_event import event_to_proto
from services.jobs.replies import Replies

A, B = "projects/default/jobs/a", "projects/default/jobs/b"


def event(seq: int) -> Event:
    return Event(seq, 1, "checkpoint", {"checkpoint_id": f"c{seq}", "step": seq}, datetime(2026, 1, 1, tzinfo=UTC))


def test_an_event_is_converted_once_for_all_streams_of_its_job() -> None:
    kept = Replies()

    assert kept.of(event(1), A) is kept.of(event(1), A)
    assert kept.of(event(1), A).event == event_to_proto(event(1), A)


def test_events_of_the_same_number_of_two_jobs_are_two() -> None:
    kept = Replies()

    assert kept.of(event(1), A).event.checkpoint.name != kept.of(event(1), B).event.checkpoint.name


def test_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies, "KEPT", 2)
    kept = Replies()
    first, third = kept.of(event(1), A), (kept.of(event(2), A), kept.of(event(3), A))[1]

    assert kept.of(event(3), A) is third
    assert kept.of(event(1), A) is not first
