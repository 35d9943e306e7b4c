"""What people do with a platform, through its addresses alone (see `endpoints.py`)."""

from __future__ import annotations

import hashlib
import itertools
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import httpx
import pytest
from google.protobuf.json_format import MessageToDict
from trainyard.v1 import deployment_pb2, job_pb2

from services.client.sdk import Trainyard
from tests.e2e import boards
from tests.e2e.conftest import RECIPE, STEPS, Trained, config
from tests.e2e.endpoints import Platform
from tests.integration.serving.torchserve_grpc import grpc_client
from tests.stack.dashboards import BOARDS
from tests.stack.platform import wait_until
from tests.stack.prometheus import Prometheus
from workers.serving.form import Form

WEIGHTS = "model.safetensors"


def kinds(events: list[job_pb2.JobEvent]) -> list[str]:
    return [event.WhichOneof("payload") or "" for event in events]


def sha256_of_weights(client: Trainyard, job: str) -> str:
    newest = next(iter(client.list_checkpoints(job)))
    assert newest.step == STEPS
    return next(file.sha256 for file in newest.files if file.name == WEIGHTS)


def test_a_job_is_watched_from_its_first_event_to_its_end(trained: Trained) -> None:
    told = kinds(trained.events)

    assert trained.job.state == job_pb2.JOB_STATE_SUCCEEDED, trained.job.failure
    assert [event.seq for event in trained.events] == list(range(1, len(trained.events) + 1))
    assert {"step", "checkpoint", "evaluation", "artifact", "precision", "model"} <= set(told)
    steps = [event.step.step for event in trained.events if event.WhichOneof("payload") == "step"]
    assert steps == list(range(1, STEPS + 1))
    assert trained.events[-1].state_change.state == job_pb2.JOB_STATE_SUCCEEDED


def test_a_watch_goes_on_where_it_stopped(client: Trainyard, trained: Trained) -> None:
    middle = len(trained.events) // 2

    rest = list(client.watch(trained.job.name, after_seq=middle))

    assert rest == trained.events[middle:]


def test_checkpoints_are_listed_and_read_back_past_our_own_code(
    client: Trainyard, platform: Platform, trained: Trained
) -> None:
    checkpoints = list(client.list_checkpoints(trained.job.name))
    project, _, job_id = trained.job.name.removeprefix("projects/").split("/")

    stored = platform.objects(f"projects/{project}/jobs/{job_id}/checkpoints/{STEPS:010d}-")

    steps = [checkpoint.step for checkpoint in checkpoints]
    assert steps[0] == STEPS
    assert steps == sorted(set(steps), reverse=True)
    by_name = {key.rpartition("/")[2]: read() for key, read in stored.items()}
    assert by_name.keys() == {"manifest.json", *(file.name for file in checkpoints[0].files)}
    for file in checkpoints[0].files:
        assert hashlib.sha256(by_name[file.name]).hexdigest() == file.sha256
        assert len(by_name[file.name]) == file.size_bytes
    assert hashlib.sha256(by_name["manifest.json"]).hexdigest() == checkpoints[0].manifest_sha256
    assert tensors_of(by_name[WEIGHTS])


def tensors_of(body: bytes) -> list[str]:
    """Return the names in a safetensors file, read by its published layout."""
    (length,) = struct.unpack_from("<Q", body)
    header = json.loads(body[8 : 8 + length])
    spans = [one["data_offsets"] for name, one in header.items() if name != "__metadata__"]
    assert max(end for _, end in spans) == len(body) - 8 - length
    return [name for name in header if name != "__metadata__"]


def test_artifacts_are_listed_and_downloaded_whole(client: Trainyard, trained: Trained, tmp_path: Path) -> None:
    artifacts = list(client.list_artifacts(trained.job.name))
    pictures = [one for one in artifacts if one.content_type == "image/png"]

    assert pictures
    done = client.download(pictures[0].name, tmp_path)

    body = done.path.read_bytes()
    assert body.startswith(b"\x89PNG")
    assert hashlib.sha256(body).hexdigest() == pictures[0].sha256


def test_a_running_job_is_cancelled(client: Trainyard, dataset: str) -> None:
    job = client.create_job(RECIPE, dataset=dataset, preset="tiny", config=config(max_steps=10**6))
    told = []
    for event in client.watch(job.name):
        told.append(event)
        if event.WhichOneof("payload") == "step" and kinds(told).count("step") == 1:
            client.cancel_job(job.name, reason="enough")

    assert told[-1].state_change.state == job_pb2.JOB_STATE_CANCELLED
    assert client.get_job(job.name).state == job_pb2.JOB_STATE_CANCELLED


def test_a_killed_worker_costs_neither_the_job_nor_a_bit_of_its_weights(
    client: Trainyard, platform: Platform, dataset: str, trained: Trained
) -> None:
    expected = sha256_of_weights(client, trained.job.name)
    job = client.create_job(RECIPE, dataset=dataset, preset="tiny", config=config(), model_id="e2e-killed")
    told: list[job_pb2.JobEvent] = []
    for event in client.watch(job.name):
        told.append(event)
        if event.WhichOneof("payload") == "checkpoint" and kinds(told).count("checkpoint") == 1:
            platform.kill_worker()

    done = client.get_job(job.name)
    begins = [event.state_change.state for event in told].count(job_pb2.JOB_STATE_RUNNING)
    steps = [event.step.step for event in told if event.WhichOneof("payload") == "step"]
    resumed = [after for before, after in itertools.pairwise(steps) if after <= before]
    assert done.state == job_pb2.JOB_STATE_SUCCEEDED, done.failure
    assert begins == 2
    assert [step % 20 for step in resumed] in ([], [1])
    assert steps[-1] == STEPS
    assert sha256_of_weights(client, job.name) == expected


