"""Events survive answers that get lost: each is written once, in order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.core.clock import Deadline
from services.core.errors import DatabaseUnavailable
from services.db import jobs
from services.db.database import Database
from services.db.jobs import Lease
from services.db.session import Session
from tests.stack.builders import queued_job
from workers.recorder import Recorder
from workers.stop import Latch, StopRequest


class ForgetfulDatabase(Database):
    """Carries out every second transaction without telling."""

    count = 0

    @contextmanager
    def write(self) -> Iterator[Session]:
        with super().write() as session:
            yield session
        self.count += 1
        if self.count % 2:
            raise DatabaseUnavailable


@pytest.fixture
def database(tmp_path: Path) -> Iterator[ForgetfulDatabase]:
    database = ForgetfulDatabase(f"sqlite:///{tmp_path / 'metadata.sqlite3'}")
    database.migrate()
    yield database
    database.dispose()


@pytest.fixture
def lease(database: ForgetfulDatabase) -> Lease:
    plain = Database(str(database.url))
    job = queued_job(plain)
    with plain.write() as session:
        return jobs.claim(session, job.id, worker_id="w", ttl_seconds=60)


def test_lines_whose_answer_got_lost_are_written_once(
    database: ForgetfulDatabase, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.recorder.RETRY_SECONDS", 0.001)
    recorder = Recorder(database, lease, StopRequest(Latch()))
    recorder.start()
    for number in range(1, 301):
        recorder.add("step", {"step": number, "total": 300})

    assert recorder.flush(Deadline(30))
    recorder.close()

    with database.read() as session:
        told = [event.payload["step"] for event in jobs.events_after(session, lease.job_id, 2, 1000)]
    assert told == list(range(1, 301))
    assert database.count > 2
