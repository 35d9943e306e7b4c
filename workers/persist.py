"""Writes that must happen, retried while the database or the store is away, up to a limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, TypeVar

import structlog

from services.core.errors import DatabaseUnavailable, StoreUnavailable
from workers.stop import StopRequest

log = structlog.get_logger(__name__)

T = TypeVar("T")

FIRST_DELAY_SECONDS = 0.2
DELAY_CAP_SECONDS = 5.0


class Limit(Protocol):
    """When to give up: a Deadline, or one that comes closer when the worker drains."""

    @property
    def remaining(self) -> float: ...

    @property
    def is_over(self) -> bool: ...


def insist(act: Callable[[], T], *, what: str, deadline: Limit, stop: StopRequest | None) -> T:
    """Return what `act` returns, trying again while nobody answers; the act must be safe to repeat.

    An act that itself finds out whether the lease is lost, as the last write of an attempt does, needs no `stop`:
    once it has ended the attempt and its answer got lost, a heartbeat calls the lease lost, too.

    Raises:
        DatabaseUnavailable, StoreUnavailable: the deadline is over, or the lease is lost so that nothing may be written.
    """
    pause = time.sleep if stop is None else stop.pause
    delay = FIRST_DELAY_SECONDS
    while True:
        try:
            return act()
        except (DatabaseUnavailable, StoreUnavailable) as err:
            if deadline.is_over or (stop is not None and stop.is_lost):
                raise
            log.warning("waiting_for_service", what=what, error=str(err))
        pause(min(delay, deadline.remaining))
        delay = min(delay * 2, DELAY_CAP_SECONDS)
