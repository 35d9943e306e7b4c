"""Why an attempt should stop, seen by selectors: flags that are set once and never cleared.

Setting a latch takes no lock, so a signal handler may do it.
"""

from __future__ import annotations

import enum
import os
import threading


class StopReason(enum.IntEnum):
    """Why a child is asked to stop, the gravest last: it decides when several hold."""

    DRAIN = 1
    YIELD = 2
    """The job itself is to leave its worker: somebody paused it, or one of higher priority needs the slot."""
    NO_CONTACT = 3
    CANCEL = 4
    LOST = 5


class Stopped(Exception):
    """The attempt was asked to stop before its child ran."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason.name)
        self.reason = reason


class Latch:
    """A flag with a file descriptor that stays readable once it is set."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._is_set = False

    @property
    def is_set(self) -> bool:
        return self._is_set

    def fileno(self) -> int:
        return self._fd

    def set(self) -> None:
        self._is_set = True
        os.eventfd_write(self._fd, 1)

    def close(self) -> None:
        os.close(self._fd)


class StopRequest:
    """One attempt's reasons to stop, together with the drain of its whole worker."""

    def __init__(self, drain: Latch) -> None:
        self._drain = drain
        self._own = Latch()
        self._lock = threading.Lock()
        self._lost = threading.Event()
        self._reasons: frozenset[StopReason] = frozenset()

    @property
    def reason(self) -> StopReason | None:
        reasons = self._reasons | ({StopReason.DRAIN} if self._drain.is_set else frozenset())
        return max(reasons, default=None)

    @property
    def is_draining(self) -> bool:
        return self._drain.is_set

    @property
    def is_lost(self) -> bool:
        return self._lost.is_set()

    def latches(self) -> tuple[Latch, Latch]:
        """Return what a selector watches; both stay readable once set."""
        return self._own, self._drain

    def request(self, reason: StopReason) -> None:
        with self._lock:
            self._reasons |= {reason}
        if reason is StopReason.LOST:
            self._lost.set()
        self._own.set()

    def check(self) -> None:
        """Raise Stopped where there is a reason to stop."""
        if (reason := self.reason) is not None:
            raise Stopped(reason)

    def pause(self, seconds: float) -> None:
        """Wait this long, or until the lease is lost; other reasons to stop do not cut the last writes short."""
        self._lost.wait(seconds)

    def close(self) -> None:
        self._own.close()
