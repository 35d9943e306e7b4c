"""The indexes of a big table come while others write to it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from services.core.ids import new_id
from services.db import migrations
from services.db.database import Database

BEFORE = "0003"
OLD_JOB = """
    INSERT INTO jobs (id, project, request_id, request_sha256, recipe, preset, display_name, labels, dataset_version_id,
        dataset_id, model_id, spec, queue, priority, state, desired, attempt, max_attempts, uncharged_restarts, no_progress,
        token, checkpoint_step, checkpoint_count, progress_step, progress_total, event_seq, create_time, update_time)
    SELECT CAST(:id AS text), 'p', CAST(:id AS text), '', 'r', '', '', '{}', 'v', 'd', 'm', '{}', 'train.cpu', 2, 'queued', 'run', 0, 3, 0, 0,
        0, -1, 0, 0, 0, 1, clock_timestamp(), clock_timestamp()
"""
OLD_DATASET = """
    INSERT INTO dataset_versions (id, project, dataset_id, version, request_id, request_sha256, family, format, classes,
        counts, manifest_key, manifest_sha256, size_bytes, report, create_time)
    VALUES ('v', 'p', 'd', 1, 'r', '', 'detection', 'coco', '[]', '{}', '', '', 0, '{}', clock_timestamp())
"""


@contextmanager
def old_database(url: str) -> Iterator[Database]:
    """Make a database from before the indexes, with one waiting job."""
    database = Database(url)
    with database._engine.connect() as connection:
        migrations.upgrade(connection, revision=BEFORE)
    with database.write() as session:
        session.execute(sa.text("INSERT INTO datasets (project, dataset_id, last_version) VALUES ('p', 'd', 1)"))
        session.execute(sa.text(OLD_DATASET))
        session.execute(sa.text(OLD_JOB), {"id": "old"})
    yield database
    database.dispose()


@contextmanager
def open_transaction(database: Database) -> Iterator[None]:
    """Keep a transaction open that has written to the jobs."""
    with database._engine.connect() as connection, connection.begin():
        connection.execute(sa.text(OLD_JOB), {"id": "busy"})
        yield


def eventually(check: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not check():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


@pytest.fixture
def old(empty_postgres_url: str) -> Iterator[Database]:
    with old_database(empty_postgres_url) as database:
        yield database


def test_job_from_before_gets_its_place_in_the_queue(empty_url: str) -> None:
    with old_database(empty_url) as database:
        database.migrate()
        with database.read() as session:
            distance = session.execute(sa.text("SELECT order_time - create_time FROM jobs")).scalar_one()

    assert getattr(distance, "total_seconds", lambda: distance)() == pytest.approx(2 * 600)


def test_writers_go_on_while_an_index_is_built(old: Database) -> None:
    migration = threading.Thread(target=old.migrate)

    with open_transaction(old):
        migration.start()
        eventually(lambda: _builds_an_index(old))
        for _ in range(3):
            with old.write() as session:
                session.execute(sa.text("SET LOCAL lock_timeout = '2s'"))
                session.execute(sa.text(OLD_JOB), {"id": new_id()})
                session.execute(sa.text("UPDATE jobs SET progress_step = 1 WHERE id <> 'old'"))
        assert _builds_an_index(old)
    migration.join(timeout=30)

    assert old.is_at_head()
    with old.read() as session:
        assert session.execute(sa.text("SELECT count(*) FROM jobs")).scalar_one() == 5


def test_migration_that_died_half_way_is_finished_by_the_next(old: Database) -> None:
    failures: list[Exception] = []

    def migrate() -> None:
        try:
            old.migrate()
        except Exception as err:
            failures.append(err)

    migration = threading.Thread(target=migrate)
    with open_transaction(old):
        migration.start()
        eventually(lambda: _builds_an_index(old))
        with old.read() as session:
            session.execute(sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_progress_create_index"))
        migration.join(timeout=30)
    assert len(failures) == 1
    assert not old.is_at_head()

    old.migrate()

    with old.read() as session:
        assert session.execute(sa.text("SELECT count(*) FROM pg_index WHERE NOT indisvalid")).scalar_one() == 0
    assert old.is_at_head()


def _builds_an_index(database: Database) -> bool:
    with database.read() as session:
        return session.execute(sa.text("SELECT count(*) FROM pg_stat_progress_create_index")).scalar_one() > 0
