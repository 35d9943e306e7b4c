"""Schema revisions, run from inside the processes; no command line and no configuration file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import inspect, text
from sqlalchemy.engine import Connection

from services.core.clock import Deadline
from services.core.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0009"
"""The newest revision; a test compares it with the scripts. Alembic itself is imported only to migrate."""
ADVISORY_LOCK = 7_305_210_966_158_001
"""Any constant: processes that migrate at once take turns on it."""
MIGRATION_PATIENCE_SECONDS = 1800.0
LOCK_POLL_SECONDS = 0.1


def upgrade(connection: Connection, *, revision: str = "head") -> None:
    """Upgrade; a second process waits for the first and then finds nothing to do.

    SQLite does it in one transaction. PostgreSQL takes one transaction a revision, and builds indexes outside
    of any, while others write; what a crash interrupts goes on with the next call.

    Raises:
        DatabaseUnavailable: another process migrates for longer than MIGRATION_PATIENCE_SECONDS.
    """
    _run(connection, "upgrade", revision)


def downgrade(connection: Connection, *, revision: str) -> None:
    """Take revisions back; data of dropped tables is gone."""
    _run(connection, "downgrade", revision)


def is_at_head(connection: Connection) -> bool:
    if not inspect(connection).has_table("alembic_version"):
        return False
    return set(connection.execute(text("SELECT version_num FROM alembic_version")).scalars()) == {HEAD}


def is_known(revision: str) -> bool:
    """Tell whether there is a script of this revision."""
    from alembic.script import ScriptDirectory

    return any(script.revision == revision for script in ScriptDirectory.from_config(_config()).walk_revisions())


def _run(connection: Connection, command: str, revision: str) -> None:
    from alembic import command as commands

    config = _config()
    config.attributes["connection"] = connection
    with _alone(connection):
        getattr(commands, command)(config, revision)


@contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    """Keep other migrations out: by the transaction itself on SQLite, by a lock of the session on PostgreSQL.

    The lock is polled for, not waited for: an index is built concurrently only once every transaction that
    began before has ended, and a statement that waits for a lock is one of those.
    """
    if connection.dialect.name != "postgresql":
        with connection.begin():
            yield
        return
    deadline = Deadline(MIGRATION_PATIENCE_SECONDS)
    while not _commit(connection, f"SELECT pg_try_advisory_lock({ADVISORY_LOCK})"):
        if deadline.is_over:
            raise DatabaseUnavailable("another process migrates the database for too long")
        time.sleep(LOCK_POLL_SECONDS)
    try:
        # Waiting behind a long query while everyone waits behind us is not fine; a revision that may wait says so.
        _commit(connection, "SELECT set_config('lock_timeout', '5s', false)")
        _commit(connection, "SELECT set_config('statement_timeout', '10min', false)")
        yield
    finally:
        # The session ends, and with it the lock and the settings.
        connection.invalidate()


def _commit(connection: Connection, statement: str) -> bool:
    with connection.begin():
        return bool(connection.execute(text(statement)).scalar_one())


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "services.db:migrations")
    config.set_main_option("path_separator", "os")
    return config
