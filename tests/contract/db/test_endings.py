"""How an attempt ends: results, failures, returns to the queue and cancellations, on both databases."""

from __future__ import annotations

import threading

import pytest

from services.core.errors import JobNotRunnable, LeaseLost, PreconditionFailed
from services.core.states import AttemptState, Desired, FailureReason, JobState
from services.db import jobs, models
from services.db.database import Database
from services.db.jobs import Failure
from services.db.transitions import NO_PROGRESS_LIMIT
from tests.stack.builders import make_dataset, make_job, new_checkpoint, new_model_version, queued_job
from tests.stack.jobs import CRASH, EXPIRED, claimed, current, kinds, reaped

pytestmark = pytest.mark.usefixtures("invariants_hold_in_the_end")


def test_success_stores_the_next_model_version_and_one_terminal_event(database: Database) -> None:
    for expected in (1, 2):
        job = queued_job(database)
        lease = claimed(database, job)
        new = new_model_version()
        with database.write() as session:
            jobs.finish(session, lease, state=JobState.SUCCEEDED, model_version=new)

        done = current(database, job)
        assert (done.state, done.model_version) == (JobState.SUCCEEDED, expected)
        assert kinds(database, job)[-2:] == ["model", "succeeded"]
        with database.read() as session:
            assert models.get(session, "default", "digits-yolo").id == new.id
            assert models.get(session, "default", "digits-yolo", 1).version == 1
            assert jobs.list_attempts(session, job.id)[0].state is AttemptState.SUCCEEDED


def test_finish_called_again_after_its_answer_got_lost_is_acknowledged(database: Database) -> None:
    job = queued_job(database)
    lease = claimed(database, job)
    new = new_model_version()
    for _ in range(2):
        with database.write() as session:
            jobs.finish(session, lease, state=JobState.SUCCEEDED, model_version=new)

    assert kinds(database, job).count("succeeded") == 1
    with pytest.raises(LeaseLost), database.write() as session:
        jobs.finish(session, lease, state=JobState.FAILED, failure=CRASH)


def test_failure_is_kept_with_its_log(database: Database) -> None:
    job = queued_job(database)
    lease = claimed(database, job)
    with database.write() as session:
        jobs.finish(session, lease, state=JobState.FAILED, failure=Failure(FailureReason.STALL, "no step", "a\0b"))

    done = current(database, job)
    assert (done.failure_reason, done.failure_message, done.failure_log) == (FailureReason.STALL, "no step", "a\ufffdb")
    assert done.end_time is not None


def test_charged_requeue_counts_until_the_attempts_are_used_up(database: Database) -> None:
    job = queued_job(database, max_attempts=2)
    reached = []
    for _ in range(2):
        lease = claimed(database, job)
        with database.write() as session:
            reached.append(jobs.requeue(session, lease, is_charged=True, failure=CRASH))

    done = current(database, job)
    assert reached == [JobState.QUEUED, JobState.FAILED]
    assert (done.state, done.attempt, done.failure_reason) == (JobState.FAILED, 2, FailureReason.CRASH)
    with database.read() as session:
        attempts = jobs.list_attempts(session, job.id)
    assert [(item.state, item.exit_code) for item in attempts] == [(AttemptState.REQUEUED, 1), (AttemptState.FAILED, 1)]


def test_uncharged_requeue_does_not_count_but_is_bounded_without_progress(database: Database) -> None:
    job = queued_job(database, max_attempts=1)
    reached = []
    for _ in range(NO_PROGRESS_LIMIT):
        lease = claimed(database, job)
        assert lease.attempt == 1
        with database.write() as session:
            reached.append(jobs.requeue(session, lease, is_charged=False))

    assert reached == [JobState.QUEUED] * (NO_PROGRESS_LIMIT - 1) + [JobState.FAILED]
    assert current(database, job).failure_reason is FailureReason.WORKER_LOST


