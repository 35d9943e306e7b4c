"""Whatever a stranger sends, he gets a status and the server goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct
from grpc_health.v1 import health_pb2, health_pb2_grpc
from trainyard.v1 import dataset_pb2, deployment_pb2, job_pb2, model_pb2, recipe_pb2

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
            lambda api: lambda: api.create(display_name="x" * 5 * 2**20), CODE.RESOURCE_EXHAUSTED, id="5 MiB message"
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
