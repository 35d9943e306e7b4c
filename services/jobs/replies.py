"""Replies of streams: events converted once for all streams of a job, as many to a message as a caller takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from trainyard.v1 import job_pb2 as pb

from services.db.jobs import Event
from services.jobs.convert_event import event_to_proto

KEPT = 4096
"""Newest events kept, of all jobs together: a few megabytes."""
MAX_EVENTS = 64
"""Of one reply."""
MAX_BYTES = 256 * 1024
"""Of one reply that holds more than one event: clients take 4 MiB where nobody told them otherwise."""


class _Converted(NamedTuple):
    message: pb.JobEvent
    num_bytes: int


class Replies:
    """Converts events; an event never changes, so neither does its message."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, int], _Converted] = {}

    def of(self, events: Sequence[Event], job_name: str, max_events: int) -> Iterator[pb.WatchJobResponse]:
        """Yield the replies that carry `events` of the job called `job_name`, each at most `max_events` of them."""
        reply, num_bytes = pb.WatchJobResponse(), 0
        for event in events:
            converted = self._convert(event, job_name)
            num_bytes += converted.num_bytes
            if not reply.HasField("event"):
                reply.event.CopyFrom(converted.message)
            elif len(reply.more) + 1 < max_events and num_bytes <= MAX_BYTES:
                reply.more.append(converted.message)
            else:
                yield reply
                reply, num_bytes = pb.WatchJobResponse(event=converted.message), converted.num_bytes
        if reply.HasField("event"):
            yield reply

    def _convert(self, event: Event, job_name: str) -> _Converted:
        key = (job_name, event.seq)
        converted = self._kept.get(key)
        if converted is None:
            message = event_to_proto(event, job_name)
            converted = self._kept[key] = _Converted(message, message.ByteSize())
            if len(self._kept) > KEPT:
                del self._kept[next(iter(self._kept))]
        return converted
