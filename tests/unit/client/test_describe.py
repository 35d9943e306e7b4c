"""Events in the words a person reads."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from trainyard.v1 import job_pb2

from services.client import describe


def test_the_sentence_of_a_failure_goes_on_without_a_stop_in_its_middle() -> None:
    failure = job_pb2.Failure(reason=job_pb2.FAILURE_REASON_CRASH, message="The last lines may say why.")
    event = job_pb2.JobEvent(requeued=job_pb2.Requeued(failure=failure, delay=Duration(seconds=8)))

    assert describe.event(event) == "queued again after CRASH: The last lines may say why; next attempt in 8s"
