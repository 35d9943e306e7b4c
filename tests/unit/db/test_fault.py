"""What an administrator is told of a database that does not answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.core.errors import DatabaseUnavailable
from services.db.database import Database
from services.db.fault import unavailable

WRONG = """connection failed: connection to server at "10.0.0.1", port 5432 failed: FATAL:  password authentication failed
connection to server at "10.0.0.1", port 5432 failed: FATAL:  no pg_hba.conf entry"""


@pytest.mark.parametrize(
    ("said", "told"),
    [
        pytest.param(WRONG, f": {WRONG.splitlines()[0]}", id="the driver's first line"),
        pytest.param("\n  \nlate\n", ": late", id="that has words"),
        pytest.param("", ": OSError", id="a driver without words"),
        pytest.param("no host in postgresql+psycopg://u:hunter2@h/d", ": no host in ...", id="never an address"),
        pytest.param("option 'hunter2' is unknown", ": option '...' is unknown", id="never the password"),
    ],
)
def test_an_unavailable_database_says_what_its_driver_said(said: str, told: str) -> None:
    error = unavailable(OSError(said), password="hunter2")

    assert str(error) == f"The metadata database does not answer{told}"


@pytest.mark.parametrize("act", [Database.ping, Database.is_at_head, Database.changes])
def test_a_server_that_refuses_the_connection_is_told_from_one_that_refuses_the_user(act: object) -> None:
    database = Database("postgresql://somebody:hunter2@127.0.0.1:1/trainyard")

    with pytest.raises(DatabaseUnavailable, match="Connection refused") as caught:
        act(database)  # type: ignore[operator]

    assert "hunter2" not in str(caught.value)
    database.dispose()


def test_a_file_that_cannot_be_opened_is_unavailable_with_the_reason(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'nowhere' / 'metadata.sqlite3'}")

    with pytest.raises(DatabaseUnavailable, match="unable to open database file"):
        database.ping()