def test_drains_with_a_checkpoint_each_are_unbounded(database: Database) -> None:
    job = queued_job(database, max_attempts=1)
    for number in range(2 * NO_PROGRESS_LIMIT):
        lease = claimed(database, job)
        with database.write() as session:
            jobs.commit_checkpoint(session, lease, new_checkpoint(number))
            assert jobs.requeue(session, lease, is_charged=False) is JobState.QUEUED


def test_requeue_called_again_after_its_answer_got_lost_tells_the_same(database: Database) -> None:
    job = queued_job(database)
    lease = claimed(database, job)
    for _ in range(2):
        with database.write() as session:
            assert jobs.requeue(session, lease, is_charged=True, failure=CRASH) is JobState.QUEUED

    assert kinds(database, job).count("requeued") == 1


def test_queued_job_is_cancelled_at_once_and_only_once(database: Database) -> None:
    job = queued_job(database)
    for _ in range(2):
        with database.write() as session:
            assert jobs.cancel(session, "default", job.id, "typo").state is JobState.CANCELLED

    assert kinds(database, job) == ["created", "cancelled"]
    with pytest.raises(JobNotRunnable):
        claimed(database, job)


def test_running_job_learns_of_its_cancel_with_the_next_heartbeat(database: Database) -> None:
    job = queued_job(database)
    lease = claimed(database, job)
    with database.write() as session:
        assert jobs.cancel(session, "default", job.id, "stop").state is JobState.CANCELLING

    with database.write() as session:
        assert jobs.renew(session, lease, ttl_seconds=60) is Desired.CANCEL
    with database.write() as session:
        jobs.finish(session, lease, state=JobState.CANCELLED)

    assert kinds(database, job) == ["created", "claimed", "cancel_requested", "cancelled"]


@pytest.mark.parametrize("leave", ["requeue", "reap"])
def test_job_to_be_cancelled_never_goes_back_to_the_queue(database: Database, leave: str) -> None:
    job = queued_job(database)
    lease = claimed(database, job, ttl_seconds=EXPIRED)
    with database.write() as session:
        jobs.cancel(session, "default", job.id, "stop")

    if leave == "reap":
        assert [item.state for item in reaped(database)] == [JobState.CANCELLED]
    else:
        with database.write() as session:
            assert jobs.requeue(session, lease, is_charged=False) is JobState.CANCELLED

    assert current(database, job).state is JobState.CANCELLED


def test_job_that_ends_before_its_cancel_keeps_its_result(database: Database) -> None:
    job = queued_job(database)
    lease = claimed(database, job)
    with database.write() as session:
        jobs.cancel(session, "default", job.id, "stop")
    with database.write() as session:
        jobs.finish(session, lease, state=JobState.SUCCEEDED, model_version=new_model_version())

    with database.write() as session:
        assert jobs.cancel(session, "default", job.id, "stop").state is JobState.SUCCEEDED


def test_job_nobody_cancelled_cannot_end_as_cancelled(database: Database) -> None:
    job = queued_job(database)
    lease = claimed(database, job)

    with pytest.raises(PreconditionFailed), database.write() as session:
        jobs.finish(session, lease, state=JobState.CANCELLED)


def test_cancels_racing_with_finishes_leave_one_terminal_event_each(database: Database) -> None:
    with database.write() as session:
        dataset = make_dataset(session)
        made = [make_job(session, dataset.id) for _ in range(10)]
    leases = [claimed(database, job) for job in made]
    start = threading.Barrier(2)

    def cancel() -> None:
        start.wait()
        for job in made:
            with database.write() as session:
                jobs.cancel(session, "default", job.id, "race")

    def finish() -> None:
        start.wait()
        for lease in leases:
            with database.write() as session:
                jobs.finish(session, lease, state=JobState.SUCCEEDED)

    threads = [threading.Thread(target=cancel), threading.Thread(target=finish)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert all(current(database, job).state is JobState.SUCCEEDED for job in made)
