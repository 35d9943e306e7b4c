"""What keeps an ended job, and what goes with one, on both databases."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from services.core.errors import CheckpointNotFound, JobNotFound, PreconditionFailed
from services.core.states import FailureReason, JobState
from services.db import artifacts, checkpoints, garbage, jobs, models, outbox
from services.db.artifacts import NewArtifact
from services.db.checkpoints import Checkpoint
from services.db.database import Database
from services.db.deletion import DELETE_OBJECTS
from services.db.jobs import Failure, Job
from services.db.session import Session
from services.storage import layout
from tests.contract.db.beside import held_up
from tests.stack.builders import make_dataset, make_job, new_checkpoint, new_model_version, queued_job, sha256


def failed_job(database: Database) -> tuple[Job, Checkpoint]:
    """Return a job that failed after its only checkpoint; it has an artifact, too."""
    job = queued_job(database)
    with database.write() as session:
        lease = jobs.claim(session, job.id, worker_id="a", ttl_seconds=60)
        checkpoint = jobs.commit_checkpoint(session, lease, new_checkpoint(1))
        key = layout.artifact("default", job.id, "samples.png")
        picture = {"name": "samples.png", "kind": "picture", "key": key, "size_bytes": 3, "sha256": sha256("x")}
        artifacts.add(session, lease, NewArtifact(**picture, step=1))
        jobs.finish(session, lease, state=JobState.FAILED, failure=Failure(FailureReason.SPEC_INVALID, "no"))
    return job, checkpoint


def delete(database: Database, job: Job) -> None:
    with database.write() as session:
        jobs.delete(session, "default", job.id)


def make_model(session: Session, job: Job, checkpoint: Checkpoint) -> models.ModelVersion:
    checkpoints.hold(session, job.id, checkpoint.id)
    new = new_model_version(checkpoint_id=checkpoint.id)
    return models.insert(session, new, project="default", model_id="digits", recipe=job.recipe, job_id=job.id)


def test_a_deleted_job_is_gone_with_all_that_hangs_on_it(database: Database) -> None:
    (gone, checkpoint), (stays, kept) = failed_job(database), failed_job(database)

    delete(database, gone)

    with database.write() as session:
        assert jobs.events_after(session, gone.id, 0, 10) == []
        assert jobs.list_attempts(session, gone.id) == []
        assert artifacts.page(session, gone.id, page_size=5) == []
        assert garbage.known_prefixes(session, [checkpoint.prefix]) == {kept.prefix}
        assert [job.id for job in jobs.page(session, "default", page_size=5)] == [stays.id]
        assert len(artifacts.page(session, stays.id, page_size=5)) == 1
        (effect,) = outbox.take(session, limit=5, retry_after_seconds=60)
    assert (effect.kind, effect.payload) == (DELETE_OBJECTS, {"prefix": layout.job_prefix("default", gone.id)})
    with pytest.raises(JobNotFound):
        delete(database, gone)


def test_a_job_of_another_project_is_not_found(database: Database) -> None:
    job, _ = failed_job(database)

    with pytest.raises(JobNotFound), database.write() as session:
        jobs.delete(session, "other", job.id)


@pytest.mark.parametrize("state", ["queued", "running", "paused"])
def test_a_job_that_has_not_ended_stays(database: Database, state: str) -> None:
    job = queued_job(database)
    with database.write() as session:
        if state == "running":
            jobs.claim(session, job.id, worker_id="a", ttl_seconds=60)
        if state == "paused":
            jobs.pause(session, "default", job.id, "")

    with pytest.raises(PreconditionFailed, match="has not ended; cancel it first"):
        delete(database, job)


def test_a_job_stays_while_a_model_that_it_made_is_there(database: Database) -> None:
    job, checkpoint = failed_job(database)
    with database.write() as session:
        version = make_model(session, job, checkpoint)

    with pytest.raises(PreconditionFailed, match="made model digits/1; delete that first"):
        delete(database, job)
    with database.write() as session:
        models.delete(session, "default", "digits", version.version)
    delete(database, job)


def test_a_job_stays_while_a_live_one_starts_from_its_checkpoint(database: Database) -> None:
    job, checkpoint = failed_job(database)
    with database.write() as session:
        dataset = make_dataset(session)
        other = make_job(session, dataset.id, source_checkpoint_id=checkpoint.id)

    with pytest.raises(PreconditionFailed, match=f"job {other.id} starts from a checkpoint"):
        delete(database, job)
    with database.write() as session:
        jobs.cancel(session, "default", other.id, "")
    delete(database, job)


def start_from(session: Session, job: Job, checkpoint: Checkpoint) -> None:
    checkpoints.hold(session, job.id, checkpoint.id)
    dataset = make_dataset(session)
    make_job(session, dataset.id, source_checkpoint_id=checkpoint.id)


@pytest.mark.parametrize(
    ("use", "reason"),
    [
        pytest.param(make_model, "made model digits/1", id="a model"),
        # Only the lock of the checkpoint tells: its id refers to no row.
        pytest.param(start_from, "starts from a checkpoint", id="a job"),
    ],
)
def test_what_is_being_made_of_its_checkpoint_is_waited_for(
    database: Database, use: Callable[[Session, Job, Checkpoint], object], reason: str
) -> None:
    job, checkpoint = failed_job(database)
    refusals: list[str] = []

    def try_to_delete() -> None:
        try:
            delete(database, job)
        except PreconditionFailed as err:
            refusals.append(str(err))

    with database.write() as session:
        use(session, job, checkpoint)
        thread = held_up(try_to_delete)
    thread.join()

    assert len(refusals) == 1
    assert reason in refusals[0]


def test_of_a_job_that_is_being_deleted_no_model_can_be_made(database: Database) -> None:
    job, checkpoint = failed_job(database)
    outcomes: list[str] = []

    def try_to_make() -> None:
        try:
            with database.write() as session:
                make_model(session, job, checkpoint)
            outcomes.append("made")
        except CheckpointNotFound:
            outcomes.append("not found")

    with database.write() as session:
        jobs.delete(session, "default", job.id)
        thread = held_up(try_to_make)
    thread.join()

    assert outcomes == ["not found"]
