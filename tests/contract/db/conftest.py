"""Every database test runs on SQLite and on a real PostgreSQL, each test on a migrated copy of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from services.db.database import Database
from tests.stack.install import required_parts
from tests.stack.invariants import violations
from tests.stack.postgres import PostgresServer, postgres_process

_numbers = count()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.sqlite3"
    database = Database(f"sqlite:///{path}")
    database.migrate()
    database.dispose()
    return path


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with required_parts(), postgres_process(tmp_path_factory.mktemp("postgres"), in_memory=True) as server:
        server.execute("CREATE DATABASE template")
        database = Database(server.url_of("template"))
        database.migrate()
        database.dispose()
        yield server


@pytest.fixture
def empty_sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'empty.sqlite3'}"


@pytest.fixture
def empty_postgres_url(postgres: PostgresServer) -> Iterator[str]:
    yield from _created(postgres, "TEMPLATE template0")


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    shutil.copy(sqlite_template, tmp_path / "metadata.sqlite3")
    return f"sqlite:///{tmp_path / 'metadata.sqlite3'}"


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    yield from _created(postgres, "TEMPLATE template")


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(f"empty_{request.param}_url")
    return found


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    opened = Database(url)
    yield opened
    opened.dispose()


@pytest.fixture
def invariants_hold_in_the_end(database: Database) -> Iterator[None]:
    yield
    assert violations(database) == []


def _created(server: PostgresServer, template: str) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    server.execute(f"CREATE DATABASE {name} {template}")
    yield server.url_of(name)
    server.execute(f"DROP DATABASE {name} WITH (FORCE)")
