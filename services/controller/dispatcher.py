"""Rings the workers' doorbells for what is due. Level-triggered: whatever got lost is due again soon."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import structlog

from services.broker.sender import BUILD_ARCHIVE, BUILD_QUEUE, RUN_ATTEMPT
from services.controller import metrics
from services.core.errors import BrokerUnavailable
from services.db import archives, jobs, workers
from services.db.database import Database

log = structlog.get_logger(__name__)

SPARE_MESSAGES = 8


@dataclass(frozen=True, slots=True)
class Message:
    """One message to one queue."""

    task: str
    queue: str
    argument: str


class Doorbell(Protocol):
    """What carries messages, such as `services.broker.sender.Sender`."""

    def send(self, task: str, queue: str, argument: str) -> None: ...


class Dispatcher:
    """Sends messages for queued jobs and for archives to build."""

    def __init__(
        self,
        database: Database,
        sender: Doorbell,
        *,
        redispatch_after_seconds: float,
        preempt_after_seconds: float,
    ) -> None:
        self._database = database
        self._sender = sender
        self._redispatch_after = redispatch_after_seconds
        self._preempt_after = preempt_after_seconds

    def tick_jobs(self) -> None:
        """Ring for jobs, and make room for urgent ones; called at every interval and after every commit.

        Raises:
            BrokerUnavailable: the broker took some of the messages at most; the rest is sent again later.
            DatabaseUnavailable: nothing was sent.
        """
        with self._database.write() as session:
            slots = sum(w.slots for w in workers.list_workers(session) if w.is_alive and not w.is_draining)
            due = jobs.dispatch(
                session, window=2 * slots + SPARE_MESSAGES, redispatch_after_seconds=self._redispatch_after
            )
            asked = jobs.preempt(session, min_run_seconds=self._preempt_after)
        for preempted in asked:
            log.info("job_asked_to_yield", job=preempted.job_id, to=preempted.for_job_id, queue=preempted.queue)
        self._send([Message(RUN_ATTEMPT, queue, job_id) for job_id, queue in due])

    def tick_archives(self) -> None:
        """Ring for archives; see `tick_jobs`."""
        with self._database.write() as session:
            due = archives.due_for_dispatch(
                session, limit=SPARE_MESSAGES, redispatch_after_seconds=self._redispatch_after
            )
        self._send([Message(BUILD_ARCHIVE, BUILD_QUEUE, archive_id) for archive_id in due])

    def _send(self, messages: list[Message]) -> None:
        for number, message in enumerate(messages):
            try:
                self._sender.send(message.task, message.queue, message.argument)
            except BrokerUnavailable:
                log.warning("messages_postponed", count=len(messages) - number)
                raise
            metrics.DISPATCHED.labels(message.queue).inc()
