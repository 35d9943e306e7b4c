"""Following jobs: history, live events, resuming, and many streams at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import grpc
import pytest
from trainyard.v1 import job_pb2

from services.core.states import FailureReason, JobState
from services.db import jobs
from services.db.jobs import Failure, Lease
from tests.integration.api.conftest import TIMEOUT, Running, ServerThread
from tests.integration.api.failures import refused
from tests.stack.builders import new_checkpoint, new_model_version


def claim(api: Running, job: job_pb2.Job) -> Lease:
    with api.database.write() as session:
        return jobs.claim(session, job.name.rpartition("/")[2], worker_id="worker-1", ttl_seconds=60)


def append(api: Running, lease: Lease, *steps: int) -> None:
    with api.database.write() as session:
        lines = [("step", {"step": step, "total": 10, "scalars": {"train/loss": 1.0 / step}}) for step in steps]
        jobs.append_events(session, lease, lines)


def succeed(api: Running, lease: Lease) -> None:
    with api.database.write() as session:
        jobs.finish(session, lease, state=JobState.SUCCEEDED, model_version=new_model_version())


def watch(api: Running, name: str, after_seq: int = 0, max_events: int = 0) -> Iterator[job_pb2.JobEvent]:
    for events in replies(api, name, after_seq, max_events):
        yield from events


def replies(api: Running, name: str, after_seq: int = 0, max_events: int = 0) -> Iterator[list[job_pb2.JobEvent]]:
    request = job_pb2.WatchJobRequest(name=name, after_seq=after_seq, max_events=max_events)
    for response in api.jobs.WatchJob(request, timeout=TIMEOUT):
        yield [response.event, *response.more]


def kinds(events: list[job_pb2.JobEvent]) -> list[str | None]:
    return [event.WhichOneof("payload") for event in events]


def test_the_history_of_a_finished_job_ends_the_stream(api: Running) -> None:
    job = api.create()
    lease = claim(api, job)
    append(api, lease, 1, 2)
    succeed(api, lease)

    events = list(watch(api, job.name))

    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert kinds(events) == ["state_change", "state_change", "step", "step", "model", "state_change"]
    assert events[-1].state_change.state == job_pb2.JOB_STATE_SUCCEEDED
    assert events[-2].model.model_version == "projects/default/models/detection-yolo-v1/versions/1"


def test_live_events_arrive_in_order_until_the_end(api: Running) -> None:
    job = api.create()
    stream = watch(api, job.name)
    seen = [next(stream)]

    lease = claim(api, job)
    seen.append(next(stream))
    for step in range(1, 6):
        append(api, lease, step)
        seen.append(next(stream))
    succeed(api, lease)
    seen += list(stream)

    assert [event.seq for event in seen] == list(range(1, 10))
    assert [event.step.step for event in seen[2:7]] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("after_seq", range(6))
def test_a_resumed_stream_misses_nothing_and_repeats_nothing(api: Running, after_seq: int) -> None:
    job = api.create()
    lease = claim(api, job)
    append(api, lease, 1, 2)
    with api.database.write() as session:
        failure = Failure(FailureReason.NON_FINITE_LOSS, "the loss is not finite")
        jobs.finish(session, lease, state=JobState.FAILED, failure=failure)

    events = list(watch(api, job.name, after_seq))

    assert [event.seq for event in events] == list(range(after_seq + 1, 6))
    assert not events or events[-1].failure.reason == job_pb2.FAILURE_REASON_NON_FINITE_LOSS


@pytest.mark.parametrize("max_events", [0, 7, 64])
def test_a_history_longer_than_one_page_is_sent_whole(api: Running, max_events: int) -> None:
    job = api.create()
    lease = claim(api, job)
    append(api, lease, *range(1, 1001))
    stream = watch(api, job.name, max_events=max_events)
    seen = [next(stream) for _ in range(1002)]
    append(api, lease, *range(1001, 1601))
    succeed(api, lease)

    seen += list(stream)

    assert [event.seq for event in seen] == list(range(1, 1605))


@pytest.mark.parametrize(("max_events", "most"), [(0, 1), (1, 1), (7, 7), (64, 64)])
def test_a_reply_carries_what_a_caller_takes_and_no_more(api: Running, max_events: int, most: int) -> None:
    job = api.create()
    lease = claim(api, job)
    append(api, lease, *range(1, 201))
    succeed(api, lease)

    sizes = [len(events) for events in replies(api, job.name, max_events=max_events)]

    assert max(sizes) == most
    assert sum(sizes) == 204


@pytest.mark.parametrize("max_events", [-1, 65])
def test_a_number_of_events_out_of_range_is_refused(api: Running, max_events: int) -> None:
    job = api.create()

    refusal = refused(lambda: list(watch(api, job.name, max_events=max_events)))

    assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
    assert "max_events" in refusal.violations


def test_a_sequence_number_of_the_future_is_refused(api: Running) -> None:
    job = api.create()

    refusal = refused(lambda: list(watch(api, job.name, after_seq=99)))

    assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
    assert "after_seq" in refusal.violations


def test_watching_an_unknown_job_is_not_found(api: Running) -> None:
    refusal = refused(lambda: list(watch(api, "projects/default/jobs/nothing")))

    assert refusal.code == grpc.StatusCode.NOT_FOUND


def test_cancelling_a_queued_job_ends_it_and_its_streams(api: Running) -> None:
    job = api.create()
    stream = watch(api, job.name)
    next(stream)

    cancelled = api.jobs.CancelJob(job_pb2.CancelJobRequest(name=job.name, reason="a typo")).job
    events = list(stream)

    assert cancelled.state == job_pb2.JOB_STATE_CANCELLED
    assert events[-1].state_change.message == "a typo"


def test_cancelling_a_running_job_asks_it_to_stop(api: Running) -> None:
    job = api.create()
    claim(api, job)

    first = api.jobs.CancelJob(job_pb2.CancelJobRequest(name=job.name)).job
    second = api.jobs.CancelJob(job_pb2.CancelJobRequest(name=job.name)).job

    assert first.state == second.state == job_pb2.JOB_STATE_CANCELLING


def test_pausing_and_resuming_show_in_the_stream(api: Running) -> None:
    job = api.create()
    stream = watch(api, job.name)

    paused = api.jobs.PauseJob(job_pb2.PauseJobRequest(name=job.name, reason="later")).job
    resumed = api.jobs.ResumeJob(job_pb2.ResumeJobRequest(name=job.name)).job
    claim(api, job)
    pausing = api.jobs.PauseJob(job_pb2.PauseJobRequest(name=job.name)).job
    seen = [next(stream).state_change for _ in range(5)]

    assert [each.state for each in (paused, resumed, pausing)] == [
        job_pb2.JOB_STATE_PAUSED,
        job_pb2.JOB_STATE_QUEUED,
        job_pb2.JOB_STATE_PAUSING,
    ]
    assert [each.state for each in seen[1:]] == [
        job_pb2.JOB_STATE_PAUSED,
        job_pb2.JOB_STATE_QUEUED,
        job_pb2.JOB_STATE_RUNNING,
        job_pb2.JOB_STATE_PAUSING,
    ]
    assert seen[1].message == "later"


def test_an_ended_job_is_neither_paused_nor_resumed(api: Running) -> None:
    job = api.create()
    api.jobs.CancelJob(job_pb2.CancelJobRequest(name=job.name))

    for act in (
        lambda: api.jobs.PauseJob(job_pb2.PauseJobRequest(name=job.name)),
        lambda: api.jobs.ResumeJob(job_pb2.ResumeJobRequest(name=job.name)),
    ):
        refusal = refused(act)
        assert refusal.code == grpc.StatusCode.FAILED_PRECONDITION


def test_a_checkpoint_event_names_the_checkpoint_that_is_listed(api: Running) -> None:
    job = api.create()
    lease = claim(api, job)
    with api.database.write() as session:
        jobs.commit_checkpoint(session, lease, new_checkpoint(7, metric=0.5))

    stream = watch(api, job.name)
    event = [next(stream) for _ in range(3)][-1]
    listed = api.jobs.ListCheckpoints(job_pb2.ListCheckpointsRequest(parent=job.name)).checkpoints

    assert event.checkpoint.name == listed[0].name
    assert (event.checkpoint.step, event.checkpoint.metric) == (7, 0.5)
    assert api.jobs.GetJob(job_pb2.GetJobRequest(name=job.name)).job.checkpoint_step == 7


def test_many_streams_need_no_threads_and_all_see_everything(api: Running) -> None:
    job = api.create()
    streams = [api.jobs.WatchJob(job_pb2.WatchJobRequest(name=job.name), timeout=TIMEOUT) for _ in range(200)]
    first = [next(stream).event.seq for stream in streams]
    # The client has a thread for each stream; those of the server have names of its own.
    server_threads = [thread.name for thread in threading.enumerate() if thread.name.startswith(("event", "read"))]

    lease = claim(api, job)
    append(api, lease, 1, 2, 3)
    succeed(api, lease)
    rest = [[response.event.seq for response in stream] for stream in streams]

    assert set(first) == {1}
    assert all(seqs == [2, 3, 4, 5, 6, 7] for seqs in rest)
    assert len(server_threads) <= 5


def test_a_draining_server_sends_its_watchers_elsewhere(server: tuple[Running, ServerThread]) -> None:
    api, thread = server
    job = api.create()
    stream = watch(api, job.name)
    next(stream)

    thread.stop()
    refusal = refused(lambda: list(stream))

    assert refusal.code == grpc.StatusCode.UNAVAILABLE


def test_who_watches_a_job_that_is_deleted_hears_so(api: Running) -> None:
    job = api.create()
    lease = claim(api, job)
    append(api, lease, 1)
    stream = watch(api, job.name)
    assert [next(stream).seq for _ in range(3)] == [1, 2, 3]

    with api.database.write() as session:
        # Its events go with it, so the last one is never seen.
        jobs.finish(session, lease, state=JobState.FAILED, failure=Failure(FailureReason.SPEC_INVALID, "no"))
        jobs.delete(session, "default", lease.job_id)

    refusal = refused(lambda: list(stream))
    assert (refusal.code, refusal.message) == (grpc.StatusCode.NOT_FOUND, f"job '{lease.job_id}' was deleted")
    assert refused(lambda: list(watch(api, job.name))).code == grpc.StatusCode.NOT_FOUND
