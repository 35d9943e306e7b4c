"""What a job starts from stays stored as long as the job may need it, on both databases."""

from __future__ import annotations

import threading

import pytest

from services.core.errors import CheckpointNotFound
from services.db import checkpoints, jobs
from services.db.checkpoints import Checkpoint
from services.db.database import Database
from services.db.garbage import pinned_checkpoints
from services.db.session import Session
from tests.stack.builders import make_job, new_checkpoint, queued_job


def trained(database: Database) -> tuple[jobs.Job, Checkpoint]:
    """Return a job with two checkpoints, and the older one: nothing else keeps that."""
    job = queued_job(database)
    with database.write() as session:
        lease = jobs.claim(session, job.id, worker_id="a", ttl_seconds=60)
        older, _ = [jobs.commit_checkpoint(session, lease, new_checkpoint(step)) for step in (1, 2)]
    return job, older


def start_from(session: Session, job: jobs.Job, checkpoint: Checkpoint) -> jobs.Job:
    checkpoints.hold(session, job.id, checkpoint.id)
    return make_job(session, job.dataset_version_id, source_checkpoint_id=checkpoint.id)


def test_a_checkpoint_stays_until_the_job_that_starts_from_it_has_ended(database: Database) -> None:
    job, older = trained(database)
    with database.write() as session:
        tuned = start_from(session, job, older)

    with database.write() as session:
        pinned = pinned_checkpoints(session, job.id)
        refused = checkpoints.mark_deleting(session, [older.id])
    with database.write() as session:
        jobs.cancel(session, "default", tuned.id, "")
    with database.write() as session:
        free = pinned_checkpoints(session, job.id)
        marked = checkpoints.mark_deleting(session, [older.id])

    assert (pinned, refused) == ({older.id}, [])
    assert (free, [row.id for row in marked]) == (set(), [older.id])


def test_a_checkpoint_on_its_way_out_cannot_be_held(database: Database) -> None:
    job, older = trained(database)
    with database.write() as session:
        checkpoints.mark_deleting(session, [older.id])

    with pytest.raises(CheckpointNotFound), database.write() as session:
        checkpoints.hold(session, job.id, older.id)


def test_a_submission_under_way_is_waited_for(database: Database) -> None:
    job, older = trained(database)
    marked: list[Checkpoint] = []

    def retire() -> None:
        with database.write() as session:
            marked.extend(checkpoints.mark_deleting(session, [older.id]))

    with database.write() as session:
        start_from(session, job, older)
        thread = threading.Thread(target=retire)
        thread.start()
        # Long enough for the other transaction to come to the lock; it must not get past it.
        thread.join(0.3)
        assert thread.is_alive()
    thread.join()

    assert marked == []
