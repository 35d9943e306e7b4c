"""Connections and transactions on PostgreSQL or SQLite. The only place that knows which one it is.

Every fault of the connection leaves as DatabaseUnavailable, after which the outcome of a transaction
is unknown; the stores say which of their functions may simply be called again.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import URL, Connection, Engine, make_url

from services.core.errors import DatabaseUnavailable, SettingsInvalid
from services.db import migrations
from services.db.changes import ChangeFeed, SqliteChangeFeed
from services.db.fault import unavailable
from services.db.leader import FileLeadership, Leadership
from services.db.session import Session
from services.db.types import dump_json

if TYPE_CHECKING:
    from services.db.postgres import Notifier

BUSY_SECONDS = 10.0

_DRIVERS = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
    "sqlite": "sqlite+pysqlite",
    "sqlite+pysqlite": "sqlite+pysqlite",
}


class Database:
    """One database and its pool. Threads may share it; a forked process builds its own.

    Raises:
        SettingsInvalid: the address is of no database that can be used.
    """

    def __init__(self, url: str, *, pool_size: int = 10) -> None:
        self.url = parse_url(url)
        self.is_postgres = self.url.get_backend_name() == "postgresql"
        self._engine = self._build_engine(pool_size)
        # Reads are single statements: without BEGIN and ROLLBACK each costs one round trip, not three.
        self._reading = self._engine.execution_options(
            **({"isolation_level": "AUTOCOMMIT"} if self.is_postgres else {"is_read": True})
        )
        self._notifier = self._build_notifier()
        # SQLite lets a waiting writer sleep up to 100 ms at a time; threads of one process queue here instead.
        self._writing = None if self.is_postgres else threading.Lock()

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Open one transaction that commits on a clean exit and rolls back on an exception.

        SQLite takes the write lock at the first statement. Transactions do not nest.

        Raises:
            DatabaseUnavailable: the database is away, locked too long, or the outcome is unknown.
        """
        with _faults_translated(self.url), self._write_turn(), self._engine.connect() as connection:
            session = Session(connection, is_read=False)
            yield session
            connection.commit()
        if self._notifier is not None and session.is_announced:
            self._notifier.notify()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Open a session for reading; every statement sees what was committed before it.

        Raises:
            DatabaseUnavailable: the database is away.
        """
        with _faults_translated(self.url), self._reading.connect() as connection:
            yield Session(connection, is_read=True)

    @contextmanager
    def snapshot(self) -> Iterator[Session]:
        """Open a session for reading whose statements all see the same moment; no writer waits for it.

        Raises:
            DatabaseUnavailable: the database is away.
        """
        options: dict[str, Any] = {"is_snapshot": True}
        if self.is_postgres:
            options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        with _faults_translated(self.url), self._engine.execution_options(**options).connect() as connection:
            session = Session(connection, is_read=True)
            self.take_time(session)
            yield session

    def take_time(self, session: Session) -> None:
        """Let much be done between two statements of the running transaction, which otherwise would be ended."""
        if self.is_postgres:
            from services.db import postgres

            session.execute(sa.text(postgres.TAKE_TIME))

    def migrate(self) -> None:
        """Bring the schema to the newest revision. Safe to run from many processes at once."""
        if not self.is_postgres and self.url.database:
            Path(self.url.database).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _faults_translated(self.url), self._write_turn(), self._engine.connect() as connection:
            migrations.upgrade(connection)

    def migrate_anew(self, revision: str) -> None:
        """Give a database without rows the schema of `revision`, whatever schema it has.

        Raises:
            ValueError: this code does not know the revision.
        """
        if not migrations.is_known(revision):
            raise ValueError(f"no revision {revision!r}")
        if not self.is_postgres and self.url.database:
            Path(self.url.database).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _faults_translated(self.url), self._write_turn():
            # Each ends its connection, and with it what it set there.
            with self._engine.connect() as connection:
                migrations.downgrade(connection, revision="base")
            with self._engine.connect() as connection:
                migrations.upgrade(connection, revision=revision)

    def is_at_head(self) -> bool:
        """Return whether the schema is the one this code expects."""
        with _faults_translated(self.url), self._reading.connect() as connection:
            return migrations.is_at_head(connection)

    def ping(self) -> None:
        """Return if the database answers.

        Raises:
            DatabaseUnavailable: it does not.
        """
        with self.read() as session:
            session.execute(sa.text("SELECT 1"))

    def changes(self) -> ChangeFeed:
        """Open a feed of commits; the caller closes it. One feed serves one waiting thread."""
        with _faults_translated(self.url):
            if self.is_postgres:
                from services.db import postgres

                return postgres.PostgresChangeFeed(postgres.conninfo(self._engine, self.url))
            return SqliteChangeFeed(self._connect_sqlite, Path(self.url.database or ""))

    def leadership(self, name: str) -> Leadership:
        """Return the election called `name` among all processes on this database."""
        if self.is_postgres:
            from services.db import postgres

            return postgres.PostgresLeadership(postgres.conninfo(self._engine, self.url), name)
        return FileLeadership(Path(f"{self.url.database}.{name}.lock"))

    def dispose(self) -> None:
        """Close idle connections and send pending notifications; the object stays usable."""
        if self._notifier is not None:
            self._notifier.close()
            self._notifier = self._build_notifier()
        self._engine.dispose()

    def _build_engine(self, pool_size: int) -> Engine:
        options: dict[str, Any] = {"pool_size": pool_size, "max_overflow": pool_size, "pool_timeout": BUSY_SECONDS}
        options["json_serializer"] = dump_json
        if self.is_postgres:
            from services.db import postgres

            return sa.create_engine(self.url, connect_args=postgres.CONNECT_ARGUMENTS, **options)
        engine = sa.create_engine(self.url, connect_args={"timeout": BUSY_SECONDS}, **options)
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
        return engine

    @contextmanager
    def _write_turn(self) -> Iterator[None]:
        if self._writing is None:
            yield
            return
        if not self._writing.acquire(timeout=BUSY_SECONDS):
            raise DatabaseUnavailable("another transaction of this process holds the database too long")
        try:
            yield
        finally:
            self._writing.release()

    def _build_notifier(self) -> Notifier | None:
        if not self.is_postgres:
            return None
        from services.db import postgres

        return postgres.Notifier(postgres.conninfo(self._engine, self.url))

    def _connect_sqlite(self) -> sqlite3.Connection:
        # Autocommit: the feed only reads, and its connection may be closed by another thread.
        connection = sqlite3.connect(
            self.url.database or "", timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA query_only=ON")
        return connection


def parse_url(text: str) -> URL:
    """Return an address of a database with the driver that is used for it.

    Raises:
        SettingsInvalid: it is none, or of a kind of database that cannot be used. It is not repeated: it may hold a
            password.
    """
    try:
        url = make_url(text)
        return url.set(drivername=_DRIVERS[url.drivername])
    except (exc.ArgumentError, ValueError, KeyError) as err:
        raise SettingsInvalid(
            "TRAINYARD_DATABASE_URL must be postgresql://user:password@host:port/database or sqlite:////path"
        ) from err


@contextmanager
def _faults_translated(url: URL) -> Iterator[None]:
    """Turn faults of the connection into DatabaseUnavailable; mistakes of ours stay what they are."""
    try:
        yield
    except (exc.DBAPIError, exc.TimeoutError) as err:
        if not _is_fault(err):
            raise
        cause = err.orig if isinstance(err, exc.DBAPIError) and err.orig is not None else err
        raise unavailable(cause, password=url.password) from err


def _is_fault(err: Exception) -> bool:
    if not isinstance(err, exc.DBAPIError):
        return True
    # SQLite reports a missing table as an OperationalError too; its primary code tells it from a fault.
    if isinstance(err.orig, sqlite3.Error):
        code = getattr(err.orig, "sqlite_errorcode", None)
        return isinstance(err, exc.OperationalError) and code is not None and code & 0xFF != sqlite3.SQLITE_ERROR
    return err.connection_invalidated or isinstance(err, exc.OperationalError | exc.InterfaceError)


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # transactions begin where we say, in _begin_sqlite
    # Microseconds that a datetime carries exactly, so that paging by equality of times works.
    connection.create_function("clock_timestamp", 0, _wall_clock)
    connection.execute(f"PRAGMA busy_timeout={int(BUSY_SECONDS * 1000)}")
    _switch_to_wal(connection)
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")


def _wall_clock() -> float:
    return round(time.time(), 6)


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Set the journal mode; two processes that convert a fresh file at once do not wait for each other."""
    end = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    options = connection.get_execution_options()
    if options.get("is_snapshot"):
        connection.exec_driver_sql("BEGIN")
    elif not options.get("is_read"):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