def test_an_archive_says_of_every_form_how_fast_it_is_or_why_it_is_not_served(
    client: Trainyard, deployment: deployment_pb2.Deployment
) -> None:
    archive = client.get_deployment(deployment.name).archive
    forms = {one["form"]: one for one in MessageToDict(archive.parity)["forms"]}

    assert {*forms} == {*Form}
    assert forms[archive.form]["milliseconds"] > 0
    assert all(one.get("reason") or one["milliseconds"] > 0 for one in forms.values())


def test_a_model_is_deployed_and_answers_by_the_api_by_rest_and_by_grpc(
    client: Trainyard,
    platform: Platform,
    deployment: deployment_pb2.Deployment,
    picture: bytes,
    stubs: tuple[ModuleType, ModuleType],
) -> None:
    assert deployment.state == deployment_pb2.DEPLOYMENT_STATE_READY, deployment.message
    replica = client.get_deployment(deployment.name).replicas[0]
    model = "default--e2e"

    by_api = client.predict(deployment.name, [picture, picture]).predictions
    rest = httpx.post(
        f"{platform.torchserve or replica.inference_url}/predictions/{model}",
        content=picture,
        headers={"authorization": f"Bearer {replica.token}"},
        timeout=60,
        trust_env=False,
    )
    with grpc_client(platform.torchserve_grpc or replica.grpc_address, stubs) as direct:
        by_grpc = json.loads(direct.predict(model, picture, token=replica.token))

    assert rest.status_code == 200, rest.text
    answer = rest.json()["predictions"][0]
    assert "boxes" in answer
    assert by_grpc["predictions"][0] == answer
    assert [MessageToDict(one.result).keys() for one in by_api] == [answer.keys()] * 2


def test_who_has_no_token_gets_no_prediction(
    client: Trainyard, platform: Platform, deployment: deployment_pb2.Deployment, picture: bytes
) -> None:
    replica = client.get_deployment(deployment.name).replicas[0]
    url = f"{platform.torchserve or replica.inference_url}/predictions/default--e2e"

    assert httpx.post(url, content=picture, timeout=60, trust_env=False).status_code == 400


@pytest.mark.parametrize(
    ("expression", "least"),
    [
        pytest.param('sum(trainyard_attempts_total{outcome="succeed"})', 1, id="attempts that succeeded"),
        pytest.param('trainyard_jobs{state="succeeded"}', 1, id="jobs that succeeded"),
        pytest.param('trainyard_deployments{state="ready"}', 1, id="deployments that are ready"),
        pytest.param("sum(trainyard_deployments_ready)", 1, id="deployments that answer"),
        pytest.param('trainyard_workers{state="active"}', 1, id="workers"),
        pytest.param("sum(trainyard_controller_leading) == 1", 1, id="one leader"),
        pytest.param("sum(trainyard_checkpoint_bytes_total)", 1, id="bytes of checkpoints"),
        pytest.param('sum(ts_inference_requests_total{model_name="default--e2e"})', 1, id="predictions"),
        pytest.param("min(trainyard:disk_free:ratio) < 1", 0.0001, id="free disk"),
    ],
)
def test_prometheus_knows(
    platform: Platform, deployment: deployment_pb2.Deployment, trained: Trained, expression: str, least: float
) -> None:
    wait_until(
        lambda: platform.prometheus.value(expression) >= least,
        what=f"{expression} >= {least}",
        limit_seconds=platform.patience_seconds,
    )


def test_everything_is_scraped_and_every_rule_can_be_evaluated(platform: Platform, trained: Trained) -> None:
    def down() -> list[str]:
        return [one["scrapeUrl"] for one in platform.prometheus.targets() if one["health"] != "up"]

    wait_until(lambda: not down(), what="every target answers", limit_seconds=platform.patience_seconds)

    jobs = {one["labels"]["job"] for one in platform.prometheus.targets()}
    rules = platform.prometheus.rules()
    assert {"api", "controller", "worker", "torchserve"} <= jobs
    assert {rule["health"] for rule in rules} == {"ok"}, [rule for rule in rules if rule["health"] != "ok"]


@pytest.fixture(scope="module")
def busy_prometheus(
    client: Trainyard,
    platform: Platform,
    dataset: str,
    trained: Trained,
    deployment: deployment_pb2.Deployment,
    picture: bytes,
) -> Prometheus:
    """Return a Prometheus that has seen jobs and predictions, twice at least: rates need two scrapes."""
    _wait_for_data(platform, "trainyard_checkpoint_commit_seconds_count > 0")
    # The first may have stored all its checkpoints between two scrapes.
    second = client.create_job(RECIPE, dataset=dataset, preset="tiny", config=config())
    assert list(client.watch(second.name))[-1].state_change.state == job_pb2.JOB_STATE_SUCCEEDED
    _wait_for_data(platform, "trainyard:checkpoint_commit_seconds:p95_15m >= 0")
    seen = 'changes(ts_inference_requests_total{model_name="default--e2e"}[5m]) > 0'
    while_waiting: Iterator[object] = iter(lambda: client.predict(deployment.name, [picture]), None)
    wait_until(
        lambda: bool(next(while_waiting)) and bool(platform.prometheus.query(seen)),
        what="predictions in two scrapes",
        limit_seconds=platform.patience_seconds,
    )
    return platform.prometheus


def _wait_for_data(platform: Platform, expression: str) -> None:
    wait_until(
        lambda: bool(platform.prometheus.query(expression)), what=expression, limit_seconds=platform.patience_seconds
    )


@pytest.mark.parametrize("board", sorted(BOARDS))
def test_every_query_of_a_dashboard_returns_data(busy_prometheus: Prometheus, board: str) -> None:
    assert boards.without_data(busy_prometheus, BOARDS[board]) == {}
