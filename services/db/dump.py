"""Rows of every table as JSON that any database takes back: what a backup of the metadata is made of.

A dump names its revision and the kind of every column, so that it can be loaded into the schema of its
own time, by code that knows only a later one, and then be migrated.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import TypeEngine

from services.core.errors import IntegrityError, PreconditionFailed
from services.db import tables as t
from services.db.database import Database
from services.db.session import Session
from services.db.types import Document, UtcTime

BATCH = 1000

# Facts about processes that run now, which the next ones report anew; with `agents` go the tokens of TorchServe.
_OF_THE_MOMENT = frozenset({"agents", "replicas", "workers", "devices"})

Row = dict[str, Any]
Kinds = Mapping[str, str]
"""Kind of each column of a table, by name."""

_KINDS: dict[str, TypeEngine[Any]] = {
    "time": UtcTime(),
    "json": Document(),
    "bool": sa.Boolean(),
    "int": sa.BigInteger(),
    "float": sa.Float(53),
    "text": sa.Text(),
    "bytes": sa.LargeBinary(),
}


def dumped_tables() -> dict[str, Kinds]:
    """Return the tables of a dump with their columns, those that others refer to first."""
    return {
        table.name: {column.name: _kind(column) for column in table.columns}
        for table in t.metadata.sorted_tables
        if table.name not in _OF_THE_MOMENT
    }


def rows(session: Session, table_name: str) -> Iterator[Row]:
    """Yield the rows of a table in the order of their primary key, with times and bytes as text."""
    table = t.metadata.tables[table_name]
    times = [column.name for column in table.columns if _kind(column) == "time"]
    blobs = [column.name for column in table.columns if _kind(column) == "bytes"]
    query = sa.select(table).order_by(*table.primary_key.columns)
    result = session.execute(query, execution_options={"yield_per": BATCH})
    for found in result.mappings():
        row = dict(found)
        for name in times:
            if row[name] is not None:
                row[name] = row[name].isoformat()
        for name in blobs:
            if row[name] is not None:
                row[name] = base64.b64encode(row[name]).decode()
        yield row


def load(session: Session, table_name: str, kinds: Kinds, rows: Iterable[Row]) -> int:
    """Insert rows of a dump and return how many; the table is that of the dump's revision.

    Raises:
        IntegrityError: a kind of column is not known, or a value is not of its kind.
    """
    if unknown := set(kinds.values()) - _KINDS.keys():
        raise IntegrityError(f"the dump of {table_name} has columns of unknown kinds: {sorted(unknown)}")
    columns: list[sa.ColumnClause[Any]] = [sa.column(name, _KINDS[kind]) for name, kind in kinds.items()]
    insert = sa.insert(sa.table(table_name, *columns))
    parsers = {name: _PARSERS[kind] for name, kind in kinds.items() if kind in _PARSERS}
    count = 0
    for batch in _batches(rows):
        session.execute(insert, [_parsed(row, parsers, table_name) for row in batch])
        count += len(batch)
    return count


def prepare(database: Database, revision: str) -> None:
    """Give an empty database the schema of `revision`.

    Raises:
        PreconditionFailed: the database holds rows, or this code does not know the revision.
    """
    if occupied := _occupied(database):
        raise PreconditionFailed(
            f"the database is not empty (rows in {', '.join(occupied)}); restore into a new one, before its first start"
        )
    try:
        database.migrate_anew(revision)
    except ValueError as err:
        raise PreconditionFailed(f"the backup is of revision {revision}, which this release does not know") from err


def defer_references(session: Session) -> None:
    """Let SQLite check references at the end, like a database that is filled table by table in any order."""
    if session.dialect == "sqlite":
        session.execute(sa.text("PRAGMA defer_foreign_keys=ON"))


def settle_sequences(session: Session, tables: Mapping[str, Kinds]) -> None:
    """Move PostgreSQL's sequences past the numbers that were loaded."""
    if session.dialect != "postgresql":
        return
    for name, kinds in tables.items():
        for column in (column for column, kind in kinds.items() if kind == "int"):
            sequence = session.scalar(sa.select(sa.func.pg_get_serial_sequence(name, column)))
            if sequence is not None:
                highest = sa.select(sa.func.max(sa.column(column))).select_from(sa.table(name)).scalar_subquery()
                session.execute(sa.select(sa.func.setval(sequence, sa.func.coalesce(highest, 1))))


def _occupied(database: Database) -> list[str]:
    with database.snapshot() as session:
        there = set(sa.inspect(session.connection).get_table_names()) - {"alembic_version"}
        return sorted(
            name
            for name in there
            if session.execute(sa.select(sa.literal(1)).select_from(sa.table(name)).limit(1)).first() is not None
        )


def _kind(column: sa.Column[Any]) -> str:
    if isinstance(column.type, UtcTime):
        return "time"
    if isinstance(column.type, Document):
        return "json"
    if isinstance(column.type, sa.Boolean):
        return "bool"
    if isinstance(column.type, sa.Integer):
        return "int"
    if isinstance(column.type, sa.Float):
        return "float"
    if isinstance(column.type, sa.LargeBinary):
        return "bytes"
    # Decorated text such as CleanText is text to a dump.
    return "text"


def _decoded(value: str) -> bytes:
    return base64.b64decode(value, validate=True)


_PARSERS: Mapping[str, Callable[[str], Any]] = {"time": datetime.fromisoformat, "bytes": _decoded}


def _parsed(row: Row, parsers: Mapping[str, Callable[[str], Any]], table_name: str) -> Row:
    parsed = dict(row)
    for name, parse in parsers.items():
        if parsed[name] is not None:
            try:
                parsed[name] = parse(parsed[name])
            except (TypeError, ValueError) as err:
                raise IntegrityError(f"{table_name}.{name} of the dump cannot be read: {parsed[name]!r}") from err
    return parsed


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
