"""INSERT with a conflict clause, in the dialect of the session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Table
from sqlalchemy.dialects import sqlite

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql

    Insert = postgresql.Insert | sqlite.Insert


def insert_into(dialect: str, table: Table) -> Insert:
    """Return an INSERT that knows `on_conflict_do_nothing` and `on_conflict_do_update`."""
    if dialect != "postgresql":
        return sqlite.insert(table)
    # A fifth of a second of imports that the embedded default does without.
    from sqlalchemy.dialects import postgresql

    return postgresql.insert(table)
