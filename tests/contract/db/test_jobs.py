"""Jobs from submission to their end, on both databases."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from services.core.clock import Deadline
from services.core.errors import (
    DatasetNotFound,
    IdempotencyConflict,
    JobNotFound,
    JobNotRunnable,
    LeaseHeld,
    LeaseLost,
    PreconditionFailed,
)
from services.core.states import AttemptState, Desired, FailureReason, JobState
from services.db import artifacts, checkpoints, jobs, models
from services.db import tables as t
from services.db.database import Database
from services.db.jobs import Failure
from services.db.transitions import NO_PROGRESS_LIMIT
from tests.stack.builders import (
    make_dataset,
    make_job,
    new_checkpoint,
    new_job,
    new_model_version,
    queued_job,
    sha256,
)
from tests.stack.invariants import violations

CRASH = Failure(FailureReason.CRASH, "the trainer crashed", log_tail="Traceback", exit_code=1)
EXPIRED = -1.0
"""A lease of this many seconds has run out when it is given."""


def claimed(database: Database, job: jobs.Job, *, worker_id: str = "a", ttl_seconds: float = 60.0) -> jobs.Lease:
    with database.write() as session:
        return jobs.claim(session, job.id, worker_id=worker_id, ttl_seconds=ttl_seconds)


def reaped(database: Database) -> list[jobs.Reaped]:
    with database.write() as session:
        return jobs.reap(session, limit=100, retry_delay_seconds=0.0)


def current(database: Database, job: jobs.Job) -> jobs.Job:
    with database.read() as session:
        return jobs.get(session, job.project, job.id)


def kinds(database: Database, job: jobs.Job) -> list[str]:
    with database.read() as session:
        return [event.kind for event in jobs.events_after(session, job.id, 0, 1000)]


@pytest.fixture(autouse=True)
def _invariants_hold_in_the_end(database: Database) -> Any:
    yield
    assert violations(database) == []


def test_submitted_job_is_queued_with_its_first_event(database: Database) -> None:
    job = queued_job(database, labels={"team": "a"}, priority=-2)

    found = current(database, job)
    assert found == job
    assert (found.state, found.attempt, found.token, found.checkpoint_step) == (JobState.QUEUED, 0, 0, -1)
    assert (found.labels, found.dataset_id) == ({"team": "a"}, "digits")
    assert kinds(database, job) == ["created"]


def test_same_request_again_finds_the_same_job(database: Database) -> None:
    first = queued_job(database, request_id="r1")

    with database.write() as session:
        again, is_new = jobs.insert(session, new_job(first.dataset_version_id, request_id="r1"))

    assert (again.id, is_new) == (first.id, False)
    assert kinds(database, first) == ["created"]


def test_same_request_id_with_another_body_is_refused(database: Database) -> None:
    first = queued_job(database, request_id="r1")

    with pytest.raises(IdempotencyConflict), database.write() as session:
        jobs.insert(session, new_job(first.dataset_version_id, request_id="r1", request_sha256=sha256("other")))


def test_request_ids_of_two_projects_do_not_meet(database: Database) -> None:
    first = queued_job(database, request_id="r1", project="one")
    second = queued_job(database, request_id="r1", project="two")

    assert first.id != second.id


def test_one_request_sent_by_many_threads_at_once_makes_one_job(database: Database) -> None:
    with database.write() as session:
        dataset = make_dataset(session)
    new = new_job(dataset.id, request_id="r1")

    found: list[tuple[str, bool]] = []

    def submit() -> None:
        with database.write() as session:
            job, is_new = jobs.insert(session, new)
        found.append((job.id, is_new))

    in_threads(submit, 8)

    assert len({job_id for job_id, _ in found}) == 1
    assert [is_new for _, is_new in found].count(True) == 1


@pytest.mark.parametrize("project", ["default", "other"])
def test_job_needs_a_dataset_of_its_own_project(database: Database, project: str) -> None:
    with database.write() as session:
        dataset = make_dataset(session, project="third")

    with pytest.raises(DatasetNotFound), database.write() as session:
        make_job(session, dataset.id, project=project)


def test_job_of_another_project_is_not_found(database: Database) -> None:
    job = queued_job(database)

    with pytest.raises(JobNotFound), database.read() as session:
        jobs.get(session, "other", job.id)


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


def test_events_are_numbered_in_order_and_read_from_any_point(database: Database) -> None:
    job = queued_job(database)
    lease = claimed(database, job)
    with database.write() as session:
        lines = [("phase", {"phase": "training"}), ("step", {"step": 3, "total": 10}), ("log", {"text": "x"})]
        last = jobs.append_events(session, lease, lines)

    with database.read() as session:
        page = jobs.events_after(session, job.id, 2, 2)
        rest = jobs.events_after(session, job.id, page[-1].seq, 100)

    assert last == 5
    assert [(event.seq, event.kind) for event in page + rest] == [(3, "phase"), (4, "step"), (5, "log")]
    assert (current(database, job).progress_step, current(database, job).progress_total) == (3, 10)


def test_lines_sent_again_because_the_answer_got_lost_are_written_once(database: Database) -> None:
    job = queued_job(database)
    lease = claimed(database, job)
    lines = [("log", {"text": "a"}), ("log", {"text": "b"})]

    def append(position: int) -> int:
        with database.write() as session:
            return jobs.append_events(session, lease, lines, position=position)

    assert [append(0), append(0), append(2), append(2)] == [4, 4, 6, 6]
    assert kinds(database, job) == ["created", "claimed", "log", "log", "log", "log"]


def test_answer_to_lines_that_were_written_does_not_need_the_lease(database: Database) -> None:
    job = queued_job(database)
    lease = claimed(database, job, ttl_seconds=EXPIRED)
    with database.write() as session:
        jobs.append_events(session, lease, [("log", {})], position=0)
    reaped(database)

    with database.write() as session:
        jobs.append_events(session, lease, [("log", {})], position=0)
    with pytest.raises(LeaseLost), database.write() as session:
        jobs.append_events(session, lease, [("log", {})], position=1)
    assert kinds(database, job) == ["created", "claimed", "log", "reaped"]


def test_events_of_racing_writers_have_no_gap_and_no_double(database: Database) -> None:
    job = queued_job(database)
    lease = claimed(database, job)

    def append() -> None:
        for _ in range(5):
            with database.write() as session:
                jobs.append_events(session, lease, [("log", {}), ("log", {})])

    in_threads(append, 4)

    with database.read() as session:
        events = jobs.events_after(session, job.id, 0, 1000)
    assert [event.seq for event in events] == list(range(1, 43))


def test_payload_keeps_figures_and_text_that_json_cannot_carry(database: Database) -> None:
    job = queued_job(database)
    lease = claimed(database, job)
    with database.write() as session:
        jobs.append_event(session, lease, "log", {"loss": float("nan"), "text": "a\0b\ud800", "deep": [float("inf")]})

    with database.read() as session:
        payload = jobs.events_after(session, job.id, 2, 1)[0].payload
    assert payload == {"loss": "NaN", "text": "a\ufffdb?", "deep": ["Infinity"]}


def test_checkpoint_becomes_the_place_to_resume_and_forgives_restarts(database: Database) -> None:
    job = queued_job(database)
    claimed(database, job, ttl_seconds=EXPIRED)
    reaped(database)
    lease = claimed(database, job)
    with database.write() as session:
        jobs.commit_checkpoint(session, lease, new_checkpoint(10, metric=0.25, files=[{"name": "model.safetensors"}]))
    with database.write() as session:
        kept = jobs.commit_checkpoint(session, lease, new_checkpoint(20, metric=float("nan")))

    with database.read() as session:
        newest = checkpoints.newest_committed(session, job.id)
        no_progress = session.execute(sa.select(t.jobs.c.no_progress)).scalar_one()
    assert newest == kept
    assert (kept.step, kept.metric, kept.ordinal, no_progress) == (20, None, 2, 0)
    assert current(database, job).checkpoint_step == 20


def test_checkpoint_committed_twice_by_one_lease_is_one(database: Database) -> None:
    job = queued_job(database)
    lease = claimed(database, job)
    with database.write() as session:
        first = jobs.commit_checkpoint(session, lease, new_checkpoint(10))

    with database.write() as session:
        again = jobs.commit_checkpoint(session, lease, new_checkpoint(10))

    assert again == first
    assert kinds(database, job).count("checkpoint") == 1


def test_checkpoint_committed_twice_is_acknowledged_even_after_the_lease_went(database: Database) -> None:
    job = queued_job(database)
    lease = claimed(database, job, ttl_seconds=EXPIRED)
    with database.write() as session:
        first = jobs.commit_checkpoint(session, lease, new_checkpoint(10))
    reaped(database)

    with database.write() as session:
        assert jobs.commit_checkpoint(session, lease, new_checkpoint(10)) == first
    with pytest.raises(LeaseLost), database.write() as session:
        jobs.commit_checkpoint(session, lease, new_checkpoint(20))


def test_checkpoint_of_a_step_already_passed_is_refused(database: Database) -> None:
    job = queued_job(database)
    lease = claimed(database, job)
    with database.write() as session:
        jobs.commit_checkpoint(session, lease, new_checkpoint(20))

    with pytest.raises(LeaseLost), database.write() as session:
        jobs.commit_checkpoint(session, lease, new_checkpoint(10))


def test_corrupt_checkpoint_falls_back_and_its_step_can_be_committed_again(database: Database) -> None:
    job = queued_job(database)
    first = claimed(database, job, ttl_seconds=EXPIRED)
    with database.write() as session:
        good = jobs.commit_checkpoint(session, first, new_checkpoint(10))
        bad = jobs.commit_checkpoint(session, first, new_checkpoint(20))
    reaped(database)
    lease = claimed(database, job)

    with database.write() as session:
        assert checkpoints.mark_corrupt(session, lease, bad.id) == good
    assert current(database, job).checkpoint_step == 10
    with database.write() as session:
        again = jobs.commit_checkpoint(session, lease, new_checkpoint(20))

    assert again.id != bad.id
    assert current(database, job).checkpoint_id == again.id


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


def test_dispatch_sends_each_due_job_once_until_its_message_is_old(database: Database) -> None:
    job = queued_job(database)

    def due(after: float) -> list[tuple[str, str]]:
        with database.write() as session:
            return jobs.dispatch(session, window=8, redispatch_after_seconds=after)

    assert due(3600) == [(job.id, "train.cpu")]
    assert due(3600) == []
    assert due(0) == [(job.id, "train.cpu")]


def test_long_backlog_of_one_queue_neither_floods_nor_hides_another(database: Database) -> None:
    with database.write() as session:
        dataset = make_dataset(session)
        backlog = [make_job(session, dataset.id, queue="train.gpu") for _ in range(12)]
        other = make_job(session, dataset.id, queue="train.cpu")

    with database.write() as session:
        due = jobs.dispatch(session, window=5, redispatch_after_seconds=60)
    with database.write() as session:
        assert jobs.dispatch(session, window=5, redispatch_after_seconds=60) == []
    claimed(database, backlog[0])
    with database.write() as session:
        after_claim = jobs.dispatch(session, window=5, redispatch_after_seconds=60)

    assert due == [(other.id, "train.cpu"), *((job.id, "train.gpu") for job in backlog[:5])]
    assert after_claim == [(backlog[5].id, "train.gpu")]


def test_pages_stay_stable_while_jobs_arrive(database: Database) -> None:
    with database.write() as session:
        dataset = make_dataset(session)
    made = []
    for _ in range(7):
        with database.write() as session:
            made.append(make_job(session, dataset.id).id)

    seen: list[str] = []
    after = None
    while True:
        with database.read() as session:
            page = jobs.page(session, "default", page_size=3, after=after)
        if not page:
            break
        seen += [job.id for job in page]
        after = (page[-1].create_time, page[-1].id)
        with database.write() as session:
            make_job(session, dataset.id)

    assert seen == made[::-1]


def test_page_filters_by_state_and_recipe(database: Database) -> None:
    queued, running, stopping = (queued_job(database, recipe=f"detection/{name}") for name in ("a", "b", "c"))
    claimed(database, running)
    claimed(database, stopping)
    with database.write() as session:
        jobs.cancel(session, "default", stopping.id, "")

    def found(**filters: Any) -> set[str]:
        with database.read() as session:
            return {job.id for job in jobs.page(session, "default", page_size=10, **filters)}

    assert found(states=[JobState.RUNNING]) == {running.id}
    assert found(states=[JobState.CANCELLING, JobState.QUEUED]) == {stopping.id, queued.id}
    assert found(recipe="detection/b") == {running.id}


def test_figures_count_states_queues_and_leases(database: Database) -> None:
    with database.write() as session:
        dataset = make_dataset(session)
        first = make_job(session, dataset.id)
        make_job(session, dataset.id)
        make_job(session, dataset.id, queue="train.gpu")
    claimed(database, first)

    with database.read() as session:
        figures = jobs.queue_figures(session)

    assert figures.jobs == {JobState.QUEUED: 2, JobState.RUNNING: 1}
    assert (figures.queued, figures.running, figures.running_leases) == (
        {"train.cpu": 1, "train.gpu": 1},
        {"train.cpu": 1},
        1,
    )
    assert all(0 <= age < 60 for age in figures.oldest_age_seconds.values())


def test_recorded_process_of_an_attempt_can_be_found_by_its_worker(database: Database) -> None:
    job = queued_job(database)
    lease = claimed(database, job)
    with database.write() as session:
        jobs.record_attempt(session, lease, host="h", boot_id="b", pid=42, pid_start=12345678.25, device="cpu")

    with database.read() as session:
        found = jobs.open_attempts(session, "a")
    assert [(item.job_id, item.pid, item.pid_start) for item in found] == [(job.id, 42, 12345678.25)]


def in_threads(work: Callable[[], None], count: int) -> None:
    """Run `work` in so many threads at once and raise what any of them raised."""
    errors: list[BaseException] = []
    start = threading.Barrier(count)

    def run() -> None:
        try:
            start.wait()
            work()
        except BaseException as err:
            errors.append(err)

    threads = [threading.Thread(target=run, name=f"worker-{number}") for number in range(count)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert time.monotonic() - began < 60
    if errors:
        raise errors[0]
