"""Between frozen records and the columns of the same names."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def columns_of(record: type[DataclassInstance], table: sa.Table) -> list[sa.Column[Any]]:
    """Return the columns of `table` that a record carries; its other fields are derived by its store."""
    return [table.c[field.name] for field in fields(record) if field.name in table.c]


def values_of(record: DataclassInstance, table: sa.Table) -> dict[str, Any]:
    """Return what a record stores in the columns of `table`."""
    return {field.name: getattr(record, field.name) for field in fields(record) if field.name in table.c}
