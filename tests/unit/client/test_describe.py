"""Events in the words a person reads."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration
from trainyard.v1 import job_pb2

from services.client import describe


def test_the_sentence_of_a_failure_goes_on_without_a_stop_in_its_middle() -> None:
    failure = job_pb2.Failure(reason=job_pb2.FAILURE_REASON_CRASH, message="The last lines may say why.")
    event = job_pb2.JobEvent(requeued=job_pb2.Requeued(failure=failure, delay=Duration(seconds=8)))

    assert describe.event(event) == "queued again after CRASH: The last lines may say why; next attempt in 8s"


@pytest.mark.parametrize(
    ("attempt", "is_preemptible", "words"),
    [
        pytest.param(job_pb2.Attempt(state=job_pb2.ATTEMPT_STATE_RUNNING), False, "", id="it runs"),
        pytest.param(job_pb2.Attempt(state=job_pb2.ATTEMPT_STATE_SUCCEEDED), False, "", id="its state says it"),
        pytest.param(
            job_pb2.Attempt(state=job_pb2.ATTEMPT_STATE_CANCELLED), False, "the job was cancelled", id="cancelled"
        ),
        pytest.param(
            job_pb2.Attempt(state=job_pb2.ATTEMPT_STATE_REQUEUED), False, "worker was stopped, or the job was paused"
        ),
        pytest.param(job_pb2.Attempt(state=job_pb2.ATTEMPT_STATE_REQUEUED), True, "or it gave way to another"),
        pytest.param(
            job_pb2.Attempt(
                state=job_pb2.ATTEMPT_STATE_REQUEUED,
                failure=job_pb2.Failure(reason=job_pb2.FAILURE_REASON_CRASH, message="It crashed."),
            ),
            False,
            "CRASH: It crashed.",
            id="it failed and is tried again",
        ),
    ],
)
def test_an_attempt_says_why_it_ended(attempt: job_pb2.Attempt, is_preemptible: bool, words: str) -> None:
    told = describe.attempt_end(attempt, job_pb2.Job(is_preemptible=is_preemptible))

    assert told.endswith(words)
    assert bool(told) is bool(words)


@pytest.mark.parametrize(
    ("job", "words"),
    [
        pytest.param(job_pb2.Job(max_attempts=3), "", id="it never ran"),
        pytest.param(job_pb2.Job(attempt=1, num_attempts=1, max_attempts=3), "1 of 3", id="all count"),
        pytest.param(job_pb2.Job(attempt=0, num_attempts=2, max_attempts=3), "2 (0 of 3 counted)", id="none counts"),
        pytest.param(job_pb2.Job(attempt=2, max_attempts=3), "2 of 3", id="a server of an earlier release"),
    ],
)
def test_attempts_are_counted_whether_they_count_or_not(job: job_pb2.Job, words: str) -> None:
    assert describe.attempts(job) == words
