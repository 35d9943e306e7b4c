"""Schema changes that hold no lock a writer would notice; used by the revisions.

On PostgreSQL they run outside the revision's transaction, so a revision that uses them must be safe to
begin again after a crash. SQLite has one writer at a time anyway: there they are plain statements.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import sqlalchemy as sa
from alembic import op


def create_index(name: str, table: str, columns: Sequence[str], *, where: str | None = None) -> None:
    """Create an index beside running writers; one left half built by a crash is built anew."""
    condition = None if where is None else sa.text(where)
    if not _is_postgres():
        op.create_index(name, table, columns, sqlite_where=condition)
        return
    with _outside_transactions():
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        op.create_index(name, table, columns, postgresql_where=condition, postgresql_concurrently=True)


def drop_index(name: str, table: str) -> None:
    """Drop an index beside running writers; one that is gone is no error."""
    if not _is_postgres():
        op.drop_index(name, table, if_exists=True)
        return
    with _outside_transactions():
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")


def replace_check(table: str, name: str, *, before: str, after: str) -> None:
    """Put another condition in place of a check; on PostgreSQL old rows are looked at by `validate_checks` only.

    Raises:
        RuntimeError: the table's check is not `before`.
    """
    if _is_postgres():
        op.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}, ADD CONSTRAINT {name} CHECK ({after}) NOT VALID")
        return
    _edit_sqlite_schema(table, f"CONSTRAINT {name} CHECK ({before})", f"CONSTRAINT {name} CHECK ({after})")


def validate_checks(table: str, names: Sequence[str]) -> None:
    """Hold the rows from before against checks made by `replace_check`, while others write."""
    if not _is_postgres():
        return
    with _outside_transactions():
        for name in names:
            op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}")


def update_in_batches(statement: str) -> None:
    """Run an UPDATE of a few rows again and again until it finds none, each time in a transaction of its own."""
    connection = op.get_bind()
    if not _is_postgres():
        while connection.execute(sa.text(statement)).rowcount:
            continue
        return
    with _outside_transactions():
        while op.get_bind().execute(sa.text(statement)).rowcount:
            continue


@contextmanager
def _outside_transactions() -> Iterator[None]:
    """Wait as long as it takes: building an index waits for every transaction begun before, and blocks nobody."""
    with op.get_context().autocommit_block():
        bind = op.get_bind()
        names = ("lock_timeout", "statement_timeout")
        before = [bind.execute(sa.text(f"SHOW {name}")).scalar_one() for name in names]
        for name in names:
            bind.execute(sa.text("SELECT set_config(:name, '0', false)"), {"name": name})
        yield
        for name, value in zip(names, before, strict=True):
            bind.execute(sa.text("SELECT set_config(:name, :value, false)"), {"name": name, "value": value})


def _is_postgres() -> bool:
    return op.get_bind().dialect.name == "postgresql"


def _edit_sqlite_schema(table: str, before: str, after: str) -> None:
    """Replace part of a table's definition: SQLite's own way to change a check without copying the table.

    See "Making Other Kinds Of Table Schema Changes" in sqlite.org/lang_altertable.html.
    """
    connection = op.get_bind()
    find = sa.text("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = :name")
    found: str = connection.execute(find, {"name": table}).scalar_one()
    if found.count(before) != 1:
        raise RuntimeError(f"table {table} has no {before!r}")
    version = int(connection.exec_driver_sql("PRAGMA schema_version").scalar_one())
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    edit = sa.text("UPDATE sqlite_master SET sql = :sql WHERE type = 'table' AND name = :name")
    connection.execute(edit, {"sql": found.replace(before, after), "name": table})
    connection.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")
    connection.exec_driver_sql("PRAGMA writable_schema = RESET")
