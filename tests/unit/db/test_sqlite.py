"""What is particular to the embedded database."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from services.core.errors import DatabaseUnavailable, SettingsInvalid
from services.db import database as database_module
from services.db.database import Database
from tests.stack.builders import make_dataset, queued_job


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "metadata.sqlite3"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    opened = Database(f"sqlite:///{path}")
    opened.migrate()
    yield opened
    opened.dispose()


@pytest.mark.parametrize(
    ("pragma", "expected"),
    [("journal_mode", "wal"), ("synchronous", 2), ("busy_timeout", 10_000), ("foreign_keys", 1)],
)
def test_every_connection_is_durable_and_patient(database: Database, pragma: str, expected: object) -> None:
    with database.read() as session:
        assert session.execute(sa.text(f"PRAGMA {pragma}")).scalar_one() == expected


def test_file_locked_by_another_process_is_unavailable(
    database: Database, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 0.05)
    patient = Database(f"sqlite:///{path}")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(DatabaseUnavailable):
        queued_job(patient)

    other.execute("ROLLBACK")
    other.close()
    assert queued_job(patient).event_seq == 1
    patient.dispose()


def test_a_feed_whose_connection_fails_lets_its_thread_go_on(database: Database) -> None:
    feed = database.changes()
    feed._connection.close()  # type: ignore[attr-defined]

    assert feed.wait(0.01) is True

    feed.close()


def test_readers_do_not_wait_for_a_writer(database: Database) -> None:
    with database.write() as writing:
        make_dataset(writing)
        with database.read() as reading:
            assert reading.execute(sa.text("SELECT count(*) FROM dataset_versions")).scalar_one() == 0


def test_threads_of_one_process_write_in_turn(database: Database) -> None:
    def submit() -> None:
        for _ in range(5):
            queued_job(database)

    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    with database.read() as session:
        assert session.execute(sa.text("SELECT count(*) FROM jobs")).scalar_one() == 20


def test_file_that_is_no_database_is_reported_at_once(tmp_path: Path) -> None:
    (tmp_path / "broken").write_bytes(b"not a database, but long enough to look like a header" * 10)
    broken = Database(f"sqlite:///{tmp_path / 'broken'}")

    with pytest.raises(sa.exc.DatabaseError):
        broken.ping()


def test_hot_queries_use_their_partial_indexes(database: Database) -> None:
    plans = {
        "SELECT id FROM jobs WHERE state = 'queued' AND queue = 'q' AND project = 'p' ORDER BY order_time LIMIT 1": (
            "ix_jobs_waiting"
        ),
        "SELECT id FROM jobs WHERE state = 'running' AND lease_expire_time < 1.0 ORDER BY lease_expire_time": (
            "ix_jobs_running"
        ),
    }
    with database.read() as session:
        for query, index in plans.items():
            plan = "\n".join(row.detail for row in session.execute(sa.text(f"EXPLAIN QUERY PLAN {query}")))
            assert index in plan
            assert "TEMP B-TREE" not in plan


@pytest.mark.parametrize(
    "url", ["mysql://x:secret@y/z", "postgresql+asyncpg://x:secret@y/z", "x:secret", "postgresql://x:secret@y:p/z"]
)
def test_an_address_of_no_usable_database_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(SettingsInvalid, match="TRAINYARD_DATABASE_URL must be postgresql://") as caught:
        Database(url)

    assert "secret" not in str(caught.value)
