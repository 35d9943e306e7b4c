"""Whatever a stranger sends, he gets a status and the server goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct
from grpc_health.v1 import health_pb2, health_pb2_grpc
from trainyard.v1 import dataset_pb2, deployment_pb2, gallery_pb2, job_pb2, model_pb2, recipe_pb2

from tests.integration.api.conftest import Running, job_request
from tests.integration.api.failures import refused

CODE = grpc.StatusCode


def nested(depth: int) -> Struct:
    struct = Struct()
    inner = struct
    for _ in range(depth):
        inner = inner.fields["optim"].struct_value
    inner.fields["lr"].number_value = 1
    return struct


def raw(api: Running, method: str, body: bytes) -> Callable[[], Any]:
    return lambda: api.channel.unary_unary(method)(body, timeout=10)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        pytest.param(
            lambda api: lambda: api.create(display_name="x" * 17 * 2**20), CODE.RESOURCE_EXHAUSTED, id="17 MiB message"
        ),
        pytest.param(
            lambda api: raw(api, "/trainyard.v1.JobService/CreateJob", b"\xff" * 100),
            CODE.INVALID_ARGUMENT,
            id="not a message",
        ),
        pytest.param(lambda api: raw(api, "/trainyard.v1.JobService/Nothing", b""), CODE.UNIMPLEMENTED, id="no method"),
        pytest.param(lambda api: raw(api, "/nothing.Nothing/Nothing", b""), CODE.UNIMPLEMENTED, id="no service"),
        pytest.param(lambda api: lambda: api.create(config=nested(20)), CODE.INVALID_ARGUMENT, id="deep config"),
        pytest.param(
            lambda api: lambda: api.jobs.GetJob(job_pb2.GetJobRequest(name="projects/default/jobs/..")),
            CODE.INVALID_ARGUMENT,
            id="traversal in a name",
        ),
        pytest.param(
            lambda api: lambda: api.jobs.GetJob(job_pb2.GetJobRequest(name="projects/default/jobs/x' OR '1'='1")),
            CODE.INVALID_ARGUMENT,
            id="quotes in a name",
        ),
        pytest.param(
            lambda api: lambda: api.jobs.ListJobs(job_pb2.ListJobsRequest(page_token="%%%")),
            CODE.INVALID_ARGUMENT,
            id="broken token",
        ),
        pytest.param(
            lambda api: lambda: api.jobs.ListJobs(job_pb2.ListJobsRequest(page_size=-1)),
            CODE.INVALID_ARGUMENT,
            id="negative page",
        ),
        pytest.param(
            lambda api: lambda: api.recipes.GetRecipe(recipe_pb2.GetRecipeRequest(name="recipes/x")),
            CODE.NOT_FOUND,
            id="no recipe",
        ),
        pytest.param(
            lambda api: (
                lambda: api.datasets.GetDataset(dataset_pb2.GetDatasetRequest(name="projects/default/datasets/x"))
            ),
            CODE.NOT_FOUND,
            id="no dataset",
        ),
        pytest.param(
            lambda api: (
                lambda: list(
                    api.models.DownloadArtifact(model_pb2.DownloadArtifactRequest(name="projects/default/jobs/x"))
                )
            ),
            CODE.INVALID_ARGUMENT,
            id="nothing to download",
        ),
        pytest.param(
            lambda api: (
                lambda: api.deployments.Predict(deployment_pb2.PredictRequest(name="projects/default/deployments/x"))
            ),
            CODE.INVALID_ARGUMENT,
            id="no instances",
        ),
    ],
)
def test_bad_input_is_refused_and_the_server_goes_on(
    api: Running, call: Callable[[Running], Callable[[], Any]], code: grpc.StatusCode
) -> None:
    refusal = refused(call(api))

    assert refusal.code == code
    assert api.create().name


def upload(api: Running, **header: Any) -> Callable[[], Any]:
    values = {"parent": "projects/default", "dataset_id": "cats", "size_bytes": 1, **header}
    message = dataset_pb2.CreateDatasetRequest(header=dataset_pb2.CreateDatasetHeader(**values))
    return lambda: api.datasets.CreateDataset(iter([message]))


PARENT, LONG = "projects/default", "z" * 129
CHECKPOINT = f"{PARENT}/jobs/01kw0000000000000000000000/checkpoints/01kw0000000000000000000000"
VERSION = f"{PARENT}/models/m/versions/1"


@pytest.mark.parametrize("request_id", [LONG, "é"])
@pytest.mark.parametrize(
    ("call", "field"),
    [
        pytest.param(lambda api, given: upload(api, request_id=given), "header.request_id", id="dataset"),
        pytest.param(lambda api, given: lambda: api.create(request_id=given), "request_id", id="job"),
        pytest.param(
            lambda api, given: (
                lambda: api.models.CreateModelVersion(
                    model_pb2.CreateModelVersionRequest(checkpoint=CHECKPOINT, request_id=given)
                )
            ),
            "request_id",
            id="model version",
        ),
        pytest.param(
            lambda api, given: (
                lambda: api.deployments.CreateDeployment(
                    deployment_pb2.CreateDeploymentRequest(
                        parent=PARENT, deployment_id="d", model_version=VERSION, request_id=given
                    )
                )
            ),
            "request_id",
            id="deployment",
        ),
        pytest.param(
            lambda api, given: (
                lambda: api.galleries.CreateGallery(
                    gallery_pb2.CreateGalleryRequest(
                        parent=PARENT, gallery_id="g", deployment=f"{PARENT}/deployments/d", request_id=given
                    )
                )
            ),
            "request_id",
            id="gallery",
        ),
        pytest.param(
            lambda api, given: (
                lambda: api.galleries.EnrolIdentity(
                    gallery_pb2.EnrolIdentityRequest(
                        parent=f"{PARENT}/galleries/g",
                        identity_id="ada",
                        images=[gallery_pb2.FaceImage(content=b"x")],
                        request_id=given,
                    )
                )
            ),
            "request_id",
            id="identity",
        ),
    ],
)
def test_a_request_id_that_no_index_would_hold_is_refused_by_every_create(
    api: Running, call: Callable[[Running, str], Callable[[], Any]], field: str, request_id: str
) -> None:
    refusal = refused(call(api, request_id))

    assert refusal.violations[field] == "must be at most 128 printable ASCII characters, such as a UUID"


def test_everything_wrong_with_an_upload_is_said_before_a_byte_of_it_is_sent(api: Running) -> None:
    refusal = refused(
        upload(api, dataset_id="No Id", format=99, val_fraction=2, sha256="abc", display_name="y" * 3_000_000)
    )

    assert {*refusal.violations} == {
        f"header.{name}" for name in ("dataset_id", "format", "val_fraction", "sha256", "display_name")
    }


def test_a_reason_that_would_fill_the_history_is_refused(api: Running) -> None:
    job = api.create()

    for request, call in (
        (job_pb2.CancelJobRequest, api.jobs.CancelJob),
        (job_pb2.PauseJobRequest, api.jobs.PauseJob),
    ):
        refusal = refused(lambda request=request, call=call: call(request(name=job.name, reason="x" * 1001)))
        assert "at most 1000 characters" in refusal.violations["reason"]
    assert api.jobs.CancelJob(job_pb2.CancelJobRequest(name=job.name, reason="x" * 1000)).job.name == job.name


def test_an_empty_job_is_not_told_that_its_model_has_no_name(api: Running) -> None:
    refusal = refused(lambda: api.jobs.CreateJob(job_pb2.CreateJobRequest(parent=PARENT)))

    assert {*refusal.violations} == {"recipe", "dataset"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e308])
def test_numbers_that_are_none_are_refused(api: Running, value: float) -> None:
    config = Struct()
    config.update({"optim": {"lr": value}})

    refusal = refused(lambda: api.jobs.CreateJob(job_request(config=config)))

    assert "config.optim.lr" in refusal.violations


def test_a_refusal_carries_the_callers_request_id(api: Running) -> None:
    request = job_pb2.GetJobRequest(name="projects/default/jobs/none")

    refusal = refused(lambda: api.jobs.GetJob(request, metadata=(("x-request-id", "mine-1"),)))

    assert refusal.request_id == refusal.trailers["x-request-id"] == "mine-1"


def test_a_fault_of_ours_says_nothing_about_itself(api: Running) -> None:
    job = api.create()
    with api.database.write() as session:
        session.connection.exec_driver_sql("ALTER TABLE jobs RENAME TO jobs_gone")

    refusal = refused(lambda: api.jobs.GetJob(job_pb2.GetJobRequest(name=job.name)))

    assert refusal.code == CODE.INTERNAL
    assert refusal.message == f"internal error (request {refusal.request_id})"
    assert "jobs_gone" not in refusal.message


def test_the_server_says_that_it_serves(api: Running) -> None:
    health = health_pb2_grpc.HealthStub(api.channel)

    for service in ("", "trainyard.v1.JobService", "liveness"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
