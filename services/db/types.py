"""Column types and the database's clock, the same on PostgreSQL and SQLite.

Only the database tells the time: `now()` compiles to `clock_timestamp()`, which PostgreSQL has and
which every SQLite connection of ours gets registered. Text is cleaned of what PostgreSQL refuses.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, TIMESTAMP, Dialect, Double, Float, String, Text, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine

ID_LENGTH = 26


class UtcTime(TypeDecorator[datetime]):
    """Aware UTC datetimes of microseconds: timestamptz on PostgreSQL, seconds since 1970 on SQLite."""

    impl = Float
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(TIMESTAMP(timezone=True))
        return dialect.type_descriptor(Float())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a time without its zone: {value!r}")
        return value if dialect.name == "postgresql" else value.timestamp()

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.astimezone(UTC) if isinstance(value, datetime) else datetime.fromtimestamp(value, UTC)


class CleanText(TypeDecorator[str]):
    """Text from programs that may print anything: NUL and lone surrogates become replacement characters."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else clean_text(value)


def short_id() -> String:
    """An id of ours; PostgreSQL compares it bytewise, as SQLite does, so pages sort alike."""
    return String(ID_LENGTH).with_variant(String(ID_LENGTH, collation="C"), "postgresql")


class Document(TypeDecorator[Any]):
    """A JSON document: jsonb on PostgreSQL, text on SQLite; None is NULL."""

    impl = JSON
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name != "postgresql":
            return dialect.type_descriptor(JSON(none_as_null=True))
        # A fifth of a second of imports that the embedded default does without.
        from sqlalchemy.dialects.postgresql import JSONB

        return dialect.type_descriptor(JSONB(none_as_null=True))


def clean_text(value: str) -> str:
    return value.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")


def dump_json(value: Any) -> str:
    """Serialise for a document column; figures and text that JSON has no form for are replaced, never refused.

    NaN and infinities become the strings of protobuf's JSON mapping.
    """
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    except ValueError:
        return json.dumps(_clean(value), allow_nan=False, separators=(",", ":"))
    # A lone surrogate or a NUL shows as one of these escapes; the check is loose, cleaning is exact.
    if "\\u0000" in text or "\\ud" in text:
        return json.dumps(_clean(value), allow_nan=False, separators=(",", ":"))
    return text


def _clean(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    return value


class now(FunctionElement[datetime]):  # noqa: N801 - reads as the SQL function it is
    """The database's own clock, `offset` seconds from now; never a clock of this process."""

    type = UtcTime()
    inherit_cache = True
    name = "now"

    def __init__(self, offset: float | ColumnElement[Any] | None = None) -> None:
        if isinstance(offset, int | float):
            offset = literal(float(offset), Float().with_variant(Double(), "postgresql"))
        super().__init__(*(() if offset is None else (offset,)))


@compiles(now)
def _now_elsewhere(element: now, compiler: SQLCompiler, **kw: Any) -> str:
    offset = compiler.process(element.clauses, **kw)
    return f"(clock_timestamp() + {offset})" if offset else "clock_timestamp()"


@compiles(now, "postgresql")
def _now_on_postgresql(element: now, compiler: SQLCompiler, **kw: Any) -> str:
    offset = compiler.process(element.clauses, **kw)
    return f"(clock_timestamp() + make_interval(secs => {offset}))" if offset else "clock_timestamp()"


class later(FunctionElement[datetime]):  # noqa: N801 - reads as a function, as `now` does
    """A time so many seconds after another, both expressions of the database."""

    type = UtcTime()
    inherit_cache = True
    name = "later"

    def __init__(self, time: ColumnElement[Any], seconds: ColumnElement[Any]) -> None:
        super().__init__(time, seconds)


@compiles(later)
def _later_elsewhere(element: later, compiler: SQLCompiler, **kw: Any) -> str:
    time, seconds = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"({time} + {seconds})"


@compiles(later, "postgresql")
def _later_on_postgresql(element: later, compiler: SQLCompiler, **kw: Any) -> str:
    time, seconds = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"({time} + make_interval(secs => {seconds}))"


class epoch(FunctionElement[datetime]):  # noqa: N801 - a constant of the database, as `now` is its clock
    """The first moment of 1970: before every other time."""

    type = UtcTime()
    inherit_cache = True
    name = "epoch"


@compiles(epoch)
def _epoch_elsewhere(element: epoch, compiler: SQLCompiler, **kw: Any) -> str:
    return "0.0"


@compiles(epoch, "postgresql")
def _epoch_on_postgresql(element: epoch, compiler: SQLCompiler, **kw: Any) -> str:
    return "'1970-01-01 00:00:00+00'::timestamptz"
