"""The event stream of a job over any number of connections: no gap, nothing twice."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator

from trainyard.v1 import job_pb2

from services.client.channel import is_lost_contact
from services.client.errors import ApiError
from services.core.clock import Deadline
from services.core.retry import Backoff

PATIENCE_SECONDS = 600.0
EVENTS_AT_ONCE = 64
"""Of one response, the most that a server allows."""
_BACKOFF = Backoff(base_seconds=0.2, cap_seconds=2.0)

Connect = Callable[[int], Iterator[job_pb2.WatchJobResponse]]


def follow(
    connect: Connect,
    *,
    after_seq: int,
    patience_seconds: float,
    on_reconnect: Callable[[int], None],
    wait: Callable[[float], None] = time.sleep,
) -> Iterator[job_pb2.JobEvent]:
    """Yield events by `connect(after_seq)` until the server ends the stream after the terminal one.

    `wait` passes the time between two tries, at most as many seconds as it is told.

    Raises:
        ApiError: the request is wrong, or the server stayed away for longer than the patience.
    """
    retry, deadline, rng = 0, Deadline(patience_seconds), random.Random()
    while True:
        try:
            for response in connect(after_seq):
                retry, deadline = 0, Deadline(patience_seconds)
                for event in (response.event, *response.more):
                    if event.seq > after_seq:
                        after_seq = event.seq
                        yield event
            # OK means that nothing can follow: the terminal event was sent.
            return
        except ApiError as err:
            if not is_lost_contact(err) or deadline.is_over:
                raise
        retry += 1
        on_reconnect(retry)
        wait(_BACKOFF.delay_seconds(retry, rng))
