"""What people ask of jobs: cancel, pause and resume, on both databases."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from services.core.errors import JobNotFound, JobNotRunnable, LeaseLost, PreconditionFailed
from services.core.states import Desired, FailureReason, JobState
from services.db import jobs
from services.db import tables as t
from services.db.database import Database
from services.db.jobs import Failure
from services.db.transitions import NO_PROGRESS_LIMIT
from tests.stack.builders import new_checkpoint, new_model_version, queued_job
from tests.stack.invariants import violations

CRASH = Failure(FailureReason.CRASH, "the trainer crashed")
Steer = Callable[[Database, jobs.Job], jobs.Job]


@pytest.fixture(autouse=True)
def _invariants_hold_in_the_end(database: Database) -> Iterator[None]:
    yield
    assert violations(database) == []


def pause(database: Database, job: jobs.Job) -> jobs.Job:
    with database.write() as session:
        return jobs.pause(session, job.project, job.id, "the night is cheaper")


def resume(database: Database, job: jobs.Job) -> jobs.Job:
    with database.write() as session:
        return jobs.resume(session, job.project, job.id)


def cancel(database: Database, job: jobs.Job) -> jobs.Job:
    with database.write() as session:
        return jobs.cancel(session, job.project, job.id, "no longer wanted")


def claimed(database: Database, job: jobs.Job, *, ttl_seconds: float = 60.0) -> jobs.Lease:
    with database.write() as session:
        return jobs.claim(session, job.id, worker_id="a", ttl_seconds=ttl_seconds)


def requeued(database: Database, lease: jobs.Lease, *, is_charged: bool = False) -> JobState:
    with database.write() as session:
        failure = CRASH if is_charged else None
        return jobs.requeue(session, lease, is_charged=is_charged, failure=failure)


def reaped(database: Database) -> list[JobState]:
    with database.write() as session:
        return [found.state for found in jobs.reap(session, limit=10, retry_delay_seconds=0)]


def kinds(database: Database, job: jobs.Job) -> list[str]:
    with database.read() as session:
        return [event.kind for event in jobs.events_after(session, job.id, 0, 1000)]


def test_paused_job_is_neither_sent_for_nor_claimed_until_it_is_resumed(database: Database) -> None:
    job = queued_job(database)
    assert pause(database, job).state is JobState.PAUSED

    with database.write() as session:
        assert jobs.dispatch(session, window=8, redispatch_after_seconds=0) == []
        assert jobs.claim_next(session, ["train.cpu"], worker_id="a", ttl_seconds=60) is None
    with pytest.raises(JobNotRunnable):
        claimed(database, job)

    assert resume(database, job).state is JobState.QUEUED
    with database.write() as session:
        assert jobs.dispatch(session, window=8, redispatch_after_seconds=60) == [(job.id, "train.cpu")]
    claimed(database, job)
    assert kinds(database, job) == ["created", "paused", "resumed", "claimed"]


def test_running_job_saves_and_rests_uncharged_and_goes_on_from_its_checkpoint(database: Database) -> None:
    job = queued_job(database)
    lease = claimed(database, job)
    assert pause(database, job).state is JobState.PAUSING

    with database.write() as session:
        assert jobs.renew(session, lease, ttl_seconds=60) is Desired.PAUSE
        assert jobs.desired(session, lease) is Desired.PAUSE
        jobs.commit_checkpoint(session, lease, new_checkpoint(30))
    assert requeued(database, lease) is JobState.PAUSED
    assert requeued(database, lease) is JobState.PAUSED  # the answer to the first call got lost

    resting = pause(database, job)
    assert (resting.state, resting.attempt, resting.checkpoint_step) == (JobState.PAUSED, 0, 30)
    resume(database, job)
    again = claimed(database, job)
    with database.write() as session:
        assert jobs.renew(session, again, ttl_seconds=60) is Desired.RUN
    assert kinds(database, job) == [
        *("created", "claimed", "pause_requested", "checkpoint", "paused", "resumed", "claimed"),
    ]


@pytest.mark.parametrize("steer", [pause, resume, cancel])
def test_asking_twice_is_asking_once(database: Database, steer: Steer) -> None:
    waiting, running = queued_job(database), queued_job(database)
    claimed(database, running)
    if steer is resume:
        pause(database, waiting), pause(database, running)

    for job in (waiting, running):
        first = steer(database, job)
        assert steer(database, job) == first


def test_pause_taken_back_in_time_changes_nothing(database: Database) -> None:
    job = queued_job(database)
    lease = claimed(database, job)
    pause(database, job)

    assert resume(database, job).state is JobState.RUNNING
    with database.write() as session:
        assert jobs.renew(session, lease, ttl_seconds=60) is Desired.RUN
    # A worker that had begun to stop gives the job back to the queue.
    assert requeued(database, lease) is JobState.QUEUED


def test_job_may_finish_before_it_rests(database: Database) -> None:
    job = queued_job(database)
    lease = claimed(database, job)
    pause(database, job)

    with database.write() as session:
        jobs.finish(session, lease, state=JobState.SUCCEEDED, model_version=new_model_version())

    with database.read() as session:
        assert jobs.get(session, "default", job.id).state is JobState.SUCCEEDED


def test_paused_job_is_cancelled_at_once_and_a_pausing_one_by_its_worker(database: Database) -> None:
    resting, running = queued_job(database), queued_job(database)
    lease = claimed(database, running)
    pause(database, resting), pause(database, running)

    assert cancel(database, resting).state is JobState.CANCELLED
    assert cancel(database, running).state is JobState.CANCELLING
    assert requeued(database, lease) is JobState.CANCELLED
    assert kinds(database, resting)[-1] == kinds(database, running)[-1] == "cancelled"


def test_job_whose_worker_dies_while_it_pauses_rests(database: Database) -> None:
    job = queued_job(database)
    claimed(database, job, ttl_seconds=-1)
    pause(database, job)

    assert reaped(database) == [JobState.PAUSED]
    assert resume(database, job).state is JobState.QUEUED
    assert kinds(database, job)[-3:] == ["reaped", "paused", "resumed"]


def test_attempt_that_fails_while_it_pauses_is_charged(database: Database) -> None:
    job = queued_job(database, max_attempts=2)
    for reached in (JobState.PAUSED, JobState.FAILED):
        lease = claimed(database, job)
        pause(database, job)
        assert requeued(database, lease, is_charged=True) is reached
        if reached is JobState.PAUSED:
            resume(database, job)


def test_pausing_again_and_again_is_no_lack_of_progress(database: Database) -> None:
    job = queued_job(database)
    for _ in range(NO_PROGRESS_LIMIT + 1):
        lease = claimed(database, job)
        pause(database, job)
        assert requeued(database, lease) is JobState.PAUSED
        resume(database, job)

    with database.read() as session:
        assert session.execute(sa.select(t.jobs.c.no_progress)).scalar_one() == 0


@pytest.mark.parametrize("steer", [pause, resume])
def test_job_that_ended_is_neither_paused_nor_resumed(database: Database, steer: Steer) -> None:
    done, ending = queued_job(database), queued_job(database)
    lease = claimed(database, ending)
    cancel(database, done), cancel(database, ending)

    for job, state in ((done, "was cancelled"), (ending, "is being cancelled")):
        with pytest.raises(PreconditionFailed, match=f"the job {state}"):
            steer(database, job)
    requeued(database, lease)


@pytest.mark.parametrize("steer", [pause, resume, cancel])
def test_job_of_another_project_is_not_found(database: Database, steer: Steer) -> None:
    job = queued_job(database, project="theirs")

    with pytest.raises(JobNotFound):
        steer(database, dataclasses.replace(job, project="ours"))


def test_zombie_learns_nothing_and_writes_nothing_after_its_job_was_paused(database: Database) -> None:
    job = queued_job(database)
    zombie = claimed(database, job, ttl_seconds=-1)
    pause(database, job)
    reaped(database)

    with database.write() as session:
        for write in (
            lambda: jobs.desired(session, zombie),
            lambda: jobs.renew(session, zombie, ttl_seconds=60),
            lambda: jobs.commit_checkpoint(session, zombie, new_checkpoint(1)),
        ):
            with pytest.raises(LeaseLost):
                write()
