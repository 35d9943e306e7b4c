from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from services.backup.vault import Vault
from services.storage.local import LocalStore
from tests.integration.backup.lived_in import LivedIn, lived_in
from tests.stack.postgres import PostgresMissing, PostgresServer, postgres_process


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[LivedIn]:
    with lived_in(tmp_path / "platform") as platform:
        yield platform


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(LocalStore(tmp_path / "vault"))


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    try:
        with postgres_process(tmp_path_factory.mktemp("postgres"), in_memory=True) as server:
            yield server
    except PostgresMissing as err:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(err))


@pytest.fixture
def make_url(postgres: PostgresServer) -> Callable[[], str]:
    """Return the addresses of empty PostgreSQL databases, one a call."""
    numbers = count()

    def make() -> str:
        name = f"backup_{next(numbers)}_{os.urandom(4).hex()}"
        postgres.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        return postgres.url_of(name)

    return make
