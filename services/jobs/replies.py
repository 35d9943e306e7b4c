"""Replies of streams, converted once for all streams of a job."""

from __future__ import annotations

from trainyard.v1 import job_pb2 as pb

from services.db.jobs import Event
from services.jobs.convert_event import event_to_proto

KEPT = 4096
"""Newest replies kept, of all jobs together: a few megabytes."""


class Replies:
    """Converts events; an event never changes, so neither does its reply."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, int], pb.WatchJobResponse] = {}

    def of(self, event: Event, job_name: str) -> pb.WatchJobResponse:
        """Return the reply that carries `event` of the job called `job_name`; not to be written to."""
        key = (job_name, event.seq)
        reply = self._kept.get(key)
        if reply is None:
            reply = self._kept[key] = pb.WatchJobResponse(event=event_to_proto(event, job_name))
            if len(self._kept) > KEPT:
                del self._kept[next(iter(self._kept))]
        return reply
