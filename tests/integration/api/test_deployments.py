"""Deployments and predictions, with a small HTTP server in the place of TorchServe."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct
from trainyard.v1 import deployment_pb2 as pb

from services.client.sdk import Trainyard
from services.core.ids import new_id
from services.core.states import JobState
from services.db import archives, deployments, jobs
from services.db.deployments import Observed
from tests.integration.api.conftest import Running, serving
from tests.integration.api.failures import refused
from tests.stack.builders import new_model_version, sha256

ARCHIVE = sha256("archive")
TOKEN = "let-me-in"


class Endpoint(ThreadingHTTPServer):
    """Answers predictions as the handler does, and remembers what it was sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.status = 200
        self.answer: dict[str, Any] = {
            "predictions": [{"boxes": [[1, 2, 3, 4]], "scores": [0.5]}],
            "model": {"name": "digits", "version": 1, "recipe": "detection/yolo_v1"},
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answering(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        content = json.dumps(self.server.answer).encode()
        self.send_response(self.server.status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    server = Endpoint()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def trained_model(api: Running) -> str:
    """Store a model version as a succeeded job leaves it, and return its name."""
    job = api.create()
    with api.database.write() as session:
        lease = jobs.claim(session, job.name.rpartition("/")[2], worker_id="worker-1", ttl_seconds=60)
        jobs.finish(session, lease, state=JobState.SUCCEEDED, model_version=new_model_version())
    return "projects/default/models/detection-yolo-v1/versions/1"


def deploy(api: Running, deployment_id: str = "digits", **fields: object) -> pb.Deployment:
    request = pb.CreateDeploymentRequest(deployment_id=deployment_id, **fields)  # type: ignore[arg-type]
    return api.deployments.CreateDeployment(request).deployment


def serve(api: Running, url: str, deployment_id: str = "digits", agent_id: str = "agent-1") -> None:
    """Build the archive and report a ready replica, as worker and agent do."""
    with api.database.write() as session:
        deployment = deployments.get(session, "default", deployment_id)
        if deployment.archive.sha256 is None:
            lease = archives.claim(session, deployment.archive.id, worker_id="worker-1", ttl_seconds=60)
            archives.finish_ready(
                session, lease, key="k", sha256=ARCHIVE, size_bytes=9, form="eager", parity={"boxes": 0.0}
            )
        deployments.report_replica(
            session,
            agent_id,
            inference_url=url,
            grpc_address="127.0.0.1:1",
            token=TOKEN,
            token_expire_time=None,
            observed=[Observed(deployment.id, ARCHIVE, True)],
        )


def fail_build(api: Running) -> None:
    """Fail the build of the deployment's archive."""
    with api.database.write() as session:
        deployment = deployments.get(session, "default", "digits")
        lease = archives.claim(session, deployment.archive.id, worker_id="worker-1", ttl_seconds=60)
        archives.finish_failed(session, lease, "no compiler")


def predict(api: Running, *instances: pb.Instance, params: Struct | None = None) -> pb.PredictResponse:
    request = pb.PredictRequest(name="projects/default/deployments/digits", instances=instances, params=params)
    return api.deployments.Predict(request, timeout=30)


def test_a_deployment_waits_for_its_archive_and_then_for_a_replica(api: Running, endpoint: Endpoint) -> None:
    created = deploy(api, model_version=trained_model(api), workers=2)

    serve(api, endpoint.url)
    ready = api.deployments.GetDeployment(pb.GetDeploymentRequest(name=created.name)).deployment
    (listed,) = api.deployments.ListDeployments(pb.ListDeploymentsRequest()).deployments

    assert (created.state, created.workers) == (pb.DEPLOYMENT_STATE_PENDING, 2)
    assert created.archive.target == "cpu-t1"
    assert ready.state == listed.state == pb.DEPLOYMENT_STATE_READY
    assert ready.replicas[0].token == TOKEN
    assert listed.replicas[0].token == ""


def test_the_same_request_makes_one_deployment_and_another_is_refused(api: Running) -> None:
    model, request_id = trained_model(api), new_id()
    first = deploy(api, model_version=model, request_id=request_id)

    assert deploy(api, model_version=model, request_id=request_id).name == first.name
    refusal = refused(lambda: deploy(api, model_version=model, request_id=request_id, workers=3))
    taken = refused(lambda: deploy(api, model_version=model))

    assert refusal.reason == "REQUEST_ID_REUSED"
    assert taken.reason == "ALREADY_EXISTS"


def test_a_deployment_can_be_scaled_and_deleted(api: Running, endpoint: Endpoint) -> None:
    name = deploy(api, model_version=trained_model(api)).name
    serve(api, endpoint.url)

    scaled = api.deployments.UpdateDeployment(pb.UpdateDeploymentRequest(name=name, workers=4)).deployment
    deleted = api.deployments.DeleteDeployment(pb.DeleteDeploymentRequest(name=name)).deployment

    assert (scaled.workers, scaled.generation) == (4, 2)
    assert deleted.state == pb.DEPLOYMENT_STATE_DELETING


def test_the_precision_of_the_platform_is_for_what_is_deployed_from_then_on(api: Running) -> None:
    model = trained_model(api)
    name = deploy(api, model_version=model).name
    with serving(api.settings.model_copy(update={"serving_precision": "int8"})) as (changed, _):
        update = changed.deployments.UpdateDeployment
        scaled = update(pb.UpdateDeploymentRequest(name=name, workers=4)).deployment
        again = update(pb.UpdateDeploymentRequest(name=name, model_version=model)).deployment
        other = deploy(changed, "other", model_version=model)

    assert (scaled.workers, scaled.archive.target) == (4, "cpu-t1")
    assert again.archive.target == other.archive.target == "cpu-t1-int8"


def test_asking_again_for_what_is_changes_nothing_and_for_what_failed_tries_again(
    api: Running, endpoint: Endpoint
) -> None:
    model = trained_model(api)
    name = deploy(api, model_version=model).name
    request = pb.UpdateDeploymentRequest(name=name, model_version=model, workers=1)
    same = api.deployments.UpdateDeployment(request).deployment
    fail_build(api)
    failed = api.deployments.GetDeployment(pb.GetDeploymentRequest(name=name)).deployment

    again = api.deployments.UpdateDeployment(request).deployment
    serve(api, endpoint.url)
    ready = api.deployments.UpdateDeployment(request).deployment

    assert (same.generation, same.state) == (1, pb.DEPLOYMENT_STATE_PENDING)
    assert (failed.state, failed.message) == (pb.DEPLOYMENT_STATE_FAILED, "no compiler")
    assert (again.state, again.message) == (pb.DEPLOYMENT_STATE_PENDING, "its build is next")
    assert (ready.state, ready.generation) == (pb.DEPLOYMENT_STATE_READY, 2)


def test_an_image_alone_is_forwarded_as_it_is(api: Running, endpoint: Endpoint) -> None:
    deploy(api, model_version=trained_model(api))
    serve(api, endpoint.url)

    response = predict(api, pb.Instance(body=b"\x89PNG..."))

    path, headers, body = endpoint.requests[0]
    assert path == "/predictions/default--digits"
    assert headers["authorization"] == f"Bearer {TOKEN}"
    assert body == b"\x89PNG..."
    assert response.predictions[0].result["scores"][0] == 0.5
    assert response.model.model_version == "projects/default/models/digits/versions/1"
    assert response.model.recipe == "detection/yolo_v1"


def test_several_instances_go_in_one_envelope_and_fail_alone(api: Running, endpoint: Endpoint) -> None:
    deploy(api, model_version=trained_model(api))
    serve(api, endpoint.url)
    endpoint.answer["predictions"] = [{"scores": []}, {"error": "not an image"}]
    params = Struct()
    params.update({"score_threshold": 0.25, "limit": 3})
    fields = Struct()
    fields.update({"z": [0.5]})

    response = predict(api, pb.Instance(body=b"image"), pb.Instance(fields=fields), params=params)

    envelope = json.loads(endpoint.requests[0][2])
    assert base64.b64decode(envelope["instances"][0]["image"]["b64"]) == b"image"
    assert envelope["instances"][1] == {"z": [0.5]}
    assert envelope["params"] == {"score_threshold": 0.25, "limit": 3}
    assert [p.WhichOneof("outcome") for p in response.predictions] == ["result", "error"]
    assert response.predictions[1].error.message == "not an image"


def test_an_answer_full_of_pictures_fits(api: Running, endpoint: Endpoint) -> None:
    deploy(api, model_version=trained_model(api))
    serve(api, endpoint.url)
    picture = "A" * 2**20
    endpoint.answer["predictions"] = [{"images": [{"b64": picture}] * 8}]

    with Trainyard(api.address, token=api.token) as client:
        response = client.predict("digits", [{"op": "sample", "n": 8}])

    assert json.loads(endpoint.requests[0][2]) == {"instances": [{"op": "sample", "n": 8}], "params": {}}
    assert len(response.predictions[0].result["images"]) == 8


@pytest.mark.parametrize(
    ("status", "code"),
    [
        pytest.param(400, grpc.StatusCode.INVALID_ARGUMENT, id="bad input is the caller's"),
        pytest.param(500, grpc.StatusCode.INTERNAL, id="a broken handler is ours"),
        pytest.param(503, grpc.StatusCode.UNAVAILABLE, id="a busy endpoint may be tried again"),
        pytest.param(404, grpc.StatusCode.UNAVAILABLE, id="a replica that restarted may be tried again"),
    ],
)
def test_errors_of_the_endpoint_keep_their_meaning(
    api: Running, endpoint: Endpoint, status: int, code: grpc.StatusCode
) -> None:
    deploy(api, model_version=trained_model(api))
    serve(api, endpoint.url)
    endpoint.status = status
    endpoint.answer = {"code": status, "type": "SomeError", "message": "the image is broken: send a JPEG"}

    refusal = refused(lambda: predict(api, pb.Instance(body=b"x")))

    assert refusal.code == code
    assert ("send a JPEG" in refusal.message) == (status == 400)


def test_a_replica_that_does_not_answer_is_passed_over(api: Running, endpoint: Endpoint) -> None:
    deploy(api, model_version=trained_model(api))
    serve(api, "http://127.0.0.1:9", agent_id="agent-0")
    serve(api, endpoint.url)

    for _ in range(8):
        assert predict(api, pb.Instance(body=b"x")).predictions


def test_a_deployment_that_is_not_ready_is_unavailable(api: Running) -> None:
    deploy(api, model_version=trained_model(api))

    refusal = refused(lambda: predict(api, pb.Instance(body=b"x")))

    assert refusal.code == grpc.StatusCode.UNAVAILABLE
    assert "pending" in refusal.message


def test_a_model_of_another_project_cannot_be_deployed(api: Running) -> None:
    model = trained_model(api)

    refusal = refused(lambda: deploy(api, model_version=model.replace("projects/default", "projects/other")))

    assert refusal.code == grpc.StatusCode.PERMISSION_DENIED
    assert "model_version" in refusal.violations
