"""Wakes the dispatchers as soon as a commit leaves something for them, so that nobody waits for an interval."""

from __future__ import annotations

import threading

from services.controller.loop import Loop
from services.core.errors import PlatformError
from services.core.outage import Outage
from services.db.changes import ChangeFeed
from services.db.database import Database
from services.db.waiting import has_unsent_archives, has_unsent_jobs

WAIT_SECONDS = 1.0
REST_SECONDS = 0.02
"""Between two looks: a storm of commits is one look at the tables, not one each."""
LONGEST_REST_SECONDS = 0.25
"""While every look finds something: more jobs wait than are sent at a time, and most commits change nothing in that."""


class Waker:
    """A thread that waits for commits. Losing it or a wake costs one interval of the loops."""

    def __init__(self, database: Database, *, jobs: Loop, archives: Loop) -> None:
        self._database = database
        self._jobs = jobs
        self._archives = archives
        self._outage = Outage(away="waker_waits", back="waker_goes_on")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="waker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, *, timeout_seconds: float) -> None:
        self._stopping.set()
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        feed: ChangeFeed | None = None
        # What was committed before the feed was open, nobody will tell.
        is_due, rest = True, REST_SECONDS
        while not self._stopping.is_set():
            try:
                feed = feed or self._database.changes()
                if is_due or feed.wait(WAIT_SECONDS):
                    is_due = True
                    rest = min(2 * rest, LONGEST_REST_SECONDS) if self._look() else REST_SECONDS
                    is_due = False
                self._outage.answer()
            except PlatformError as err:
                self._outage.miss(reason=err.reason, error=str(err))
                self._stopping.wait(WAIT_SECONDS)
            self._stopping.wait(rest)
        if feed is not None:
            feed.close()

    def _look(self) -> bool:
        """Wake the loops that have something to send; return whether one has."""
        with self._database.read() as session:
            has_jobs, has_archives = has_unsent_jobs(session), has_unsent_archives(session)
        if has_jobs:
            self._jobs.wake()
        if has_archives:
            self._archives.wake()
        return has_jobs or has_archives
