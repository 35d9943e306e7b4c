"""A database that the first release filled serves today's stores after its migration, and has lost nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import sqlalchemy as sa

from services.core.states import ArchiveState, AttemptState, FailureReason, JobState
from services.db import artifacts, checkpoints, datasets, deployments, jobs, migrations, models, outbox, workers
from services.db.database import Database
from services.db.tables import metadata
from tests.stack import first_release as old
from tests.stack.builders import new_checkpoint, new_model_version


@dataclass
class Upgraded:
    """A database at head, and what it held at the first revision."""

    database: Database
    before: dict[str, list[old.Row]]


@pytest.fixture
def upgraded(empty_url: str) -> Iterator[Upgraded]:
    database = Database(empty_url)
    with database._engine.connect() as connection:
        migrations.upgrade(connection, revision=old.REVISION)
    with database._engine.connect() as connection:
        old.write(connection)
        before = old.read(connection)
    database.migrate()
    yield Upgraded(database, before)
    database.dispose()


def test_the_first_release_is_remembered_whole(empty_url: str) -> None:
    database = Database(empty_url)
    with database._engine.connect() as connection:
        migrations.upgrade(connection, revision=old.REVISION)
    with database._engine.connect() as connection:
        found = sa.inspect(connection)
        columns = {
            name: {column["name"] for column in found.get_columns(name)}
            for name in found.get_table_names()
            if name != "alembic_version"
        }
    database.dispose()

    assert {name: set(rows[0]) for name, rows in old.TABLES.items()} == columns


def test_a_migration_changes_nothing_that_was_there(upgraded: Upgraded) -> None:
    assert upgraded.database.is_at_head()
    with upgraded.database._engine.connect() as connection:
        assert old.read(connection) == upgraded.before
        assert set(metadata.tables) <= set(sa.inspect(connection).get_table_names())


def test_jobs_of_every_state_are_read_with_all_that_belongs_to_them(upgraded: Upgraded) -> None:
    with upgraded.database.read() as session:
        listed = jobs.page(session, "default", page_size=10)
        states = {job.id: job.state for job in listed}
        done = jobs.get(session, "default", old.SUCCEEDED)
        failed = jobs.get(session, "default", old.FAILED)
        events = jobs.events_after(session, old.SUCCEEDED, 0, 100)
        attempts = jobs.list_attempts(session, old.SUCCEEDED)
        kept = checkpoints.newest_committed(session, old.SUCCEEDED)
        stored = artifacts.page(session, old.SUCCEEDED, page_size=10)

    assert states == {
        old.QUEUED: JobState.QUEUED,
        old.RUNNING: JobState.RUNNING,
        old.SUCCEEDED: JobState.SUCCEEDED,
        old.FAILED: JobState.FAILED,
        old.CANCELLED: JobState.CANCELLED,
    }
    assert [job.create_time for job in listed] == sorted((job.create_time for job in listed), reverse=True)
    assert (done.checkpoint_step, done.model_version, done.spec["config"]["optim"]) == (720, 1, {"lr": 0.005})
    assert (done.start_time, done.end_time, done.labels) == (old.at(30), old.at(50), {"team": "vision"})
    assert (failed.failure_reason, failed.failure_log) == (FailureReason.NON_FINITE_LOSS, "Traceback ...\n")
    assert [event.seq for event in events] == list(range(1, 7))
    assert events[2].payload["scalars"] == {"train/loss": 0.5}
    assert (attempts[0].state, attempts[0].pid, attempts[0].pid_start) == (AttemptState.SUCCEEDED, 4711, 1234.56)
    assert kept is not None
    assert (kept.id, kept.metric, kept.files[0]["size_bytes"]) == (old.CHECKPOINT, 0.8125, 1_000_000)
    assert [artifact.name for artifact in stored] == ["curves.png"]


def test_datasets_models_and_deployments_are_read(upgraded: Upgraded) -> None:
    with upgraded.database.read() as session:
        newest = datasets.get(session, "default", "digits")
        version = models.get(session, "default", "digits")
        deployment = deployments.get(session, "default", "digits", alive_seconds=10**10)
        desired = deployments.desired(session)
        known = workers.list_workers(session)
        devices = workers.list_devices(session)

    assert (newest.id, newest.version, newest.size_bytes) == (old.DATASET, 2, 5_000_000_000)
    assert newest.report == {"warnings": ["two boxes overlap \N{SNOWMAN}"]}
    assert (version.id, version.metrics, version.checkpoint_id) == (old.MODEL, {"eval/ap50": 0.8125}, old.CHECKPOINT)
    assert deployment.archive.state is ArchiveState.READY
    assert [replica.is_ready for replica in deployment.replicas] == [True]
    assert [one.archive_sha256 for one in desired] == [old.digest("archive")]
    assert [(worker.id, worker.is_alive) for worker in known] == [("worker-1", False)]
    assert [(device.uuid, device.is_quarantined) for device in devices] == [("GPU-1", True)]


def test_work_goes_on_where_the_first_release_left_it(upgraded: Upgraded) -> None:
    with upgraded.database.write() as session:
        reaped = jobs.reap(session, limit=10, retry_delay_seconds=0)
        first = jobs.claim_next(session, ["train.cpu"], worker_id="new", ttl_seconds=60)
        second = jobs.claim_next(session, ["train.cpu"], worker_id="new", ttl_seconds=60)
        assert first is not None
        assert second is not None
        committed = jobs.commit_checkpoint(session, first, new_checkpoint(400))
        version = new_model_version(checkpoint_id=committed.id)
        jobs.finish(session, first, state=JobState.SUCCEEDED, model_version=version)
        waiting = outbox.take(session, limit=10, retry_after_seconds=30)
    with upgraded.database.read() as session:
        done = jobs.get(session, "default", first.job_id)
        seqs = [event.seq for event in jobs.events_after(session, first.job_id, 0, 100)]

    assert [one.job_id for one in reaped] == [old.RUNNING]
    assert {first.job_id, second.job_id} == {old.RUNNING, old.QUEUED}
    assert (first.job_id, first.token) == (
        old.RUNNING,
        3,
    )  # the reaper took the token that the dead worker held
    assert (done.state, done.model_version) == (JobState.SUCCEEDED, 2)
    assert seqs == list(range(1, len(seqs) + 1))
    assert [item.payload for item in waiting] == [{"prefix": "gone/"}]
