"""Leases: who runs a job, and what anybody else may not write, on both databases."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.orm import Session

from services.core.clock import Deadline
from services.core.errors import JobNotFound, JobNotRunnable, LeaseHeld, LeaseLost
from services.core.states import AttemptState, Desired, FailureReason, JobState
from services.db import artifacts, checkpoints, jobs
from services.db.database import Database
from services.db.transitions import NO_PROGRESS_LIMIT
from tests.stack.builders import make_dataset, make_job, new_checkpoint, new_model_version, queued_job
from tests.stack.jobs import CRASH, EXPIRED, claimed, current, in_threads, kinds, reaped

pytestmark = pytest.mark.usefixtures("invariants_hold_in_the_end")


def test_claim_gives_a_higher_token_each_time(database: Database) -> None:
    job = queued_job(database)
    first = claimed(database, job, ttl_seconds=EXPIRED)
    assert [item.state for item in reaped(database)] == [JobState.QUEUED]

    second = claimed(database, job)

    assert second.token > first.token
    assert current(database, job).state is JobState.RUNNING


def test_second_claim_of_a_running_job_finds_the_lease_held(database: Database) -> None:
    job = queued_job(database)
    claimed(database, job)

    with pytest.raises(LeaseHeld):
        claimed(database, job, worker_id="b")


def test_the_lease_of_a_dead_worker_is_reaped_at_once_and_like_any_other(database: Database) -> None:
    job = queued_job(database)
    lease = claimed(database, job)
    assert reaped(database) == []

    with database.write() as session:
        assert jobs.let_run_out(session, job.id, token=lease.token, worker_id=lease.worker_id)
        assert not jobs.let_run_out(session, job.id, token=lease.token, worker_id=lease.worker_id)

    assert [item.state for item in reaped(database)] == [JobState.QUEUED]
    assert current(database, job).attempt == 0
    with pytest.raises(LeaseLost), database.write() as session:
        jobs.renew(session, lease, ttl_seconds=60)


@pytest.mark.parametrize(("behind", "worker_id"), [(2, "w"), (1, "w"), (0, "other")])
def test_no_lease_but_the_dead_workers_own_runs_out(database: Database, behind: int, worker_id: str) -> None:
    job = queued_job(database)
    claimed(database, job, worker_id="w", ttl_seconds=EXPIRED)
    reaped(database)
    lease = claimed(database, job, worker_id="w")

    with database.write() as session:
        assert not jobs.let_run_out(session, job.id, token=lease.token - behind, worker_id=worker_id)

    assert reaped(database) == []


def test_claim_of_an_unknown_job_says_so(database: Database) -> None:
    with pytest.raises(JobNotFound), database.write() as session:
        jobs.claim(session, "nope", worker_id="a", ttl_seconds=1)


def test_job_waiting_for_its_retry_is_not_claimed(database: Database) -> None:
    job = queued_job(database)
    lease = claimed(database, job)
    with database.write() as session:
        jobs.requeue(session, lease, is_charged=True, delay_seconds=3600, failure=CRASH)

    with pytest.raises(JobNotRunnable):
        claimed(database, job)
    with database.write() as session:
        assert jobs.claim_next(session, ["train.cpu"], worker_id="a", ttl_seconds=1) is None


def test_claim_next_takes_priority_then_age_from_the_first_queue_that_has_work(database: Database) -> None:
    with database.write() as session:
        dataset = make_dataset(session)
    made = {}
    for name, queue, priority in [("late", "train.cpu", 5), ("old", "train.cpu", 0), ("new", "train.cpu", 0)]:
        with database.write() as session:
            made[make_job(session, dataset.id, queue=queue, priority=priority).id] = name

    taken = []
    with database.write() as session:
        while lease := jobs.claim_next(session, ["train.gpu", "train.cpu"], worker_id="a", ttl_seconds=60):
            taken.append(made[lease.job_id])

    assert taken == ["old", "new", "late"]


def test_many_workers_claim_every_job_exactly_once(database: Database) -> None:
    with database.write() as session:
        dataset = make_dataset(session)
        ids = {make_job(session, dataset.id).id for _ in range(50)}
    taken: list[str] = []
    deadline = Deadline(30)

    def work() -> None:
        while len(taken) < len(ids) and not deadline.is_over:
            with database.write() as session:
                lease = jobs.claim_next(
                    session, ["train.cpu"], worker_id=threading.current_thread().name, ttl_seconds=60
                )
            if lease is not None:
                taken.append(lease.job_id)

    in_threads(work, 6)

    assert sorted(taken) == sorted(ids)


def test_many_deliveries_of_one_message_run_the_job_once(database: Database) -> None:
    job = queued_job(database)
    outcomes: list[str] = []

    def deliver() -> None:
        try:
            claimed(database, job, worker_id=threading.current_thread().name)
            outcomes.append("claimed")
        except LeaseHeld:
            outcomes.append("held")

    in_threads(deliver, 8)

    assert sorted(outcomes) == ["claimed"] + ["held"] * 7


def test_expired_lease_is_still_good_until_it_is_reaped(database: Database) -> None:
    job = queued_job(database)
    lease = claimed(database, job, ttl_seconds=EXPIRED)

    with database.write() as session:
        assert jobs.renew(session, lease, ttl_seconds=60) is Desired.RUN

    assert reaped(database) == []


WRITES: dict[str, Callable[[Session, jobs.Lease], Any]] = {
    "renew": lambda s, lease: jobs.renew(s, lease, ttl_seconds=60),
    "record_attempt": lambda s, lease: jobs.record_attempt(
        s, lease, host="h", boot_id="b", pid=1, pid_start=0.5, device="cpu"
    ),
    "append_event": lambda s, lease: jobs.append_event(s, lease, "log", {"text": "zombie"}),
    "append_events": lambda s, lease: jobs.append_events(s, lease, [("log", {}), ("log", {})]),
    "commit_checkpoint": lambda s, lease: jobs.commit_checkpoint(s, lease, new_checkpoint(1000)),
    "mark_corrupt": lambda s, lease: checkpoints.mark_corrupt(s, lease, "none"),
    "artifact": lambda s, lease: artifacts.add(
        s, lease, artifacts.NewArtifact(name="n", kind="k", key="key", size_bytes=1, sha256="s", step=1)
    ),
    "finish": lambda s, lease: jobs.finish(s, lease, state=JobState.SUCCEEDED, model_version=new_model_version()),
    "requeue": lambda s, lease: jobs.requeue(s, lease, is_charged=False),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_write_with_a_stale_token_is_refused_and_changes_nothing(
    database: Database, write: Callable[[Session, jobs.Lease], Any]
) -> None:
    job = queued_job(database)
    stale = claimed(database, job, worker_id="zombie", ttl_seconds=EXPIRED)
    reaped(database)
    claimed(database, job, worker_id="b")
    before, history = current(database, job), kinds(database, job)

    with pytest.raises(LeaseLost), database.write() as session:
        write(session, stale)

    assert (current(database, job), kinds(database, job)) == (before, history)


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_write_after_the_end_is_refused(database: Database, write: Callable[[Session, jobs.Lease], Any]) -> None:
    job = queued_job(database)
    lease = claimed(database, job)
    with database.write() as session:
        jobs.finish(session, lease, state=JobState.FAILED, failure=CRASH)

    with pytest.raises(LeaseLost), database.write() as session:
        write(session, lease)


def test_lost_worker_gives_its_job_back_uncharged(database: Database) -> None:
    job = queued_job(database)
    lease = claimed(database, job, worker_id="gone", ttl_seconds=EXPIRED)

    assert reaped(database) == [jobs.Reaped(job.id, "default", "train.cpu", lease.token, "gone", JobState.QUEUED)]

    found = current(database, job)
    assert (found.state, found.attempt) == (JobState.QUEUED, 0)
    assert kinds(database, job) == ["created", "claimed", "reaped"]
    with database.read() as session:
        assert jobs.list_attempts(session, job.id)[0].state is AttemptState.LOST
    assert reaped(database) == []


def test_job_that_loses_every_worker_fails_at_last(database: Database) -> None:
    job = queued_job(database)
    for _ in range(NO_PROGRESS_LIMIT):
        claimed(database, job, ttl_seconds=EXPIRED)
        reaped(database)

    found = current(database, job)
    assert (found.state, found.failure_reason) == (JobState.FAILED, FailureReason.WORKER_LOST)
    assert kinds(database, job)[-2:] == ["reaped", "failed"]


def test_reapers_side_by_side_reap_each_job_once(database: Database) -> None:
    with database.write() as session:
        dataset = make_dataset(session)
        made = [make_job(session, dataset.id) for _ in range(12)]
    for job in made:
        claimed(database, job, ttl_seconds=EXPIRED)
    found: list[jobs.Reaped] = []

    in_threads(lambda: found.extend(reaped(database)), 4)

    assert sorted(item.job_id for item in found) == sorted(job.id for job in made)


def test_recorded_process_of_an_attempt_can_be_found_by_its_worker(database: Database) -> None:
    job = queued_job(database)
    lease = claimed(database, job)
    with database.write() as session:
        jobs.record_attempt(session, lease, host="h", boot_id="b", pid=42, pid_start=12345678.25, device="cpu")

    with database.read() as session:
        found = jobs.open_attempts(session, "a")
    assert [(item.job_id, item.pid, item.pid_start) for item in found] == [(job.id, 42, 12345678.25)]
