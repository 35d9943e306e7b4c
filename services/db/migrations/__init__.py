"""Schema revisions, run from inside the processes; no command line and no configuration file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import inspect, text
from sqlalchemy.engine import Connection

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0002"
"""The newest revision; a test compares it with the scripts. Alembic itself is imported only to migrate."""
ADVISORY_LOCK = 7_305_210_966_158_001
"""Any constant: processes that migrate at once take turns on it."""


def upgrade(connection: Connection, *, revision: str = "head") -> None:
    """Upgrade in one transaction; a second process waits, then finds nothing to do."""
    from alembic import command

    with connection.begin():
        if connection.dialect.name == "postgresql":
            # Waiting for another migration is fine; waiting behind a long query while blocking everyone is not.
            connection.execute(text("SET LOCAL lock_timeout = '60s'"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
            connection.execute(text("SET LOCAL lock_timeout = '5s'"))
            connection.execute(text("SET LOCAL statement_timeout = '10min'"))
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def downgrade(connection: Connection, *, revision: str) -> None:
    """Take revisions back in one transaction; data of dropped tables is gone."""
    from alembic import command

    with connection.begin():
        config = _config()
        config.attributes["connection"] = connection
        command.downgrade(config, revision)


def is_at_head(connection: Connection) -> bool:
    if not inspect(connection).has_table("alembic_version"):
        return False
    return set(connection.execute(text("SELECT version_num FROM alembic_version")).scalars()) == {HEAD}


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "services.db:migrations")
    config.set_main_option("path_separator", "os")
    return config
