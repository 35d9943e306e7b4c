"""The Celery tasks: ids in, None out. A message is a doorbell; the lease in the database decides what runs."""

from __future__ import annotations

from contextlib import suppress

import structlog
from celery import Celery

from services.broker.sender import BUILD_ARCHIVE, RUN_ATTEMPT
from services.core.errors import DatabaseUnavailable, JobNotFound, JobNotRunnable, LeaseHeld, NotFound
from services.db import archives, jobs
from services.db.archives import ArchiveLease
from services.db.job_records import Job, Lease
from workers.archive_build import ArchiveBuild
from workers.attempt import Attempt
from workers.runtime import Runtime

log = structlog.get_logger(__name__)


def register(app: Celery, runtime: Runtime) -> None:
    """Give the application its tasks, bound to this worker's runtime."""

    @app.task(name=RUN_ATTEMPT)
    def run_attempt(job_id: str) -> None:
        """Run the job's next attempt and then whatever else is due; a duplicate delivery finds nothing to do."""
        run_attempts(runtime, hint=job_id)

    @app.task(name=BUILD_ARCHIVE)
    def build_archive(archive_id: str) -> None:
        """Build an archive, unless it is built or being built."""
        build(runtime, archive_id)


def run_attempts(runtime: Runtime, *, hint: str) -> None:
    """Hold a slot and run attempts, each time the job whose turn it is, until nothing is due or the worker drains.

    A busy worker leaves at once: whoever holds a slot looks for due jobs after each attempt, and once more where
    somebody rang between its last look and its leaving.
    """
    while True:
        with runtime.slots.take() as slot:
            if slot is None:
                return
            try:
                while not runtime.slots.is_closed(slot) and (claimed := _claim(runtime, hint)) is not None:
                    lease, job = claimed
                    Attempt(lease, job, runtime, slot=slot).run()
            except DatabaseUnavailable as err:
                log.warning("claim_failed", error=str(err))
        if not runtime.slots.was_missed:
            return


def build(runtime: Runtime, archive_id: str) -> None:
    if runtime.drain.is_set or runtime.full_disk is not None:
        return
    try:
        lease = _claim_archive(runtime, archive_id)
    except (LeaseHeld, JobNotRunnable, NotFound):
        return
    except DatabaseUnavailable as err:
        log.warning("claim_failed", error=str(err))
        return
    ArchiveBuild(lease, runtime).run()


def _claim(runtime: Runtime, hint: str) -> tuple[Lease, Job] | None:
    runtime.slots.forget_missed()
    if runtime.drain.is_set:
        return None
    if (full := runtime.full_disk) is not None:
        log.error("disk_nearly_full", directory=str(full))
        return None
    worker_id, ttl_seconds = runtime.identity.worker_id, runtime.settings.timings.lease_ttl
    lease: Lease | None = None
    with runtime.database.write() as session:
        lease = jobs.claim_next(session, runtime.train_queues, worker_id=worker_id, ttl_seconds=ttl_seconds)
    if lease is None:
        # The queue leaves out a row that somebody is just writing; asking for it by name waits for that.
        with suppress(LeaseHeld, JobNotRunnable, JobNotFound), runtime.database.write() as session:
            lease = jobs.claim(session, hint, worker_id=worker_id, ttl_seconds=ttl_seconds)
    if lease is None:
        return None
    with runtime.database.read() as session:
        return lease, jobs.get(session, lease.project, lease.job_id)


def _claim_archive(runtime: Runtime, archive_id: str) -> ArchiveLease:
    identity, timings = runtime.identity, runtime.settings.timings
    with runtime.database.write() as session:
        return archives.claim(session, archive_id, worker_id=identity.worker_id, ttl_seconds=timings.lease_ttl)
