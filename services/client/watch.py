"""The event stream of a job over any number of connections: no gap, nothing twice."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator

from services.client.channel import is_lost_contact
from services.client.errors import ApiError
from services.core.clock import Deadline
from services.core.retry import Backoff
from trainyard.v1 import job_pb2

PATIENCE_SECONDS = 600.0
_BACKOFF = Backoff(base_seconds=0.2, cap_seconds=5.0)
_TERMINAL_STATES = frozenset(
    (job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED),
)

Connect = Callable[[int], Iterator[job_pb2.WatchJobResponse]]


def is_terminal(event: job_pb2.JobEvent) -> bool:
    """Tell whether nothing can follow this event."""
    payload = event.WhichOneof("payload")
    return payload == "failure" or (payload == "state_change" and event.state_change.state in _TERMINAL_STATES)


def follow(
    connect: Connect,
    *,
    after_seq: int,
    patience_seconds: float,
    on_reconnect: Callable[[int], None],
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[job_pb2.JobEvent]:
    """Yield events by `connect(after_seq)` until the server ends the stream after the terminal one.

    Raises:
        ApiError: the request is wrong, or the server stayed away for longer than the patience.
    """
    retry, deadline, rng = 0, Deadline(patience_seconds), random.Random()
    is_over = False
    while not is_over:
        try:
            for response in connect(after_seq):
                event = response.event
                retry, deadline = 0, Deadline(patience_seconds)
                if event.seq > after_seq:
                    after_seq, is_over = event.seq, is_terminal(event)
                    yield event
            # A server that knows the job is over, such as after a resume past the last event, ends with OK.
            if retry == 0:
                return
        except ApiError as err:
            if not is_lost_contact(err) or deadline.is_over:
                raise
        if not is_over:
            retry += 1
            on_reconnect(retry)
            sleep(_BACKOFF.delay_seconds(retry, rng))
