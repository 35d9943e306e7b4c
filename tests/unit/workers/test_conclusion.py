"""An attempt whose last write was carried out, but not answered, ended all the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.core.errors import LeaseLost
from services.core.retry import Backoff
from services.core.settings import Settings
from services.core.states import FailureReason, JobState
from services.db import jobs
from services.db.database import Database
from services.db.session import Session
from services.storage.local import LocalStore
from tests.stack.builders import queued_job
from tests.unit.workers.test_recorder import ForgetfulDatabase
from workers.conclusion import Conclusion
from workers.outcome import Outcome, Verdict, failed
from workers.recorder import Recorder
from workers.runtime import Runtime
from workers.stop import Latch, StopReason, StopRequest
from workers.uploads import Uploader

ENDINGS = [
    pytest.param(failed(FailureReason.NON_FINITE_LOSS, "nan"), Verdict.FAIL, JobState.FAILED, id="failed"),
    pytest.param(Outcome(Verdict.REQUEUE), Verdict.REQUEUE, JobState.QUEUED, id="given back"),
]


class BeatenDatabase(ForgetfulDatabase):
    """Lets a heartbeat come between a write whose answer gets lost and its repetition."""

    beat: Callable[[], None]

    @contextmanager
    def write(self) -> Iterator[Session]:
        try:
            with super().write() as session:
                yield session
        finally:
            self.beat()


@pytest.mark.parametrize(("outcome", "verdict", "state"), ENDINGS)
def test_an_end_that_its_own_heartbeat_meets_is_no_lost_lease(
    tmp_path: Path, outcome: Outcome, verdict: Verdict, state: JobState
) -> None:
    database = BeatenDatabase(f"sqlite:///{tmp_path / 'metadata.sqlite3'}")
    database.migrate()
    plain = Database(str(database.url))
    job = queued_job(plain)
    with plain.write() as session:
        lease = jobs.claim(session, job.id, worker_id="w", ttl_seconds=60)
    stop = StopRequest(Latch())

    def beat() -> None:
        try:
            with plain.read() as session:
                jobs.desired(session, lease)
        except LeaseLost:
            stop.request(StopReason.LOST)

    database.beat = beat
    store = LocalStore(tmp_path / "objects")
    runtime = SimpleNamespace(settings=Settings(), database=database, store=store, backoff=Backoff())
    recorder = Recorder(plain, lease, stop)
    uploader = Uploader(store, plain, lease, stop, family="classification")

    conclusion = Conclusion(cast("Runtime", cast("Any", runtime)), lease, job, tmp_path, stop)
    reached = conclusion.write(outcome, recorder, uploader)

    assert stop.is_lost
    assert reached is verdict
    with plain.read() as session:
        assert jobs.get(session, lease.project, job.id).state is state
    plain.dispose()
    database.dispose()
