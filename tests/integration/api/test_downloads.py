"""Stored bytes come back whole, with their digest, and only by the names of resources."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

import grpc
import pytest
from trainyard.v1 import job_pb2
from trainyard.v1 import model_pb2 as pb

from services.core.errors import JobNotFound
from services.core.ids import new_id
from services.core.states import FailureReason, JobState
from services.db import artifacts, jobs
from services.db.artifacts import NewArtifact
from services.db.jobs import Failure, Lease
from services.db.work import Work
from services.models.download import DownloadManager
from services.storage import layout
from services.storage.manifest import upload_directory
from tests.integration.api.conftest import Running
from tests.integration.api.failures import refused
from tests.stack.builders import new_checkpoint, new_model_version


def claimed(api: Running) -> tuple[job_pb2.Job, Lease]:
    job = api.create()
    with api.database.write() as session:
        return job, jobs.claim(session, job.name.rpartition("/")[2], worker_id="worker-1", ttl_seconds=60)


def download(api: Running, name: str, file: str = "") -> tuple[pb.DownloadHeader, bytes]:
    first, *rest = api.models.DownloadArtifact(pb.DownloadArtifactRequest(name=name, file=file), timeout=30)
    return first.header, b"".join(message.chunk for message in rest)


def write_files(directory: Path, **files: bytes) -> Path:
    directory.mkdir()
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return directory


def test_an_artifact_comes_back_as_it_was_stored(api: Running) -> None:
    content = os.urandom(3 * 2**20 + 17)
    job, lease = claimed(api)
    key = layout.artifact("default", lease.job_id, "samples-000005.png")
    info = api.store.put(key, content)
    with api.database.write() as session:
        new = NewArtifact(
            name="samples.png", kind="picture", key=key, size_bytes=len(content), sha256=info.sha256 or "", step=5
        )
        artifacts.add(session, lease, new)

    (artifact,) = api.jobs.ListArtifacts(job_pb2.ListArtifactsRequest(parent=job.name)).artifacts
    header, received = download(api, artifact.name)

    assert received == content
    assert (header.file_name, header.size_bytes) == ("samples.png", len(content))
    assert header.sha256 == hashlib.sha256(content).hexdigest()


def test_files_of_a_checkpoint_and_its_manifest_can_be_fetched(api: Running, tmp_path: Path) -> None:
    _, lease = claimed(api)
    prefix = layout.checkpoint_prefix("default", lease.job_id, 5, lease.token)
    manifest = upload_directory(api.store, prefix, write_files(tmp_path / "checkpoint", weights=b"w" * 1000))
    files = [{"name": name, "size_bytes": e.size_bytes, "sha256": e.sha256} for name, e in manifest.files.items()]
    with api.database.write() as session:
        new = new_checkpoint(5, prefix=prefix, manifest_sha256=manifest.sha256(), files=files)
        checkpoint = jobs.commit_checkpoint(session, lease, new)
    name = f"projects/default/jobs/{lease.job_id}/checkpoints/{checkpoint.id}"

    header, received = download(api, name, "weights")
    manifest_header, manifest_bytes = download(api, name)

    assert received == b"w" * 1000
    assert header.sha256 == manifest.files["weights"].sha256
    assert hashlib.sha256(manifest_bytes).hexdigest() == manifest_header.sha256 == manifest.sha256()


def test_a_model_version_lists_the_files_that_can_be_fetched(api: Running, tmp_path: Path) -> None:
    _, lease = claimed(api)
    prefix = layout.bundle_prefix("default", "digits", new_id())
    manifest = upload_directory(api.store, prefix, write_files(tmp_path / "bundle", weights=b"abc", spec=b"{}"))
    with api.database.write() as session:
        new = new_model_version(bundle_prefix=prefix, bundle_sha256=manifest.sha256(), size_bytes=5)
        jobs.finish(session, lease, state=JobState.SUCCEEDED, model_version=new)
    name = "projects/default/models/detection-yolo-v1/versions/latest"

    version = api.models.GetModelVersion(pb.GetModelVersionRequest(name=name)).model_version
    contents = {file.name: download(api, version.name, file.name)[1] for file in version.files}

    assert version.state == pb.MODEL_VERSION_STATE_READY
    assert version.metrics["eval/ap50"] == 0.5
    assert contents == {"weights": b"abc", "spec": b"{}"}


def test_only_files_of_the_manifest_can_be_fetched(api: Running, tmp_path: Path) -> None:
    _, lease = claimed(api)
    prefix = layout.checkpoint_prefix("default", lease.job_id, 5, lease.token)
    upload_directory(api.store, prefix, write_files(tmp_path / "checkpoint", weights=b"w"))
    with api.database.write() as session:
        checkpoint = jobs.commit_checkpoint(session, lease, new_checkpoint(5, prefix=prefix))
    name = f"projects/default/jobs/{lease.job_id}/checkpoints/{checkpoint.id}"

    for file in ("../../metadata.sqlite3", "/etc/passwd", "other"):
        assert refused(lambda file=file: download(api, name, file)).code == grpc.StatusCode.NOT_FOUND


def without_bytes(api: Running) -> tuple[job_pb2.Artifact, Lease]:
    """Return an artifact whose object is not in the store, and the lease of its job."""
    job, lease = claimed(api)
    key = layout.artifact("default", lease.job_id, "log.txt")
    with api.database.write() as session:
        new = NewArtifact(name="log.txt", kind="log", key=key, size_bytes=3, sha256="0" * 64, step=0)
        artifacts.add(session, lease, new)
    (artifact,) = api.jobs.ListArtifacts(job_pb2.ListArtifactsRequest(parent=job.name)).artifacts
    return artifact, lease


def test_bytes_that_vanished_from_the_store_are_an_error(api: Running) -> None:
    artifact, lease = without_bytes(api)

    refusal = refused(lambda: download(api, artifact.name))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INTERNAL, "INTEGRITY")
    assert layout.artifact("default", lease.job_id, "log.txt") not in refusal.message


def test_what_is_deleted_while_it_is_fetched_is_not_found(api: Running) -> None:
    artifact, lease = without_bytes(api)

    async def fetch() -> None:
        work = Work(api.database)
        downloads = DownloadManager(work, api.store)
        source = await downloads.find(artifact.name, "")
        with api.database.write() as session:
            jobs.finish(session, lease, state=JobState.FAILED, failure=Failure(FailureReason.SPEC_INVALID, "no"))
            jobs.delete(session, "default", lease.job_id)
        try:
            async for _ in downloads.chunks(source, artifact.name, ""):
                raise AssertionError("there are no bytes")
        finally:
            downloads.close()
            work.close()

    with pytest.raises(JobNotFound):
        asyncio.run(fetch())
