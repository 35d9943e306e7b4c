from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

import pytest
from sqlalchemy.orm import Session

from services.core.errors import JobNotFound, ServerStopping
from services.db import outbox
from services.db.database import Database
from services.db.work import GroupWriter, settle

T = TypeVar("T")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'metadata.sqlite3'}")
    database.migrate()
    yield database
    database.dispose()


@pytest.fixture
def writer(database: Database) -> Iterator[GroupWriter]:
    writer = GroupWriter(database, settle, threads=1)
    yield writer
    writer.close()


def submit(writer: GroupWriter, function: Callable[[Session], T]) -> Future[T]:
    future: Future[T] = Future()
    writer.submit(function, future)
    return future


def put(key: str) -> Callable[[Session], str]:
    def write(session: Session) -> str:
        outbox.put(session, "test", key, {})
        return key

    return write


def keys(database: Database) -> list[str]:
    with database.write() as session:
        return sorted(item.key for item in outbox.take(session, limit=100, retry_after_seconds=0))


class Gate:
    """Holds the writer inside its first transaction until the test has queued more."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()

    def __call__(self, session: Session) -> None:
        self.entered.set()
        assert self.opened.wait(10)


def test_writes_that_wait_together_all_commit(database: Database, writer: GroupWriter) -> None:
    gate = Gate()
    first = submit(writer, gate)
    assert gate.entered.wait(10)

    futures = [submit(writer, put(f"{i:02}")) for i in range(50)]
    gate.opened.set()

    assert [future.result(10) for future in futures] == [f"{i:02}" for i in range(50)]
    assert first.result(10) is None
    assert len(keys(database)) == 50


def test_one_that_fails_spoils_no_other(database: Database, writer: GroupWriter) -> None:
    def fail(session: Session) -> None:
        outbox.put(session, "test", "half-done", {})
        raise JobNotFound

    gate = Gate()
    submit(writer, gate)
    assert gate.entered.wait(10)

    futures = [submit(writer, put("before")), submit(writer, fail), submit(writer, put("after"))]
    gate.opened.set()

    assert (futures[0].result(10), futures[2].result(10)) == ("before", "after")
    with pytest.raises(JobNotFound):
        futures[1].result(10)
    assert keys(database) == ["after", "before"]


def test_a_write_that_was_given_up_before_it_began_is_left_out(database: Database, writer: GroupWriter) -> None:
    gate = Gate()
    submit(writer, gate)
    assert gate.entered.wait(10)

    given_up = submit(writer, put("given-up"))
    kept = submit(writer, put("kept"))
    assert given_up.cancel()
    gate.opened.set()

    kept.result(10)
    assert keys(database) == ["kept"]


def test_closing_commits_what_waits_and_refuses_more(database: Database) -> None:
    writer = GroupWriter(database, settle, threads=1)
    futures = [submit(writer, put(str(i))) for i in range(5)]

    writer.close()

    assert [future.result(0) for future in futures] == ["0", "1", "2", "3", "4"]
    with pytest.raises(ServerStopping):
        submit(writer, put("late"))
