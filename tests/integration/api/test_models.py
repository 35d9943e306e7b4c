"""Model versions asked for from checkpoints."""

from __future__ import annotations

import grpc
from trainyard.v1 import deployment_pb2
from trainyard.v1 import model_pb2 as pb

from services.core.ids import new_id
from services.core.states import ArchiveState
from services.db import archives, jobs, models
from tests.integration.api.conftest import Running
from tests.integration.api.failures import refused
from tests.stack.builders import new_checkpoint, sha256


def checkpoint(api: Running, step: int = 5) -> str:
    """Commit a checkpoint of a fresh job and return its name."""
    job = api.create()
    with api.database.write() as session:
        lease = jobs.claim(session, job.name.rpartition("/")[2], worker_id="worker-1", ttl_seconds=60)
        row = jobs.commit_checkpoint(session, lease, new_checkpoint(step))
    return f"{job.name}/checkpoints/{row.id}"


def create(api: Running, **fields: str) -> pb.ModelVersion:
    return api.models.CreateModelVersion(pb.CreateModelVersionRequest(**fields)).model_version


def get(api: Running, name: str) -> pb.ModelVersion:
    return api.models.GetModelVersion(pb.GetModelVersionRequest(name=name)).model_version


def test_a_checkpoint_becomes_a_version_that_waits_for_its_bundle(api: Running) -> None:
    source = checkpoint(api)

    version = create(api, checkpoint=source)

    assert version.name == "projects/default/models/detection-yolo-v1/versions/1"
    assert (version.state, version.checkpoint) == (pb.MODEL_VERSION_STATE_PENDING, source)
    with api.database.write() as session:
        (waiting,) = archives.due_for_dispatch(session, limit=5, redispatch_after_seconds=60)
        assert archives.get(session, waiting).state is ArchiveState.QUEUED


def test_the_same_request_makes_one_version_and_another_is_refused(api: Running) -> None:
    first, second, request_id = checkpoint(api), checkpoint(api), new_id()

    version = create(api, checkpoint=first, request_id=request_id)

    assert create(api, checkpoint=first, request_id=request_id) == version
    refusal = refused(lambda: create(api, checkpoint=second, request_id=request_id))
    assert refusal.reason == "REQUEST_ID_REUSED"


def test_a_version_is_ready_once_it_is_packaged(api: Running) -> None:
    version = create(api, checkpoint=checkpoint(api), parent="projects/default/models/mine")
    with api.database.write() as session:
        row = models.get(session, "default", "mine")
        bundle = {"bundle_prefix": "b/", "bundle_sha256": sha256("b"), "size_bytes": 3, "metrics": {"eval/ap50": 0.5}}
        models.set_bundle(session, row.id, **bundle)
        again = models.set_bundle(session, row.id, **{**bundle, "bundle_sha256": sha256("c")})

    (listed,) = api.models.ListModelVersions(
        pb.ListModelVersionsRequest(parent="projects/default/models/mine")
    ).model_versions

    assert again.bundle_sha256 == sha256("b")
    assert (listed.name, listed.state) == (version.name, pb.MODEL_VERSION_STATE_READY)
    assert listed.metrics["eval/ap50"] == 0.5


def test_a_version_whose_packaging_failed_says_why(api: Running) -> None:
    version = create(api, checkpoint=checkpoint(api))
    with api.database.write() as session:
        row = models.get(session, "default", "detection-yolo-v1")
        archive = archives.find(session, row.id, "cpu-t1")
        assert archive is not None
        lease = archives.claim(session, archive.id, worker_id="worker-1", ttl_seconds=60)
        archives.finish_failed(session, lease, "the checkpoint is gone")

    found = get(api, version.name)

    assert (found.state, found.message) == (pb.MODEL_VERSION_STATE_FAILED, "the checkpoint is gone")


def test_a_checkpoint_that_is_none_is_not_found(api: Running) -> None:
    job = api.create()

    refusal = refused(lambda: create(api, checkpoint=f"{job.name}/checkpoints/none"))

    assert refusal.code == grpc.StatusCode.NOT_FOUND


def test_a_version_is_deleted_by_its_number_and_only_while_nothing_uses_it(api: Running) -> None:
    source, request_id = checkpoint(api), new_id()
    version = create(api, checkpoint=source, request_id=request_id)
    newest = version.name.rpartition("/")[0] + "/latest"
    deployment = deployment_pb2.CreateDeploymentRequest(deployment_id="mine", model_version=version.name)
    api.deployments.CreateDeployment(deployment)

    def delete(name: str) -> pb.DeleteModelVersionResponse:
        return api.models.DeleteModelVersion(pb.DeleteModelVersionRequest(name=name))

    unnumbered, used = refused(lambda: delete(newest)), refused(lambda: delete(version.name))
    api.deployments.DeleteDeployment(deployment_pb2.DeleteDeploymentRequest(name="projects/default/deployments/mine"))
    delete(version.name)
    gone = refused(lambda: get(api, version.name))
    again = create(api, checkpoint=source, request_id=request_id)

    assert list(unnumbered.violations) == ["name"]
    assert (used.code, gone.code) == (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND)
    assert "deployment 'mine' serves it" in used.message
    assert again.version == version.version + 1
