"""What an agent's log holds of a database that is away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from services.agent.agent import Agent
from services.agent.report import Reporter
from services.core.errors import DatabaseUnavailable
from services.core.settings import Settings
from services.db.database import Database
from services.storage.local import LocalStore


class Away:
    """A database that does not answer so many times."""

    def __init__(self, database: Database, *, misses: int) -> None:
        self._database = database
        self._misses = misses

    @contextmanager
    def read(self) -> Iterator[Any]:
        self._miss()
        with self._database.read() as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Any]:
        self._miss()
        with self._database.write() as session:
            yield session

    def _miss(self) -> None:
        self._misses -= 1
        if self._misses >= 0:
            raise DatabaseUnavailable


@pytest.fixture
def away(tmp_path: Path) -> Iterator[Any]:
    database = Database(f"sqlite:///{tmp_path / 'metadata.sqlite3'}")
    database.migrate()
    yield Away(database, misses=20)
    database.dispose()


def test_an_agent_says_once_that_it_does_not_know_what_is_wanted_and_when_it_does_again(
    tmp_path: Path, away: Any
) -> None:
    agent = Agent(
        Settings(state_dir=tmp_path),
        database=away,
        objects=LocalStore(tmp_path / "objects"),
        agent_id="a",
        is_launching=False,
    )

    with capture_logs() as logs:
        for _ in range(22):
            agent._read_wanted()

    assert [line["event"] for line in logs] == ["desired_unknown", "desired_known_again"]


def test_a_reporter_says_once_that_nobody_takes_its_reports_and_when_somebody_does_again(away: Any) -> None:
    settings: Any = SimpleNamespace(
        agent_advertise_host="", host="h", torchserve_inference_port=1, torchserve_grpc_port=2
    )
    reporter = Reporter(settings, away, "a")

    with capture_logs() as logs:
        for _ in range(22):
            reporter.report((), None)

    assert [line["event"] for line in logs] == ["report_failed", "report_sent_again"]
