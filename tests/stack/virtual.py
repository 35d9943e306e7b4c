"""A SQLite database that lives in virtual time: the stores of the product on a clock that a test moves."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from services.db.database import Database

START = 1_800_000_000.0


class VirtualClock:
    """Seconds since 1970, moved by hand."""

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class VirtualDatabase(Database):
    """The product's database whose `clock_timestamp()` asks `clock`; it waits for no disk."""

    def __init__(self, path: Path, clock: VirtualClock) -> None:
        super().__init__(f"sqlite:///{path}")
        self.clock = clock
        sa.event.listen(self._engine, "connect", self._set_clock)

    def _set_clock(self, connection: sqlite3.Connection, _record: Any) -> None:
        connection.create_function("clock_timestamp", 0, lambda: round(self.clock(), 6))
        connection.execute("PRAGMA synchronous=OFF")
