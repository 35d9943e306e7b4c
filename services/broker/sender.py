"""Rings the doorbell: one message with one id. Who sends must be ready to send again."""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu.exceptions import ChannelError, KombuError

from services.core.errors import BrokerUnavailable

RUN_ATTEMPT = "train.run_attempt"
BUILD_ARCHIVE = "serve.build_archive"
BUILD_QUEUE = "serve.build"


class Sender:
    """Sends tasks by name; safe to share between threads."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def send(self, task: str, queue: str, argument: str) -> None:
        """Send one message and return; nothing tells whether it will be delivered.

        Raises:
            BrokerUnavailable: the broker did not take the message.
        """
        try:
            # By queue alone: Celery then uses the anonymous exchange, which needs no binding to be there.
            self._app.send_task(task, args=[argument], queue=queue, retry=False, ignore_result=True)
        except (KombuError, ChannelError, OSError) as err:
            raise BrokerUnavailable from err

    def close(self) -> None:
        """Close the connections of this process to the broker; whoever sends again opens new ones."""
        pool: Any = self._app.pool
        # The pool is every sender's of this process with the same URL: a closed one would refuse them all.
        pool.force_close_all(close_pool=False)
