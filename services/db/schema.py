"""Waiting for a database that answers and has the schema this code expects."""

from __future__ import annotations

import time

import structlog

from services.core.clock import Deadline
from services.core.errors import DatabaseUnavailable
from services.db.database import Database

log = structlog.get_logger(__name__)

POLL_SECONDS = 0.5


def wait_for_schema(database: Database, *, patience_seconds: float = 60.0) -> None:
    """Return once the schema is at its newest revision; somebody else migrates it.

    Raises:
        DatabaseUnavailable: it still is not after `patience_seconds`.
    """
    deadline = Deadline(patience_seconds)
    has_said = False
    while (why := _what_is_missing(database)) is not None:
        if deadline.is_over:
            raise DatabaseUnavailable(why)
        if not has_said:
            log.warning("waiting_for_database", reason=why)
            has_said = True
        time.sleep(POLL_SECONDS)


def _what_is_missing(database: Database) -> str | None:
    try:
        return None if database.is_at_head() else "the schema is not at its newest revision; migrate the database"
    except DatabaseUnavailable as err:
        return str(err)
