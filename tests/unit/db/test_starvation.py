"""Nothing starves: the bounds of `services.db.schedule`, shown in virtual time under streams that never end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from services.core.states import JobState
from services.db import jobs
from services.db.schedule import PRIORITY_STEP_SECONDS, SHARE_SECONDS
from tests.stack.builders import make_dataset, make_job
from tests.stack.virtual import START, VirtualClock, VirtualDatabase

QUEUE = "train.cpu"
JOB_SECONDS = 600.0


class Yard:
    """A queue and slots that are never idle."""

    def __init__(self, path: Path) -> None:
        self.clock = VirtualClock()
        self.database = VirtualDatabase(path, self.clock)
        self.database.migrate()
        self._datasets: dict[str, str] = {}

    def submit(self, project: str = "default", *, priority: int = 0) -> str:
        with self.database.write() as session:
            if project not in self._datasets:
                self._datasets[project] = make_dataset(session, project=project).id
            return make_job(session, self._datasets[project], project=project, priority=priority).id

    def start_next(self) -> jobs.Lease:
        with self.database.write() as session:
            lease = jobs.claim_next(session, [QUEUE], worker_id="w", ttl_seconds=1e9)
        assert lease is not None
        return lease

    def end(self, lease: jobs.Lease) -> None:
        with self.database.write() as session:
            jobs.finish(session, lease, state=JobState.FAILED)

    def starts_until(self, job_id: str, arrive: Callable[[], object], *, limit: int = 300) -> list[jobs.Lease]:
        """Run one job after another, `arrive` before each, and return those that started up to `job_id`."""
        started: list[jobs.Lease] = []
        while not started or started[-1].job_id != job_id:
            assert len(started) < limit, "the job starves"
            arrive()
            started.append(self.start_next())
            self.clock.advance(JOB_SECONDS)
            self.end(started[-1])
        return started

    def age(self, job_id: str) -> float:
        with self.database.read() as session:
            return jobs.get(session, "default", job_id).create_time.timestamp() - START


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path / "yard.sqlite3")


@pytest.mark.parametrize("arrivals", [1, 2], ids=["as fast as they run", "twice as fast"])
def test_low_priority_is_overtaken_only_by_jobs_created_within_the_bound(yard: Yard, arrivals: int) -> None:
    low = yard.submit(priority=10)
    bound = (10 - -10) * PRIORITY_STEP_SECONDS

    def arrive() -> None:
        for _ in range(arrivals):
            yard.submit(priority=-10)

    started = yard.starts_until(low, arrive)

    overtook = [yard.age(lease.job_id) for lease in started[:-1]]
    assert max(overtook) < bound
    # It did wait: the stream was preferred for as long as the bound allows.
    assert max(overtook) > bound - 2 * JOB_SECONDS
    assert len(started) <= arrivals * bound / JOB_SECONDS + arrivals


def test_job_of_another_project_waits_one_turn_of_each_however_high_their_priorities(yard: Yard) -> None:
    for project in ("b", "c"):
        for _ in range(20):
            yard.submit(project, priority=-100)
    for _ in range(4):
        yard.end(yard.start_next())
        yard.clock.advance(JOB_SECONDS)
    mine = yard.submit("a", priority=100)

    def arrive() -> None:
        yard.submit("b", priority=-100), yard.submit("c", priority=-100)

    assert len(yard.starts_until(mine, arrive)) <= 3


def test_project_that_holds_a_slot_for_long_gets_another_within_its_share(yard: Yard) -> None:
    yard.submit("a")
    held = yard.start_next()
    second = yard.submit("a")
    begin = yard.clock.now

    def arrive() -> None:
        yard.submit("b"), yard.submit("c")

    yard.starts_until(second, arrive)

    waited = yard.clock.now - begin
    assert SHARE_SECONDS - 2 * JOB_SECONDS < waited <= SHARE_SECONDS + 3 * JOB_SECONDS
    yard.end(held)
