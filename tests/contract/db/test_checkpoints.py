"""Checkpoints as places to resume from, on both databases."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from services.core.errors import LeaseLost, PreconditionFailed
from services.core.states import JobState
from services.db import checkpoints, jobs, models
from services.db import tables as t
from services.db.database import Database
from tests.stack.builders import new_checkpoint, new_model_version, queued_job
from tests.stack.jobs import EXPIRED, claimed, current, kinds, reaped

pytestmark = pytest.mark.usefixtures("invariants_hold_in_the_end")


def test_checkpoint_becomes_the_place_to_resume_and_forgives_restarts(database: Database) -> None:
    job = queued_job(database)
    claimed(database, job, ttl_seconds=EXPIRED)
    reaped(database)
    lease = claimed(database, job)
    with database.write() as session:
        jobs.commit_checkpoint(session, lease, new_checkpoint(10, metric=0.25, files=[{"name": "model.safetensors"}]))
    with database.write() as session:
        kept = jobs.commit_checkpoint(session, lease, new_checkpoint(20, metric=float("nan")))

    with database.read() as session:
        newest = checkpoints.newest_committed(session, job.id)
        no_progress = session.execute(sa.select(t.jobs.c.no_progress)).scalar_one()
    assert newest == kept
    assert (kept.step, kept.metric, kept.ordinal, no_progress) == (20, None, 2, 0)
    assert current(database, job).checkpoint_step == 20


def test_progress_is_never_behind_the_checkpoint(database: Database) -> None:
    job = queued_job(database)
    lease = claimed(database, job)
    seen = []

    def see() -> None:
        seen.append((current(database, job).progress_step, current(database, job).checkpoint_step))

    def step(number: int) -> None:
        with database.write() as session:
            jobs.append_events(session, lease, [("step", {"step": number, "total": 50})])
        see()

    step(8)
    with database.write() as session:
        checkpoint = jobs.commit_checkpoint(session, lease, new_checkpoint(10))
    see()
    step(9)
    step(12)
    with database.write() as session:
        checkpoints.mark_corrupt(session, lease, checkpoint.id)
    step(1)

    assert seen == [(8, -1), (10, 10), (10, 10), (12, 10), (1, -1)]


def test_checkpoint_committed_twice_by_one_lease_is_one(database: Database) -> None:
    job = queued_job(database)
    lease = claimed(database, job)
    with database.write() as session:
        first = jobs.commit_checkpoint(session, lease, new_checkpoint(10))

    with database.write() as session:
        again = jobs.commit_checkpoint(session, lease, new_checkpoint(10))

    assert again == first
    assert kinds(database, job).count("checkpoint") == 1


def test_checkpoint_committed_twice_is_acknowledged_even_after_the_lease_went(database: Database) -> None:
    job = queued_job(database)
    lease = claimed(database, job, ttl_seconds=EXPIRED)
    with database.write() as session:
        first = jobs.commit_checkpoint(session, lease, new_checkpoint(10))
    reaped(database)

    with database.write() as session:
        assert jobs.commit_checkpoint(session, lease, new_checkpoint(10)) == first
    with pytest.raises(LeaseLost), database.write() as session:
        jobs.commit_checkpoint(session, lease, new_checkpoint(20))


def test_checkpoint_of_a_step_already_passed_is_refused(database: Database) -> None:
    job = queued_job(database)
    lease = claimed(database, job)
    with database.write() as session:
        jobs.commit_checkpoint(session, lease, new_checkpoint(20))

    with pytest.raises(LeaseLost), database.write() as session:
        jobs.commit_checkpoint(session, lease, new_checkpoint(10))


def test_corrupt_checkpoint_falls_back_and_its_step_can_be_committed_again(database: Database) -> None:
    job = queued_job(database)
    first = claimed(database, job, ttl_seconds=EXPIRED)
    with database.write() as session:
        good = jobs.commit_checkpoint(session, first, new_checkpoint(10))
        bad = jobs.commit_checkpoint(session, first, new_checkpoint(20))
    reaped(database)
    lease = claimed(database, job)

    with database.write() as session:
        assert checkpoints.mark_corrupt(session, lease, bad.id) == good
    assert current(database, job).checkpoint_step == 10
    with database.write() as session:
        again = jobs.commit_checkpoint(session, lease, new_checkpoint(20))

    assert again.id != bad.id
    assert current(database, job).checkpoint_id == again.id


def test_a_deleted_checkpoint_leaves_the_one_before_it(database: Database) -> None:
    job = queued_job(database)
    lease = claimed(database, job)
    with database.write() as session:
        older, newest = (jobs.commit_checkpoint(session, lease, new_checkpoint(step)) for step in (1, 2))
        jobs.finish(session, lease, state=JobState.SUCCEEDED, model_version=new_model_version())
    before = current(database, job)

    with database.write() as session:
        checkpoints.retire(session, job.id, newest.id)

    after = current(database, job)
    assert (after.checkpoint_step, after.checkpoint_id) == (1, older.id)
    assert after.etag != before.etag
    with database.write() as session:
        checkpoints.retire(session, job.id, older.id)
    assert current(database, job).checkpoint_step == -1


def test_a_checkpoint_that_a_job_or_a_model_needs_cannot_be_deleted(database: Database) -> None:
    job = queued_job(database)
    lease = claimed(database, job)
    with database.write() as session:
        jobs.commit_checkpoint(session, lease, new_checkpoint(1))
        jobs.finish(session, lease, state=JobState.SUCCEEDED, model_version=new_model_version())
        (found,) = checkpoints.list_all(session, job.id)
    child = queued_job(database, source_checkpoint_id=found.id)

    with database.write() as session, pytest.raises(PreconditionFailed, match=f"job {child.id} starts from this"):
        checkpoints.retire(session, job.id, found.id)
    with database.write() as session:
        jobs.cancel(session, "default", child.id, "")
        models.insert(
            session,
            new_model_version(checkpoint_id=found.id, bundle_prefix="", bundle_sha256=""),
            project="default",
            model_id="m",
            recipe=job.recipe,
            job_id=job.id,
        )
    with database.write() as session, pytest.raises(PreconditionFailed, match="m/1 is still to be packaged"):
        checkpoints.retire(session, job.id, found.id)
