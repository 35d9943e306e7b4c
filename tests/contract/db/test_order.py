"""Whose turn it is: projects share, priorities order a project's jobs, some jobs give way; on both databases."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from services.core.errors import JobNotRunnable
from services.core.states import Desired, JobState
from services.db import jobs, projects, workers
from services.db import tables as t
from services.db.database import Database
from services.db.schedule import PRIORITY_STEP_SECONDS
from services.db.types import now
from tests.stack.builders import make_dataset, make_job, new_checkpoint
from tests.stack.invariants import violations

QUEUE = "train.cpu"


@pytest.fixture(autouse=True)
def _invariants_hold_in_the_end(database: Database) -> Iterator[None]:
    yield
    assert violations(database) == []


@pytest.fixture
def submit(database: Database) -> Callable[..., str]:
    """Store a job of a project, aged by so many seconds, and return its id."""
    datasets: dict[str, str] = {}

    def submit(project: str = "default", *, age_seconds: float = 0.0, **changes: Any) -> str:
        with database.write() as session:
            if project not in datasets:
                datasets[project] = make_dataset(session, project=project).id
            job = make_job(session, datasets[project], project=project, **changes)
            place = now(changes.get("priority", 0) * PRIORITY_STEP_SECONDS - age_seconds)
            session.execute(sa.update(t.jobs).where(t.jobs.c.id == job.id).values(order_time=place))
        return job.id

    return submit


def claim_next(database: Database, *, worker_id: str = "a") -> jobs.Lease | None:
    with database.write() as session:
        return jobs.claim_next(session, [QUEUE], worker_id=worker_id, ttl_seconds=60)


def claim_all(database: Database) -> list[jobs.Lease]:
    return list(iter(lambda: claim_next(database), None))


def projects_of(leases: Sequence[jobs.Lease]) -> str:
    return "".join(lease.project[0] for lease in leases)


def has_workers(database: Database, *, slots: int, is_disk_full: bool = False) -> None:
    info = workers.WorkerInfo(
        id="a", host="h", boot_id="b", pid=1, slots=slots, queues=[QUEUE], is_disk_full=is_disk_full
    )
    with database.write() as session:
        workers.heartbeat(session, info)


def preempt(database: Database, *, min_run_seconds: float = 0.0) -> list[tuple[str, str]]:
    with database.write() as session:
        asked = jobs.preempt(session, min_run_seconds=min_run_seconds)
    return [(one.job_id, one.for_job_id) for one in asked]


def test_projects_take_turns_however_long_their_backlogs_are(database: Database, submit: Callable[..., str]) -> None:
    for _ in range(6):
        submit("flood", age_seconds=86_400)
    for _ in range(2):
        submit("quiet")
    submit("tiny")

    assert projects_of(claim_all(database)) == "fqtfqffff"


def test_slot_goes_to_the_project_with_the_fewest_running_jobs(database: Database, submit: Callable[..., str]) -> None:
    submit("busy"), submit("busy")
    running = claim_all(database)
    submit("other")
    done = claim_all(database)
    with database.write() as session:
        jobs.finish(session, done[0], state=JobState.FAILED)

    # The other project had its turn last, but runs nothing.
    submit("busy"), submit("other")
    following = claim_all(database)

    assert projects_of(running) == "bb"
    assert projects_of(following) == "ob"


def test_projects_share_each_queue_by_itself(database: Database, submit: Callable[..., str]) -> None:
    submit("busy", queue="train.gpu")
    with database.write() as session:
        jobs.claim_next(session, ["train.gpu"], worker_id="g", ttl_seconds=60)
    submit("busy", age_seconds=60)
    submit("other")

    assert projects_of(claim_all(database)) == "bo"


def test_priority_orders_the_jobs_of_a_project(database: Database, submit: Callable[..., str]) -> None:
    low, normal, high = submit(priority=5), submit(priority=0), submit(priority=-5)

    assert [lease.job_id for lease in claim_all(database)] == [high, normal, low]


def test_waiting_makes_up_for_priority(database: Database, submit: Callable[..., str]) -> None:
    patient = submit(priority=5, age_seconds=5 * PRIORITY_STEP_SECONDS + 60)
    younger = submit(priority=5, age_seconds=5 * PRIORITY_STEP_SECONDS - 60)
    normal = submit(priority=0)

    assert [lease.job_id for lease in claim_all(database)] == [patient, normal, younger]


def test_project_at_its_running_quota_is_passed_over_until_a_job_ends(
    database: Database, submit: Callable[..., str]
) -> None:
    with database.write() as session:
        projects.insert(session, "small")
        projects.set_quotas(session, "small", {"max_running_jobs": 1})
    first, second = submit("small", age_seconds=600), submit("small", age_seconds=300)
    submit("other")

    leases = claim_all(database)
    with database.write() as session:
        sent = jobs.dispatch(session, window=8, redispatch_after_seconds=60)
    with pytest.raises(JobNotRunnable), database.write() as session:
        jobs.claim(session, second, worker_id="a", ttl_seconds=60)
    with database.write() as session:
        jobs.finish(session, leases[0], state=JobState.FAILED)

    assert [lease.job_id for lease in leases][:1] == [first]
    assert projects_of(leases) == "so"
    assert sent == []
    assert [lease.job_id for lease in claim_all(database)] == [second]


def test_backlog_of_a_full_project_leaves_room_for_messages_of_others(
    database: Database, submit: Callable[..., str]
) -> None:
    with database.write() as session:
        projects.insert(session, "a-full")
        projects.set_quotas(session, "a-full", {"max_running_jobs": 0})
    for _ in range(5):
        submit("a-full")
    other = submit("z-other")

    with database.write() as session:
        assert jobs.dispatch(session, window=3, redispatch_after_seconds=60) == [(other, QUEUE)]


def test_project_whose_jobs_all_wait_for_a_retry_is_passed_over(database: Database, submit: Callable[..., str]) -> None:
    submit("failing")
    lease = claim_next(database)
    assert lease is not None
    with database.write() as session:
        jobs.requeue(session, lease, is_charged=True, delay_seconds=3600)
    submit("other")

    assert projects_of(claim_all(database)) == "o"


def test_preemptible_job_gives_way_with_its_checkpoint_and_uncharged(
    database: Database, submit: Callable[..., str]
) -> None:
    has_workers(database, slots=1)
    low = submit(priority=5, is_preemptible=True)
    lease = claim_next(database)
    urgent = submit(priority=0)

    assert lease is not None
    assert preempt(database) == [(low, urgent)]
    assert preempt(database) == []  # one at a time
    with database.write() as session:
        assert jobs.renew(session, lease, ttl_seconds=60) is Desired.YIELD
        jobs.commit_checkpoint(session, lease, new_checkpoint(7))
        assert jobs.requeue(session, lease, is_charged=False) is JobState.QUEUED

    assert [lease.job_id for lease in claim_all(database)] == [urgent, low]
    with database.read() as session:
        job = jobs.get(session, "default", low)
        no_progress = session.execute(sa.select(t.jobs.c.no_progress).where(t.jobs.c.id == low)).scalar_one()
    assert (job.attempt, job.checkpoint_step, no_progress) == (1, 7, 0)


def test_job_that_gave_way_queues_behind_the_urgent_one_even_if_it_is_older(
    database: Database, submit: Callable[..., str]
) -> None:
    has_workers(database, slots=1)
    old = submit(priority=1, is_preemptible=True, age_seconds=86_400)
    lease = claim_next(database)
    assert lease is not None
    urgent = submit(priority=0)
    assert preempt(database) == [(old, urgent)]
    with database.write() as session:
        jobs.requeue(session, lease, is_charged=False)

    assert [lease.job_id for lease in claim_all(database)] == [urgent, old]


@pytest.mark.parametrize(
    ("running", "waiting", "slots"),
    [
        pytest.param({"priority": 5}, {"priority": 0}, 1, id="it did not agree"),
        pytest.param({"priority": 0, "is_preemptible": True}, {"priority": 0}, 1, id="it is as urgent"),
        pytest.param({"priority": 5, "is_preemptible": True}, {"priority": 0}, 2, id="a slot is free"),
    ],
)
def test_job_is_left_alone_where(
    database: Database,
    submit: Callable[..., str],
    running: dict[str, Any],
    waiting: dict[str, Any],
    slots: int,
) -> None:
    has_workers(database, slots=slots)
    submit(**running)
    assert claim_next(database) is not None
    submit(**waiting)

    assert preempt(database) == []


def test_no_job_gives_way_where_the_worker_that_frees_a_slot_would_claim_nothing(
    database: Database, submit: Callable[..., str]
) -> None:
    has_workers(database, slots=1, is_disk_full=True)
    low = submit(priority=5, is_preemptible=True)
    assert claim_next(database) is not None
    urgent = submit(priority=0)

    assert preempt(database) == []
    has_workers(database, slots=1)
    assert preempt(database) == [(low, urgent)]


def test_job_may_run_for_a_while_before_it_gives_way(database: Database, submit: Callable[..., str]) -> None:
    has_workers(database, slots=1)
    low = submit(priority=5, is_preemptible=True)
    assert claim_next(database) is not None
    urgent = submit(priority=0)

    assert preempt(database, min_run_seconds=600) == []
    with database.write() as session:
        session.execute(sa.update(t.attempts).values(start_time=now(-601)))
    assert preempt(database, min_run_seconds=600) == [(low, urgent)]


def test_project_that_holds_fewer_slots_gives_none_to_one_that_holds_more(
    database: Database, submit: Callable[..., str]
) -> None:
    has_workers(database, slots=3)
    small = submit("small", priority=5, is_preemptible=True)
    submit("large"), submit("large")
    assert len(claim_all(database)) == 3
    submit("large", priority=-10)

    assert preempt(database) == []
    submit("small", priority=-10)
    assert [victim for victim, _ in preempt(database)] == [small]


def test_lowest_priority_gives_way_first(database: Database, submit: Callable[..., str]) -> None:
    has_workers(database, slots=2)
    submit(priority=1, is_preemptible=True)
    lowest = submit(priority=9, is_preemptible=True)
    assert len(claim_all(database)) == 2
    submit(priority=0)

    assert [victim for victim, _ in preempt(database)] == [lowest]
