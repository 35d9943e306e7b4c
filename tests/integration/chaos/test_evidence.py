"""The checker of the fault matrix tells a lost checkpoint from one that retention removes meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.core.settings import Settings
from services.db import checkpoints, jobs
from services.db.database import Database
from services.storage.local import LocalStore
from tests.stack.builders import new_checkpoint, queued_job
from tests.stack.evidence import Evidence, evidence_violations

STEPS = (10, 20)


class Retiring(LocalStore):
    """Retention takes the oldest checkpoint the moment somebody reads."""

    database: Database
    job_id: str

    def get(self, key: str, *, sha256: str | None = None) -> bytes:
        with self.database.write() as session:
            oldest = checkpoints.list_all(session, self.job_id)[0]
            checkpoints.mark_deleting(session, [oldest.id])
        return super().get(key, sha256=sha256)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(Settings(state_dir=tmp_path).resolved_database_url)
    database.migrate()
    yield database
    database.dispose()


@pytest.fixture
def job_id(database: Database) -> str:
    """A job with checkpoints in the database, and none in any store."""
    job = queued_job(database)
    with database.write() as session:
        lease = jobs.claim(session, job.id, worker_id="a", ttl_seconds=60)
        for step in STEPS:
            jobs.commit_checkpoint(session, lease, new_checkpoint(step))
    return job.id


def broken_steps(database: Database, store: LocalStore) -> list[int]:
    found = evidence_violations(database, Evidence(store=store))
    return [int(text.partition("I5: checkpoint ")[2].split()[0]) for text in found]


def test_a_committed_checkpoint_without_its_objects_is_told(database: Database, job_id: str, tmp_path: Path) -> None:
    assert broken_steps(database, LocalStore(tmp_path / "objects")) == list(STEPS)


def test_one_that_retention_removes_meanwhile_is_not(database: Database, job_id: str, tmp_path: Path) -> None:
    store = Retiring(tmp_path / "objects")
    store.database, store.job_id = database, job_id

    assert broken_steps(database, store) == [STEPS[-1]]
