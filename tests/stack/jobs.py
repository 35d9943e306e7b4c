"""Short ways through the life of a job, for tests of the stores."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from services.core.states import FailureReason
from services.db import jobs
from services.db.database import Database
from services.db.jobs import Failure

CRASH = Failure(FailureReason.CRASH, "the trainer crashed", log_tail="Traceback", exit_code=1)
EXPIRED = -1.0
"""A lease of this many seconds has run out when it is given."""


def claimed(database: Database, job: jobs.Job, *, worker_id: str = "a", ttl_seconds: float = 60.0) -> jobs.Lease:
    with database.write() as session:
        return jobs.claim(session, job.id, worker_id=worker_id, ttl_seconds=ttl_seconds)


def reaped(database: Database) -> list[jobs.Reaped]:
    with database.write() as session:
        return jobs.reap(session, limit=100, retry_delay_seconds=0.0)


def current(database: Database, job: jobs.Job) -> jobs.Job:
    with database.read() as session:
        return jobs.get(session, job.project, job.id)


def kinds(database: Database, job: jobs.Job) -> list[str]:
    with database.read() as session:
        return [event.kind for event in jobs.events_after(session, job.id, 0, 1000)]


def in_threads(work: Callable[[], None], count: int) -> None:
    """Run `work` in so many threads at once and raise what any of them raised."""
    errors: list[BaseException] = []
    start = threading.Barrier(count)

    def run() -> None:
        try:
            start.wait()
            work()
        except BaseException as err:
            errors.append(err)

    threads = [threading.Thread(target=run, name=f"worker-{number}") for number in range(count)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert time.monotonic() - began < 60
    if errors:
        raise errors[0]
