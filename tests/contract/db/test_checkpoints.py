"""Checkpoints as places to resume from, on both databases."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from services.core.errors import LeaseLost
from services.db import checkpoints, jobs
from services.db import tables as t
from services.db.database import Database
from tests.stack.builders import new_checkpoint, queued_job
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
