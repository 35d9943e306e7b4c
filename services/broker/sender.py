"""Rings the doorbell: one message with one id. Who sends must be ready to send again."""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu.exceptions import ChannelError, KombuError
from kombu.pools import ProducerPool

from services.core.errors import BrokerUnavailable

RUN_ATTEMPT = "train.run_attempt"
BUILD_ARCHIVE = "serve.build_archive"
BUILD_QUEUE = "serve.build"
CONNECTIONS = 10
"""How many threads may send at a time; more wait for one another."""


class Sender:
    """Sends tasks by name; safe to share between threads."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        # Its own: Celery's is every sender's of this process with the same URL, so that closing one would end all.
        self._connections: Any = app.connection_for_write().Pool(CONNECTIONS)
        self._producers: Any = ProducerPool(self._connections, limit=CONNECTIONS)

    def send(self, task: str, queue: str, argument: str) -> None:
        """Send one message and return; nothing tells whether it will be delivered.

        Raises:
            BrokerUnavailable: the broker did not take the message.
        """
        try:
            with self._producers.acquire(block=True) as producer:
                # By queue alone: Celery then uses the anonymous exchange, which needs no binding to be there.
                self._app.send_task(
                    task, args=[argument], queue=queue, retry=False, ignore_result=True, producer=producer
                )
        except (KombuError, ChannelError, OSError) as err:
            raise BrokerUnavailable from err

    def close(self) -> None:
        """Close the connections, for good."""
        self._producers.force_close_all()
        self._connections.force_close_all()
