"""What a job starts from stays stored as long as the job may need it, on both databases."""

from __future__ import annotations

import pytest

from services.core.errors import CheckpointNotFound, ModelNotFound, PreconditionFailed
from services.core.ids import new_id
from services.core.states import JobState
from services.db import checkpoints, deployments, jobs, models
from services.db.checkpoints import Checkpoint
from services.db.database import Database
from services.db.deployments import NewDeployment
from services.db.garbage import pinned_checkpoints
from services.db.models import ModelVersion
from services.db.session import Session
from tests.contract.db.beside import held_up
from tests.stack.builders import make_dataset, make_job, new_checkpoint, new_model_version, queued_job


def trained(database: Database) -> tuple[jobs.Job, Checkpoint]:
    """Return a job with two checkpoints, and the older one: nothing else keeps that."""
    job = queued_job(database)
    with database.write() as session:
        lease = jobs.claim(session, job.id, worker_id="a", ttl_seconds=60)
        older, _ = [jobs.commit_checkpoint(session, lease, new_checkpoint(step)) for step in (1, 2)]
    return job, older


def model_of(database: Database) -> ModelVersion:
    job = queued_job(database)
    new = new_model_version()
    with database.write() as session:
        lease = jobs.claim(session, job.id, worker_id="a", ttl_seconds=60)
        jobs.finish(session, lease, state=JobState.SUCCEEDED, model_version=new)
    with database.read() as session:
        return models.get_by_id(session, new.id)


def start_from_model(session: Session, version: ModelVersion) -> None:
    held = models.hold(session, "default", version.model_id, version.version)
    dataset = make_dataset(session)
    make_job(session, dataset.id, spec={"init_from": {"kind": "model", "id": held.id}})


def deploy_model(session: Session, version: ModelVersion) -> None:
    new = NewDeployment(
        project="default",
        deployment_id=f"of-{version.version}",
        request_id=new_id(),
        request_sha256="x",
        model_version_id=version.id,
        target="cpu-t1",
    )
    deployments.insert(session, new)


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


def test_a_model_is_not_deleted_beside_a_submission_or_a_deployment_of_it(database: Database) -> None:
    for use in (start_from_model, deploy_model):
        version = model_of(database)
        outcomes: list[str] = []

        def delete(version: ModelVersion = version, outcomes: list[str] = outcomes) -> None:
            try:
                with database.write() as session:
                    models.delete(session, "default", version.model_id, version.version)
                outcomes.append("deleted")
            except PreconditionFailed as err:
                outcomes.append(str(err))

        with database.write() as session:
            use(session, version)
            thread = held_up(delete)
        thread.join()

        assert len(outcomes) == 1
        assert f"model {version.model_id}/{version.version}: " in outcomes[0]


@pytest.mark.parametrize("use", ["start", "deploy"])
def test_a_model_that_is_being_deleted_can_be_used_no_more(database: Database, use: str) -> None:
    version = model_of(database)
    outcomes: list[str] = []

    def try_to_use() -> None:
        try:
            with database.write() as session:
                (start_from_model if use == "start" else deploy_model)(session, version)
            outcomes.append("used")
        except ModelNotFound:
            outcomes.append("not found")

    with database.write() as session:
        models.delete(session, "default", version.model_id, version.version)
        thread = held_up(try_to_use)
    thread.join()

    assert outcomes == ["not found"]


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
        thread = held_up(retire)
    thread.join()

    assert marked == []
