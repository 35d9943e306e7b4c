"""An event stream over broken connections: no gap, nothing twice, and an end to patience."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from trainyard.v1 import job_pb2

from services.client.errors import ApiError
from services.client.watch import follow

LOST = ApiError("UNAVAILABLE", "UNREACHABLE", "gone")


class History:
    """A server that knows events 1..last; each connection breaks after the event it is told, 0 before any."""

    def __init__(self, last: int, *, breaks_after: list[int], repeats: int = 0, at_once: int = 1) -> None:
        self.last = last
        self.breaks = breaks_after
        self.repeats = repeats
        self.at_once = at_once
        self.asked: list[int] = []

    def connect(self, after_seq: int) -> Iterator[job_pb2.WatchJobResponse]:
        self.asked.append(after_seq)
        first = max(1, after_seq + 1 - self.repeats)
        limit = self.breaks.pop(0) if self.breaks else None
        if limit == 0:
            raise LOST
        for seq in range(first, self.last + 1, self.at_once):
            more = [job_pb2.JobEvent(seq=one) for one in range(seq + 1, min(seq + self.at_once, self.last + 1))]
            yield job_pb2.WatchJobResponse(event=job_pb2.JobEvent(seq=seq), more=more)
            if limit is not None and seq + len(more) >= limit:
                raise LOST


def seqs(
    history: History, *, after_seq: int = 0, patience: float = 60.0, retries: list[int] | None = None
) -> list[int]:
    heard = retries if retries is not None else []
    events = follow(
        history.connect,
        after_seq=after_seq,
        patience_seconds=patience,
        on_reconnect=heard.append,
        wait=lambda seconds: None,
    )
    return [event.seq for event in events]


def test_a_stream_that_never_breaks_is_passed_on() -> None:
    assert seqs(History(3, breaks_after=[])) == [1, 2, 3]


def test_after_a_break_the_stream_goes_on_where_it_was() -> None:
    history = History(6, breaks_after=[2, 4])

    assert seqs(history) == [1, 2, 3, 4, 5, 6]
    assert history.asked == [0, 2, 4]


@pytest.mark.parametrize("repeats", [0, 1, 2])
def test_several_events_in_a_response_are_passed_on_one_by_one(repeats: int) -> None:
    history = History(8, breaks_after=[3, 6], repeats=repeats, at_once=3)

    assert seqs(history) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_events_sent_again_are_not_passed_on_again() -> None:
    assert seqs(History(5, breaks_after=[3], repeats=2)) == [1, 2, 3, 4, 5]


def test_a_break_after_the_last_event_ends_quietly() -> None:
    assert seqs(History(3, breaks_after=[3])) == [1, 2, 3]


def test_a_watch_may_begin_in_the_middle() -> None:
    assert seqs(History(5, breaks_after=[]), after_seq=3) == [4, 5]


def test_tries_are_told_and_begin_anew_after_contact() -> None:
    retries: list[int] = []

    seqs(History(4, breaks_after=[2, 0, 0, 3]), retries=retries)

    assert retries == [1, 2, 3, 1]


def test_patience_ends() -> None:
    def connect(after_seq: int) -> Iterator[job_pb2.WatchJobResponse]:
        raise LOST
        yield

    with pytest.raises(ApiError) as gone:
        list(follow(connect, after_seq=0, patience_seconds=0.0, on_reconnect=lambda retry: None))

    assert gone.value is LOST


def test_a_wrong_request_is_not_tried_again() -> None:
    wrong = ApiError("NOT_FOUND", "NOT_FOUND", "No such job.")
    asked: list[int] = []

    def connect(after_seq: int) -> Iterator[job_pb2.WatchJobResponse]:
        asked.append(after_seq)
        raise wrong
        yield

    with pytest.raises(ApiError) as refused:
        list(follow(connect, after_seq=0, patience_seconds=60.0, on_reconnect=lambda retry: None))

    assert refused.value is wrong
    assert asked == [0]
