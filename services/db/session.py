"""What the stores work on: one connection, its transaction, and notes for the length of it."""

from __future__ import annotations

from typing import Any

from sqlalchemy.engine import Connection


class Session:
    """One transaction, or a series of reads. Core statements only: there are no mapped objects to track."""

    def __init__(self, connection: Connection, *, is_read: bool) -> None:
        self.connection = connection
        self.is_read = is_read
        self.is_announced = False
        """Whether others wait for what this transaction wrote."""
        self.info: dict[str, Any] = {}
        """Notes of the code that shares this transaction; gone with it."""
        self.execute = connection.execute
        self.scalar = connection.scalar
        self.scalars = connection.scalars

    @property
    def dialect(self) -> str:
        return self.connection.dialect.name
