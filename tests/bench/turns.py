"""Process trees that compute in turns on the same cores, each on a clock that stands still while it waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import psutil


class Contestant:
    """A process tree that runs only in its turns."""

    def __init__(self, roots: Callable[[], Sequence[int]]) -> None:
        self._roots = roots
        self._ran_seconds = 0.0
        self._since: float | None = None

    def clock(self) -> float:
        """Return the seconds for which it has run."""
        return self._ran_seconds + (time.monotonic() - self._since if self._since is not None else 0.0)

    def stop(self) -> None:
        if self._since is not None:
            self._ran_seconds += time.monotonic() - self._since
            self._since = None
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                process.suspend()

    def go(self) -> None:
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                process.resume()
        self._since = time.monotonic()

    def _processes(self) -> Iterator[psutil.Process]:
        for pid in self._roots():
            with suppress(psutil.NoSuchProcess):
                root = psutil.Process(pid)
                yield root
                yield from root.children(recursive=True)
