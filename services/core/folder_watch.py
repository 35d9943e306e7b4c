"""Sleeping until files of one folder change, instead of looking at them again and again.

Linux says when (inotify); elsewhere, and where its watches are used up, a wait is a short sleep.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inotify_simple import INotify

POLL_SECONDS = 0.01
"""The sleep of a wait where nobody says when a file changed."""


class FolderWatch:
    """What changed since the last wait is remembered, so look first and wait then; one thread waits at a time."""

    def __init__(self, folder: Path, is_of_interest: Callable[[str], bool]) -> None:
        self._is_of_interest = is_of_interest
        self._waiting = threading.Lock()
        self._is_closed = False
        self._woken, self._waker = os.pipe()
        self._events = _watch(folder)

    def wait(self, timeout_seconds: float) -> bool:
        """Return True as soon as a file of interest was written, made or moved here, False on timeout or close.

        A timeout of 0 asks without waiting.
        """
        end = time.monotonic() + timeout_seconds
        with self._waiting:
            while not self._is_closed:
                remaining = end - time.monotonic()
                if self._events is None:
                    select.select([self._woken], [], [], max(0.0, min(POLL_SECONDS, remaining)))
                    return not self._is_closed
                if self._changed_within(max(0.0, remaining)):
                    return True
                if remaining <= 0:
                    return False
        return False

    def close(self) -> None:
        """End a running wait at once and free the watch; may be called from any thread, and twice."""
        if self._is_closed:
            return
        self._is_closed = True
        os.write(self._waker, b"x")
        with self._waiting:
            if self._events is not None:
                self._events.close()
            os.close(self._woken)
            os.close(self._waker)

    def _changed_within(self, seconds: float) -> bool:
        assert self._events is not None
        ready, _, _ = select.select([self._events, self._woken], [], [], seconds)
        if self._events not in ready or self._is_closed:
            return False
        # A name of no interest, such as a file before its rename, is read and forgotten.
        return any(self._is_of_interest(event.name) for event in self._events.read(timeout=0))


def _watch(folder: Path) -> INotify | None:
    if not sys.platform.startswith("linux"):
        return None
    from inotify_simple import INotify, flags

    try:
        events = INotify()
    except OSError:
        return None
    try:
        events.add_watch(folder, flags.MODIFY | flags.CREATE | flags.MOVED_TO)
    except OSError:
        events.close()
        return None
    return events
