"""Events of a job: numbered, written once, and true to what they carry, on both databases."""

from __future__ import annotations

import pytest

from services.core.errors import LeaseLost
from services.db import jobs
from services.db.database import Database
from tests.stack.builders import queued_job
from tests.stack.jobs import EXPIRED, claimed, current, in_threads, kinds, reaped

pytestmark = pytest.mark.usefixtures("invariants_hold_in_the_end")


def test_events_are_numbered_in_order_and_read_from_any_point(database: Database) -> None:
    job = queued_job(database)
    lease = claimed(database, job)
    with database.write() as session:
        lines = [("phase", {"phase": "training"}), ("step", {"step": 3, "total": 10}), ("log", {"text": "x"})]
        last = jobs.append_events(session, lease, lines)

    with database.read() as session:
        page = jobs.events_after(session, job.id, 2, 2)
        rest = jobs.events_after(session, job.id, page[-1].seq, 100)

    assert last == 5
    assert [(event.seq, event.kind) for event in page + rest] == [(3, "phase"), (4, "step"), (5, "log")]
    assert (current(database, job).progress_step, current(database, job).progress_total) == (3, 10)


def test_lines_sent_again_because_the_answer_got_lost_are_written_once(database: Database) -> None:
    job = queued_job(database)
    lease = claimed(database, job)
    lines = [("log", {"text": "a"}), ("log", {"text": "b"})]

    def append(position: int) -> int:
        with database.write() as session:
            return jobs.append_events(session, lease, lines, position=position)

    assert [append(0), append(0), append(2), append(2)] == [4, 4, 6, 6]
    assert kinds(database, job) == ["created", "claimed", "log", "log", "log", "log"]


def test_answer_to_lines_that_were_written_does_not_need_the_lease(database: Database) -> None:
    job = queued_job(database)
    lease = claimed(database, job, ttl_seconds=EXPIRED)
    with database.write() as session:
        jobs.append_events(session, lease, [("log", {})], position=0)
    reaped(database)

    with database.write() as session:
        jobs.append_events(session, lease, [("log", {})], position=0)
    with pytest.raises(LeaseLost), database.write() as session:
        jobs.append_events(session, lease, [("log", {})], position=1)
    assert kinds(database, job) == ["created", "claimed", "log", "reaped"]


def test_events_of_racing_writers_have_no_gap_and_no_double(database: Database) -> None:
    job = queued_job(database)
    lease = claimed(database, job)

    def append() -> None:
        for _ in range(5):
            with database.write() as session:
                jobs.append_events(session, lease, [("log", {}), ("log", {})])

    in_threads(append, 4)

    with database.read() as session:
        events = jobs.events_after(session, job.id, 0, 1000)
    assert [event.seq for event in events] == list(range(1, 43))


def test_payload_keeps_figures_and_text_that_json_cannot_carry(database: Database) -> None:
    job = queued_job(database)
    lease = claimed(database, job)
    with database.write() as session:
        jobs.append_event(session, lease, "log", {"loss": float("nan"), "text": "a\0b\ud800", "deep": [float("inf")]})

    with database.read() as session:
        payload = jobs.events_after(session, job.id, 2, 1)[0].payload
    assert payload == {"loss": "NaN", "text": "a\ufffdb?", "deep": ["Infinity"]}
