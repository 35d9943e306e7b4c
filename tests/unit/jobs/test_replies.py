from __future__ import annotations

from datetime import UTC, datetime

import pytest
from trainyard.v1 import job_pb2 as pb

from services.db.jobs import Event
from services.jobs import replies
from services.jobs.convert_event import event_to_proto
from services.jobs.replies import Replies

A, B = "projects/default/jobs/a", "projects/default/jobs/b"


def event(seq: int) -> Event:
    return Event(seq, 1, "checkpoint", {"checkpoint_id": f"c{seq}", "step": seq}, datetime(2026, 1, 1, tzinfo=UTC))


def seqs(reply: pb.WatchJobResponse) -> list[int]:
    return [reply.event.seq, *(event.seq for event in reply.more)]


def only(kept: Replies, seq: int, name: str) -> pb.JobEvent:
    (reply,) = kept.of([event(seq)], name, 1)
    return reply.event


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the events that were converted."""
    seen: list[int] = []

    def note(event: Event, job_name: str) -> pb.JobEvent:
        seen.append(event.seq)
        return event_to_proto(event, job_name)

    monkeypatch.setattr(replies, "event_to_proto", note)
    return seen


def test_an_event_is_converted_once_for_all_streams_of_its_job(converted: list[int]) -> None:
    kept = Replies()

    assert only(kept, 1, A) == only(kept, 1, A) == event_to_proto(event(1), A)
    assert converted == [1]


def test_events_of_the_same_number_of_two_jobs_are_two() -> None:
    kept = Replies()

    assert only(kept, 1, A).checkpoint.name != only(kept, 1, B).checkpoint.name


def test_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch, converted: list[int]) -> None:
    monkeypatch.setattr(replies, "KEPT", 2)
    kept = Replies()

    for seq in (1, 2, 3, 3, 1):
        only(kept, seq, A)

    assert converted == [1, 2, 3, 1]


@pytest.mark.parametrize(
    ("max_events", "expected"),
    [
        (0, [[1], [2], [3], [4], [5]]),
        (1, [[1], [2], [3], [4], [5]]),
        (2, [[1, 2], [3, 4], [5]]),
        (5, [[1, 2, 3, 4, 5]]),
    ],
)
def test_a_reply_carries_as_many_events_as_its_caller_takes(max_events: int, expected: list[list[int]]) -> None:
    found = Replies().of([event(seq) for seq in range(1, 6)], A, max_events)

    assert [seqs(reply) for reply in found] == expected


def test_a_reply_never_grows_beyond_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    size = event_to_proto(event(1), A).ByteSize()
    monkeypatch.setattr(replies, "MAX_BYTES", 2 * size)

    assert [seqs(reply) for reply in Replies().of([event(seq) for seq in range(1, 6)], A, 64)] == [[1, 2], [3, 4], [5]]


def test_an_event_above_the_bytes_goes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies, "MAX_BYTES", 1)

    assert [seqs(reply) for reply in Replies().of([event(1), event(2)], A, 64)] == [[1], [2]]


def test_no_events_are_no_reply() -> None:
    assert list(Replies().of([], A, 64)) == []
