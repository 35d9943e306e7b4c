"""One thread that waits for commits and tells every stream of this server; streams hold no thread and never poll.

A topic is one watched job. It keeps the newest events, so that a thousand streams of one job cost one
query; a stream that fell behind reads the table. The thread only ever says "there is more", and the
table decides what, so nothing is lost or sent twice.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import structlog

from services.core.errors import JobNotFound, PlatformError, ServerStopping
from services.core.states import TERMINAL
from services.db.changes import ChangeFeed
from services.db.database import Database
from services.db.jobs import Event, Job, events_after
from services.db.watching import last_seqs
from services.db.work import Work
from services.jobs.history import History

log = structlog.get_logger(__name__)

TERMINAL_KINDS = frozenset(state.value for state in TERMINAL)
PAGE = 256
WAIT_SECONDS = 1.0
"""How long a lost notification can delay an event."""
SHORT_WAIT_SECONDS = 0.05
"""Between two looks of a stream for events that it has heard of."""
REST_FACTOR = 2.0
"""Rest of the thread after each look, as a multiple of the time it took."""


@dataclass(slots=True)
class Topic:
    """One watched job; touched on the event loop only."""

    last_seq: int
    recent: deque[Event] = field(default_factory=lambda: deque(maxlen=PAGE))
    """The newest events without gaps; the last one, if any, is `last_seq`."""
    num_streams: int = 0
    is_deleted: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def publish(self, last_seq: int, events: list[Event]) -> None:
        """Take what the table holds now; `events` follow `last_seq` of before, or are left out."""
        if last_seq <= self.last_seq:
            return
        if not events or events[0].seq != self.last_seq + 1:
            self.recent.clear()
        self.recent.extend(events)
        self.last_seq = last_seq
        self._wake()

    def end(self) -> None:
        """Note that the job was deleted: no event will come any more."""
        self.is_deleted = True
        self._wake()

    def after(self, seq: int) -> list[Event]:
        """Return the events after `seq` if all of them are kept, else nothing."""
        if not self.recent or not self.recent[0].seq <= seq + 1:
            return []
        # Without gaps, so the place of an event follows from its number; most streams want the last one only.
        return [self.recent[place] for place in range(seq + 1 - self.recent[0].seq, len(self.recent))]

    def _wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


@dataclass(slots=True)
class _News:
    """What one look at the table found of the watched jobs."""

    known: dict[str, tuple[int, list[Event]]] = field(default_factory=dict)
    """By job, the number of its newest event, and the events since the last look, where those are few."""
    deleted: list[str] = field(default_factory=list)


class EventHub:
    """The topics of one server, and the thread that feeds them. Built on the event loop's thread."""

    def __init__(self, database: Database, work: Work) -> None:
        self._database = database
        self._history = History(work)
        self._topics: dict[str, Topic] = {}
        self._closed = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._feed: ChangeFeed = database.changes()
        self._thread = threading.Thread(target=self._run, name="event-hub", daemon=True)
        self._thread.start()

    async def follow(self, job: Job, after_seq: int) -> AsyncIterator[Sequence[Event]]:
        """Yield the events of `job` after `after_seq`, as many at once as there are, up to the terminal one.

        Raises:
            JobNotFound: the job was deleted meanwhile.
            ServerStopping: the hub was closed.
        """
        if job.state in TERMINAL and after_seq >= job.event_seq:
            return
        with self._subscribed(job) as topic:
            while True:
                changed = topic.changed
                # After subscribing, an empty page means that everything later will be published.
                events = topic.after(after_seq) or await self._history.after(job.id, after_seq)
                if events:
                    yield events
                    if any(event.kind in TERMINAL_KINDS for event in events):
                        return
                    after_seq = events[-1].seq
                if self._closed.is_set():
                    raise ServerStopping
                if not events and topic.is_deleted:
                    raise JobNotFound(f"job {job.id!r} was deleted")
                if not events:
                    # Events that are known and not there went with their job; that, too, is told in a moment.
                    is_behind = topic.last_seq > after_seq
                    await _until(changed, SHORT_WAIT_SECONDS if is_behind else None)

    def end_streams(self) -> None:
        """End every stream with ServerStopping; called on the loop, and waits for nothing."""
        self._closed.set()
        for topic in self._topics.values():
            topic.changed.set()

    def close(self) -> None:
        """End the thread too; a database that went away may hold it for some seconds."""
        self._closed.set()
        self._feed.close()
        self._thread.join()

    @contextmanager
    def _subscribed(self, job: Job) -> Iterator[Topic]:
        topic = self._topics.setdefault(job.id, Topic(job.event_seq))
        topic.num_streams += 1
        try:
            yield topic
        finally:
            topic.num_streams -= 1
            if not topic.num_streams:
                del self._topics[job.id]

    def _run(self) -> None:
        while not self._closed.is_set():
            self._feed.wait(WAIT_SECONDS)
            begin = time.monotonic()
            if not self._topics or self._closed.is_set():
                continue
            try:
                news = self._read_news()
            except Exception as err:
                # Streams wait for this thread only, so it outlives every fault; a wait follows in any case.
                log.exception("event_hub_failed", reason=getattr(err, "reason", PlatformError.reason))
                continue
            if news.known or news.deleted:
                self._loop.call_soon_threadsafe(self._publish, news)
            # Under a storm of commits, looking must not starve answering.
            self._closed.wait(REST_FACTOR * (time.monotonic() - begin))

    def _read_news(self) -> _News:
        # A copy of a dict is atomic, and a topic seen too early or too late only costs one look.
        known = {job_id: topic.last_seq for job_id, topic in self._topics.copy().items()}
        news = _News()
        with self._database.read() as session:
            found = last_seqs(session, known)
            for job_id, last_seq in found.items():
                if 0 < last_seq - known[job_id] <= PAGE:
                    events = events_after(session, job_id, known[job_id], PAGE)
                    news.known[job_id] = (events[-1].seq if events else known[job_id], events)
                elif last_seq > known[job_id]:
                    news.known[job_id] = (last_seq, [])
        news.deleted.extend(known.keys() - found.keys())
        return news

    def _publish(self, news: _News) -> None:
        for job_id, (last_seq, events) in news.known.items():
            if (topic := self._topics.get(job_id)) is not None:
                topic.publish(last_seq, events)
        for job_id in news.deleted:
            if (topic := self._topics.get(job_id)) is not None:
                topic.end()


async def _until(event: asyncio.Event, limit_seconds: float | None) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), limit_seconds)
