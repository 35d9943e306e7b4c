"""A model version asked for from a checkpoint in the middle of training gets its bundle from a real worker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.broker.sender import BUILD_ARCHIVE, BUILD_QUEUE
from services.core.ids import new_id
from services.core.states import ArchiveState, DeploymentState, JobState
from services.db import archives, jobs, models
from services.db.models import ModelVersion, NewModelVersion
from services.storage.manifest import download_directory
from tests.builders.serving_rows import current, deployed
from tests.integration.workers.yard import RECIPE, Yard, open_yard, until
from workers.serving.form import Form


def pending_version(yard: Yard, job_id: str, checkpoint_id: str) -> ModelVersion:
    new = NewModelVersion(
        id=new_id(),
        checkpoint_id=checkpoint_id,
        config=yard.job(job_id).spec["config"],
        metrics={},
        bundle_prefix="",
        bundle_sha256="",
        size_bytes=0,
    )
    with yard.database.write() as session:
        return models.insert(session, new, project="default", model_id="early", recipe=RECIPE, job_id=job_id)


def start_build(yard: Yard, version: ModelVersion) -> str:
    with yard.database.write() as session:
        archive = archives.ensure(session, version.id, "cpu-t1")
    yard.sender.send(BUILD_ARCHIVE, BUILD_QUEUE, archive.id)
    return archive.id


@pytest.fixture
def yard(tmp_path: Path, scenes_dir: Path) -> Iterator[Yard]:
    with open_yard(tmp_path / "yard", scenes_dir) as yard:
        yard.start_worker(TRAINYARD_WORKER_QUEUES="train.cpu,serve.build")
        yield yard


def test_a_checkpoint_is_packaged_before_its_archive_is_built(yard: Yard, tmp_path: Path) -> None:
    job = yard.submit()
    yard.until_state(job.id, JobState.SUCCEEDED)
    early = yard.checkpoints(job.id)[0]
    version = pending_version(yard, job.id, early.id)

    start_build(yard, version)

    def packaged() -> ModelVersion:
        with yard.database.read() as session:
            return models.get_by_id(session, version.id)

    until(lambda: packaged().bundle_sha256, what="the bundle", show=yard.log_text)
    bundle = packaged()
    download_directory(yard.store, bundle.bundle_prefix, tmp_path / "bundle", bundle.bundle_sha256)
    assert (tmp_path / "bundle" / "bundle.json").is_file()
    with yard.database.read() as session:
        trained = models.get(session, "default", yard.job(job.id).model_id)
    assert bundle.bundle_sha256 != trained.bundle_sha256


def test_a_deployment_that_is_being_built_says_which_form_is_tried(scenes_dir: Path, tmp_path: Path) -> None:
    with open_yard(tmp_path / "yard", scenes_dir, heartbeat="0.5") as yard:
        yard.start_worker(TRAINYARD_WORKER_QUEUES="train.cpu,serve.build")
        job = yard.submit()
        done = yard.until_state(job.id, JobState.SUCCEEDED)
        with yard.database.read() as session:
            version = models.get(session, "default", job.model_id, done.model_version)
        archive = deployed(yard.database, version.id).archive
        yard.sender.send(BUILD_ARCHIVE, BUILD_QUEUE, archive.id)

        until(lambda: "exporting" in current(yard.database).message, what="the form", show=yard.log_text)
        found = current(yard.database)

    assert found.state is DeploymentState.BUILDING
    assert found.message.removeprefix("exporting ") in list(Form)


def test_a_checkpoint_that_is_gone_fails_the_build_with_a_reason(yard: Yard) -> None:
    job = yard.submit()
    yard.until_state(job.id, JobState.SUCCEEDED)
    early = yard.checkpoints(job.id)[0]
    version = pending_version(yard, job.id, early.id)
    yard.store.delete_prefix(early.prefix)

    archive_id = start_build(yard, version)

    def archive() -> archives.Archive:
        with yard.database.read() as session:
            return archives.get(session, archive_id)

    until(lambda: archive().state is ArchiveState.FAILED, what="the failure", show=yard.log_text)
    assert "checkpoint" in archive().message
    with yard.database.read() as session:
        assert jobs.get(session, "default", job.id).state is JobState.SUCCEEDED


def test_a_build_of_a_model_version_that_is_deleted_meanwhile_leaves_nothing(yard: Yard) -> None:
    job = yard.submit()
    yard.until_state(job.id, JobState.SUCCEEDED)
    version = pending_version(yard, job.id, yard.checkpoints(job.id)[0].id)
    archive_id = start_build(yard, version)

    def verdicts() -> list[str]:
        lines = [json.loads(line) for line in yard.log_text().splitlines() if line.startswith("{")]
        return [line["verdict"] for line in lines if line.get("archive") == archive_id and "verdict" in line]

    def is_building() -> bool:
        with yard.database.read() as session:
            return archives.get(session, archive_id).state is ArchiveState.BUILDING

    until(is_building, what="the build", show=yard.log_text)
    with yard.database.write() as session:
        models.delete(session, "default", version.model_id, version.version)

    until(verdicts, what="the build's end", show=yard.log_text)
    assert verdicts() == ["abandon"]
    assert "Traceback" not in yard.log_text()
    assert not list((yard.state_dir / "workers" / "w1" / "attempts").glob(f"{archive_id}-*"))
