"""Transactions, faults, change feeds, leadership and the schema, on both databases."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from services.core.errors import DatabaseUnavailable
from services.db import archives, jobs, migrations, tables
from services.db.changes import ChangeFeed
from services.db.database import Database
from services.db.reaper import ClockGuard, Reaper
from services.db.tables import complete_for_postgres, metadata
from services.db.types import now
from tests.stack.builders import make_dataset, queued_job
from tests.stack.postgres import PostgresServer

QUICK_SECONDS = 5.0


@pytest.fixture
def feed(database: Database) -> Iterator[ChangeFeed]:
    opened = database.changes()
    yield opened
    opened.close()


def test_failed_transaction_leaves_nothing(database: Database) -> None:
    fail_half_way(database)

    with database.read() as session:
        assert session.execute(sa.text("SELECT count(*) FROM dataset_versions")).scalar_one() == 0


def test_store_function_that_writes_refuses_a_reading_session(database: Database) -> None:
    with pytest.raises(RuntimeError, match="write"), database.read() as session:
        make_dataset(session)


def test_mistake_in_a_statement_is_not_taken_for_a_fault(database: Database) -> None:
    with pytest.raises(sa.exc.DBAPIError), database.read() as session:
        session.execute(sa.text("SELECT * FROM no_such_table"))


def test_database_clock_gives_aware_utc_times_and_offsets(database: Database) -> None:
    with database.read() as session:
        at, later = session.execute(sa.select(now(), now(90.0))).one()

    assert at.utcoffset().total_seconds() == 0
    assert 89 < (later - at).total_seconds() < 91


def test_wait_ends_as_soon_as_another_connection_commits(database: Database, feed: ChangeFeed) -> None:
    waited: list[tuple[bool, float]] = []

    def wait() -> None:
        began = time.monotonic()
        waited.append((feed.wait(30.0), time.monotonic() - began))

    thread = threading.Thread(target=wait)
    thread.start()
    with database.write() as session:
        make_dataset(session)
    thread.join(timeout=30)

    assert waited[0][0] is True
    assert waited[0][1] < QUICK_SECONDS
    assert feed.wait(0.05) is False


def test_commit_between_two_waits_is_not_missed(database: Database, feed: ChangeFeed) -> None:
    assert feed.wait(0.0) is False
    queued_job(database)

    assert feed.wait(QUICK_SECONDS) is True


def test_commit_of_another_process_is_seen(url: str, feed: ChangeFeed) -> None:
    other = Database(url)
    with other.write() as session:
        make_dataset(session)
    other.dispose()

    assert feed.wait(QUICK_SECONDS) is True


def test_transaction_that_failed_wakes_nobody(database: Database, feed: ChangeFeed) -> None:
    fail_half_way(database)

    assert feed.wait(0.1) is False


def test_tick_that_finds_nothing_to_do_wakes_nobody(database: Database, feed: ChangeFeed) -> None:
    with database.write() as session:
        assert jobs.dispatch(session, window=8, redispatch_after_seconds=30) == []
        assert jobs.reap(session, limit=8) == []
        assert jobs.preempt(session, min_run_seconds=0) == []
        assert archives.reap(session) == []
        assert archives.due_for_dispatch(session, limit=8, redispatch_after_seconds=30) == []

    assert feed.wait(0.1) is False


def test_close_ends_a_wait(feed: ChangeFeed) -> None:
    waited: list[bool] = []
    thread = threading.Thread(target=lambda: waited.append(feed.wait(30.0)))
    thread.start()

    feed.close()
    thread.join(timeout=10)

    assert waited == [False]


def test_one_process_leads_until_it_lets_go(url: str) -> None:
    first, second = Database(url).leadership("controller"), Database(url).leadership("controller")
    other = Database(url).leadership("collector")

    assert [first.acquire(), second.acquire(), other.acquire(), first.acquire()] == [True, False, True, True]
    first.release()

    assert second.acquire()
    second.release()
    other.release()


def test_upgrade_from_empty_gives_the_schema_of_the_tables(empty_url: str) -> None:
    complete_for_postgres()
    migrated = Database(empty_url)
    assert migrated.is_at_head() is False
    migrated.migrate()
    migrated.migrate()
    assert migrated.is_at_head() is True
    with migrated._engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        by_migration = _schema(connection)

        for table in ["alembic_version", *(table.name for table in reversed(metadata.sorted_tables))]:
            connection.execute(sa.text(f"DROP TABLE {table}"))
        metadata.create_all(connection)
        by_tables = _schema(connection)
        connection.rollback()
    migrated.dispose()

    assert by_migration == by_tables


def test_processes_that_migrate_at_once_take_turns(empty_url: str) -> None:
    databases = [Database(empty_url) for _ in range(3)]
    errors: list[Exception] = []

    def migrate(database: Database) -> None:
        try:
            database.migrate()
        except Exception as err:
            errors.append(err)

    threads = [threading.Thread(target=migrate, args=(database,)) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert all(database.is_at_head() for database in databases)
    for database in databases:
        database.dispose()


def test_downgrade_drops_every_table(database: Database) -> None:
    with database._engine.connect() as connection:
        migrations.downgrade(connection, revision="base")
        assert set(sa.inspect(connection).get_table_names()) <= {"alembic_version"}


def test_reaper_waits_one_lease_after_its_start_and_after_a_jump(database: Database) -> None:
    job = queued_job(database)
    with database.write() as session:
        jobs.claim(session, job.id, worker_id="a", ttl_seconds=-1)
    ours = 0.0
    reaper = Reaper(database, ClockGuard(ttl_seconds=30, clock=lambda: ours))

    assert reaper.tick() == []
    ours = 31.0  # our clock ran 31 s while the database's ran none: a jump
    assert reaper.tick() == []
    ours = 31.5
    assert reaper.tick() == []


def test_reaper_with_a_steady_clock_reaps(database: Database) -> None:
    job = queued_job(database)
    with database.write() as session:
        jobs.claim(session, job.id, worker_id="a", ttl_seconds=-1)
    reaper = Reaper(database, ClockGuard(ttl_seconds=0.0))

    assert [item.job_id for item in reaper.tick()] == [job.id]


def test_a_transaction_that_went_silent_is_sent_away_before_others_give_up_on_its_rows(postgres_url: str) -> None:
    silent, other = Database(postgres_url), Database(postgres_url)
    job = queued_job(silent)
    update = sa.update(tables.jobs).where(tables.jobs.c.id == job.id)

    def hold_on() -> None:
        with silent.write() as held:
            held.execute(update.values(display_name="held"))
            with other.write() as session:
                session.execute(update.values(display_name="taken"))
            held.execute(update.values(display_name="late"))

    with pytest.raises(DatabaseUnavailable):
        hold_on()

    with other.snapshot() as session:
        assert session.execute(sa.text("SHOW idle_in_transaction_session_timeout")).scalar() == "1min"
        assert jobs.get(session, "default", job.id).display_name == "taken"
    for database in (silent, other):
        database.dispose()


def test_server_that_crashes_is_unavailable_and_then_serves_again(postgres: PostgresServer, postgres_url: str) -> None:
    database = Database(postgres_url)
    kept = queued_job(database)
    feed = database.changes()

    postgres.stop(signal.SIGQUIT)
    with pytest.raises(DatabaseUnavailable):
        queued_job(database)
    with pytest.raises(DatabaseUnavailable):
        database.ping()
    assert feed.wait(0.1) is True
    postgres.start()

    assert eventually(lambda: queued_job(database)).id != kept.id
    with database.read() as session:
        assert jobs.get(session, "default", kept.id) == kept
    assert feed.wait(QUICK_SECONDS) is True
    feed.close()
    database.dispose()


def fail_half_way(database: Database) -> None:
    with suppress(ZeroDivisionError), database.write() as session:
        make_dataset(session)
        _ = 1 / 0


def eventually(work: Callable[[], jobs.Job]) -> jobs.Job:
    """Do `work`, again while the pool still finds connections of the dead server."""
    end = time.monotonic() + 20
    while True:
        try:
            return work()
        except DatabaseUnavailable:
            if time.monotonic() > end:
                raise


def _schema(connection: sa.Connection) -> set[tuple[str, ...]]:
    """Return every table, index and constraint as the server itself spells it."""
    if connection.dialect.name == "sqlite":
        query = "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'alembic%' AND name NOT LIKE 'sqlite_auto%'"
        return {(name, _sorted_clauses(sql)) for name, sql in connection.execute(sa.text(query))}
    queries = (
        "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'",
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conname ~ '^(pk|fk|uq|ck)_'",
        """SELECT table_name || '.' || column_name,
                  concat_ws(' ', data_type, character_maximum_length, collation_name, is_nullable, column_default)
           FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'alembic_version'""",
    )
    return {tuple(row) for query in queries for row in connection.execute(sa.text(query))}


def _sorted_clauses(sql: str) -> str:
    """Return a table's columns and constraints in an order of their own: a column added later comes last in SQLite."""
    clauses, depth = [""], 0
    for character in " ".join(sql.split()):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth == 1:
            clauses.append("")
        elif not (character in "()" and depth <= (character == "(")):
            clauses[-1] += character
    return "\n".join(sorted(clause.strip() for clause in clauses))
