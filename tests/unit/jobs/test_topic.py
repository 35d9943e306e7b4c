from __future__ import annotations

from datetime import UTC, datetime

from services.db.jobs import Event
from services.jobs.watch import PAGE, Topic


def events(first: int, last: int) -> list[Event]:
    return [Event(seq, 1, "step", {}, datetime(2026, 1, 1, tzinfo=UTC)) for seq in range(first, last + 1)]


def test_published_events_are_kept_for_streams_that_are_close_behind() -> None:
    topic = Topic(last_seq=4)

    topic.publish(6, events(5, 6))

    assert [event.seq for event in topic.after(4)] == [5, 6]
    assert [event.seq for event in topic.after(5)] == [6]
    assert topic.after(6) == []


def test_a_stream_far_behind_must_read_the_table() -> None:
    topic = Topic(last_seq=4)

    topic.publish(6, events(5, 6))

    assert topic.after(2) == []


def test_a_gap_empties_what_is_kept() -> None:
    topic = Topic(last_seq=4)
    topic.publish(6, events(5, 6))

    topic.publish(500, [])
    topic.publish(501, events(501, 501))

    assert topic.after(5) == []
    assert [event.seq for event in topic.after(500)] == [501]


def test_old_news_change_nothing() -> None:
    topic = Topic(last_seq=10)
    waiting = topic.changed

    topic.publish(9, events(8, 9))

    assert (topic.last_seq, waiting.is_set()) == (10, False)


def test_no_more_than_one_page_is_kept() -> None:
    topic = Topic(last_seq=0)
    for start in range(1, 4 * PAGE, PAGE):
        topic.publish(start + PAGE - 1, events(start, start + PAGE - 1))

    assert len(topic.recent) == PAGE
    assert len(topic.after(topic.last_seq - PAGE)) == PAGE
