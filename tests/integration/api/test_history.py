"""Streams that catch up share what is read of the table."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from services.db.jobs import Event
from services.jobs import history
from services.jobs.history import BLOCK, History

pytestmark = pytest.mark.asyncio

AT = datetime(2026, 1, 1, tzinfo=UTC)


class Table:
    """Stands where the database would: events 1 to `last`, and a count of the reads."""

    def __init__(self, last: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.last = last
        self.reads = 0
        self.fails = False
        monkeypatch.setattr(history, "events_after", self._events_after)

    async def read(self, function: Callable[[Any], list[Event]]) -> list[Event]:
        self.reads += 1
        events = function(None)
        await asyncio.sleep(0)
        if self.fails:
            raise OSError("the database is away")
        return events

    def _events_after(self, _: Any, job_id: str, after_seq: int, limit: int) -> list[Event]:
        last = min(self.last, after_seq + limit)
        return [Event(seq, 1, "step", {"job": job_id}, AT) for seq in range(after_seq + 1, last + 1)]


def seqs(events: Sequence[Event]) -> list[int]:
    return [event.seq for event in events]


@pytest.mark.parametrize("seq", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK - 1])
async def test_what_follows_a_number_goes_to_the_end_of_its_block(seq: int, monkeypatch: pytest.MonkeyPatch) -> None:
    past = History(Table(10 * BLOCK, monkeypatch))

    assert seqs(await past.after("a", seq)) == list(range(seq + 1, (seq // BLOCK + 1) * BLOCK + 1))


async def test_at_the_newest_event_nothing_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    past = History(Table(BLOCK + 3, monkeypatch))

    assert seqs(await past.after("a", BLOCK + 3)) == []
    assert seqs(await past.after("a", BLOCK + 2)) == [BLOCK + 3]


async def test_a_block_that_is_full_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table(2 * BLOCK, monkeypatch)
    past = History(table)

    for seq in (0, 5, BLOCK - 1):
        await past.after("a", seq)
    assert table.reads == 1
    assert (await past.after("b", 0))[0].payload == {"job": "b"}
    assert table.reads == 2


async def test_a_block_that_still_grows_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table(3, monkeypatch)
    past = History(table)
    assert seqs(await past.after("a", 1)) == [2, 3]

    table.last = 5

    assert seqs(await past.after("a", 3)) == [4, 5]


async def test_streams_that_ask_at_once_share_one_read_and_outlive_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table(BLOCK, monkeypatch)
    past = History(table)
    streams = [asyncio.create_task(past.after("a", seq)) for seq in range(4)]
    await asyncio.sleep(0)

    streams[0].cancel()

    assert [len(await stream) for stream in streams[1:]] == [BLOCK - 1, BLOCK - 2, BLOCK - 3]
    assert table.reads == 1


async def test_a_read_that_failed_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table(BLOCK, monkeypatch)
    past = History(table)
    table.fails = True
    with pytest.raises(OSError, match="away"):
        await past.after("a", 0)

    table.fails = False

    assert len(await past.after("a", 0)) == BLOCK


async def test_no_more_blocks_are_kept_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "KEPT_BLOCKS", 2)
    table = Table(5 * BLOCK, monkeypatch)
    past = History(table)
    for number in (0, 1, 2):
        await past.after("a", number * BLOCK)

    await past.after("a", 2 * BLOCK)
    await past.after("a", 1 * BLOCK)
    assert table.reads == 3
    await past.after("a", 0)
    assert table.reads == 4
