"""The platform of compose.yaml through its published addresses, and its containers through the engine.

`make test-compose` runs it; the name keeps it out of `make test`, which needs no engine.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
import trustme
from google.protobuf import json_format
from trainyard.v1 import deployment_pb2, job_pb2

from services.client.errors import ApiError
from services.client.sdk import Trainyard
from services.datasets.shape_scenes import write_shape_scenes
from tests.builders.detection_bundle import scene_png
from tests.compose.project import ROOT, Project, docker
from tests.integration.serving.torchserve_grpc import compile_stubs, grpc_client
from tests.stack.data import import_folder
from tests.stack.platform import wait_until
from tests.stack.ports import free_port

STEPS = 120
CHECKPOINT_STEPS = 30
CONFIG = {
    "runtime": {"precision": "fp32", "channels_last": "off", "seed": 7},
    "limits": {
        "max_steps": STEPS,
        "checkpoint_every_steps": CHECKPOINT_STEPS,
        "evaluate_every_steps": STEPS,
        "sample_every_steps": STEPS,
        "log_every_steps": 1,
    },
}
BUCKET = "trainyard"
PARTS = ("api", "controller", "worker", "torchserve", "minio", "prometheus")
SERVE_SECONDS = 900.0
API_IMAGE_BYTES = 350_000_000
# A Prometheus that was stopped with its targets goes on showing what they said last, for five minutes.
LEADING_NOW = "trainyard_controller_leading and timestamp(trainyard_controller_leading) > time() - 45"


@dataclass(frozen=True, slots=True)
class Run:
    """A job that ended well, and what it told on its way."""

    name: str
    events: list[job_pb2.JobEvent]
    weights_sha256: str

    def steps(self) -> list[int]:
        return [event.step.step for event in self.events if event.WhichOneof("payload") == "step"]

    def attempts(self) -> int:
        return sum(_is_running(event) for event in self.events)


@pytest.fixture(scope="module")
def project() -> Project:
    return Project.current()


@pytest.fixture(scope="module")
def yard(project: Project) -> Iterator[Trainyard]:
    with Trainyard(project.address("TRAINYARD_API_PUBLISH")) as client:
        yield client


@pytest.fixture(scope="module")
def dataset(yard: Trainyard, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("shapes")
    write_shape_scenes(folder, seed=0, train_images=64, val_images=16)
    import_folder(yard, folder, dataset_id="shapes")
    return "shapes"


@pytest.fixture(scope="module")
def uninterrupted(yard: Trainyard, dataset: str) -> Run:
    return follow(yard, submit(yard, dataset, model="shapes"))


@pytest.fixture(scope="module")
def deployment(yard: Trainyard, uninterrupted: Run) -> deployment_pb2.Deployment:
    yard.create_deployment("shapes", model_version="shapes")
    served = yard.wait_until_served("shapes", timeout_seconds=SERVE_SECONDS)
    assert served.state == deployment_pb2.DEPLOYMENT_STATE_READY, served.message
    return served


def submit(yard: Trainyard, dataset: str, *, model: str = "") -> str:
    job = yard.create_job("detection/yolo_v1", dataset=dataset, preset="tiny", config=CONFIG, model_id=model)
    return str(job.name)


def follow(yard: Trainyard, job: str) -> Run:
    events = list(yard.watch(job))
    done = yard.get_job(job)
    assert done.state == job_pb2.JOB_STATE_SUCCEEDED, f"{job}: {done.failure.message}\n{done.failure.log_tail}"
    newest = next(iter(yard.list_checkpoints(job)))
    assert newest.step == STEPS
    weights = next(file.sha256 for file in newest.files if file.name == "model.safetensors")
    return Run(job, events, weights)


def reach_step(yard: Trainyard, job: str, step: int) -> None:
    for event in yard.watch(job):
        if event.WhichOneof("payload") == "step" and event.step.step >= step:
            return
    raise AssertionError(f"{job} ended before step {step}")


def test_every_container_is_healthy_bounded_and_without_privileges(project: Project) -> None:
    containers = project.containers()

    assert {one.service for one in containers} >= {*PARTS, "postgres", "redis", "migrate"}
    for one in containers:
        host = one.facts["HostConfig"]
        assert one.is_settled, project.logs(one)
        assert one.facts["Config"]["User"].split(":")[0] not in ("", "0", "root"), one.service
        assert host["ReadonlyRootfs"], one.service
        assert host["CapDrop"] == ["ALL"], one.service
        assert not host["CapAdd"], one.service
        assert not host["Privileged"], one.service
        assert any(option.startswith("no-new-privileges") for option in host["SecurityOpt"]), one.service
        assert host["Memory"] > 0, one.service
        assert host["PidsLimit"] > 0, one.service


def test_no_password_is_in_the_environment_of_a_container_and_no_port_leaves_loopback(project: Project) -> None:
    names = ("postgres_password", "redis_conf", "trainyard_s3_secret_key", "bootstrap_token")
    secrets = [project.secret(name).removeprefix("requirepass ") for name in names]

    for one in project.containers():
        described = json.dumps([one.facts["Config"], one.facts["Args"]])
        assert not any(secret in described for secret in secrets), one.service
        for bindings in one.facts["NetworkSettings"]["Ports"].values():
            assert {binding["HostIp"] for binding in bindings or ()} <= {"127.0.0.1"}, one.service


def test_torch_is_in_the_images_that_train_and_serve_and_in_no_other(project: Project) -> None:
    script = "import importlib.util as u; print(u.find_spec('torch') is not None, u.find_spec('grpc') is not None)"

    found = {part: docker("exec", project.only(part).id, "python", "-c", script).split() for part in PARTS[:4]}

    sizes = dict(project.images())
    assert found["api"] == found["controller"] == ["False", "True"]
    assert sizes[project.only("api").facts["Config"]["Image"]] < API_IMAGE_BYTES
    assert found["worker"][0] == found["torchserve"][0] == "True"


def test_a_call_without_a_token_is_refused(project: Project) -> None:
    with Trainyard(project.address("TRAINYARD_API_PUBLISH"), token="") as nobody, pytest.raises(ApiError) as refused:
        list(nobody.list_jobs())

    assert refused.value.code == "UNAUTHENTICATED"


def test_a_submitted_job_is_watched_from_its_first_event_to_its_last(uninterrupted: Run) -> None:
    sequence = [event.seq for event in uninterrupted.events]

    assert sequence == list(range(1, len(sequence) + 1))
    assert uninterrupted.steps() == list(range(1, STEPS + 1))
    assert uninterrupted.attempts() == 1


def test_prometheus_counts_every_step_of_a_job(project: Project, uninterrupted: Run) -> None:
    # Before any worker is killed: one takes along what it counted since the last scrape.
    wait_until(
        lambda: sum(query(project, "trainyard_step_seconds_count")) == STEPS,
        what=f"Prometheus counts {STEPS} steps",
        limit_seconds=60,
    )


def test_another_s3_client_reads_the_checkpoint_byte_for_byte(
    project: Project, yard: Trainyard, uninterrupted: Run
) -> None:
    client = bucket(project)
    prefix = f"projects/default/jobs/{uninterrupted.name.rpartition('/')[2]}/checkpoints/{STEPS:010d}-"

    keys = [one["Key"] for one in client.list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"]]
    (folder,) = {prefix + key.removeprefix(prefix).partition("/")[0] for key in keys}
    found = {key.removeprefix(f"{folder}/"): read(client, key) for key in keys}

    newest = next(iter(yard.list_checkpoints(uninterrupted.name)))
    told = {file.name: file.sha256 for file in newest.files}
    assert told
    assert {name: hashlib.sha256(found[name]).hexdigest() for name in told} == told
    assert told["model.safetensors"] == uninterrupted.weights_sha256
    manifest = json.loads(found.pop("manifest.json"))
    assert {name: entry["sha256"] for name, entry in manifest["files"].items()} == told
    assert found.keys() == told.keys()
    assert hashlib.sha256(read(client, f"{folder}/manifest.json")).hexdigest() == newest.manifest_sha256


def test_a_job_whose_worker_container_is_killed_ends_with_the_same_weights(
    project: Project, yard: Trainyard, dataset: str, uninterrupted: Run
) -> None:
    job = submit(yard, dataset)
    reach_step(yard, job, CHECKPOINT_STEPS + CHECKPOINT_STEPS // 2)
    before = project.only("worker")

    project.crash("worker")
    interrupted = follow(yard, job)

    after = project.only("worker")
    assert after.id == before.id
    assert after.facts["RestartCount"] == before.facts["RestartCount"] + 1
    assert interrupted.attempts() == 2
    assert 0 < len(redone(interrupted)) < STEPS
    assert interrupted.weights_sha256 == uninterrupted.weights_sha256


def test_a_worker_that_is_stopped_saves_its_step_and_the_next_one_goes_on_from_there(
    project: Project, yard: Trainyard, dataset: str, uninterrupted: Run
) -> None:
    project.wait_healthy(limit_seconds=300)
    job = submit(yard, dataset)
    reach_step(yard, job, CHECKPOINT_STEPS // 2)

    project.compose("stop", "worker")
    stopped = project.only("worker")
    saved = next(iter(yard.list_checkpoints(job))).step
    project.up()
    resumed = follow(yard, job)

    assert stopped.state["ExitCode"] == 0, project.logs(stopped)
    assert CHECKPOINT_STEPS // 2 <= saved < STEPS
    assert redone(resumed) == []
    assert yard.get_job(job).attempt == 1
    assert resumed.weights_sha256 == uninterrupted.weights_sha256


def test_the_deployed_model_gives_one_answer_through_the_api_rest_and_grpc(
    yard: Trainyard, deployment: deployment_pb2.Deployment, project: Project, tmp_path: Path
) -> None:
    image, params, name = scene_png(0), {"score_threshold": 0.01}, "default--shapes"
    encoded = {"image": {"b64": base64.b64encode(image).decode()}}
    body = json.dumps({"instances": [encoded], "params": params}).encode()
    (replica,) = deployment.replicas

    through_api = yard.predict("shapes", [image], params=params).predictions[0].result
    through_rest = httpx.post(
        f"http://{project.address('TRAINYARD_INFERENCE_PUBLISH')}/predictions/{name}",
        content=body,
        headers={"authorization": f"Bearer {replica.token}", "content-type": "application/octet-stream"},
        timeout=60,
        trust_env=False,
    ).raise_for_status()
    with grpc_client(project.address("TRAINYARD_INFERENCE_GRPC_PUBLISH"), compile_stubs(tmp_path)) as client:
        through_grpc = client.predict(name, body, token=replica.token)

    rest, grpc = (json.loads(content)["predictions"][0] for content in (through_rest.content, through_grpc))
    assert rest["boxes"]
    assert rest == grpc
    assert json_format.MessageToDict(through_api) == rest


def test_prometheus_scrapes_every_part_and_evaluates_every_rule(
    project: Project, uninterrupted: Run, deployment: deployment_pb2.Deployment
) -> None:
    def is_up(part: str) -> bool:
        values = query(project, f'up{{job="{part}"}}')
        return bool(values) and all(value == 1 for value in values)

    for part in PARTS:
        wait_until(lambda part=part: is_up(part), what=f"Prometheus scrapes {part}", limit_seconds=90)  # type: ignore[misc]
    groups = ask(project, "rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]

    assert rules
    assert [rule["name"] for rule in rules if rule["health"] == "err"] == []
    for expression in ("trainyard_controller_leading", "trainyard_deployments_ready"):
        wait_until(lambda it=expression: query(project, it) == [1], what=expression, limit_seconds=60)  # type: ignore[misc]


def test_what_was_stored_survives_the_containers(
    project: Project, yard: Trainyard, uninterrupted: Run, deployment: deployment_pb2.Deployment
) -> None:
    project.compose("down", "--timeout", "60")
    project.up()

    with Trainyard(yard.address) as again:
        assert next(iter(again.list_checkpoints(uninterrupted.name))).step == STEPS
        served = again.wait_until_served("shapes", timeout_seconds=SERVE_SECONDS)
        wait_until(lambda: answers(again, scene_png(0)), what="the deployment answers again", limit_seconds=120)
    assert served.model_version == deployment.model_version


def test_two_api_servers_and_two_controllers_share_the_work(project: Project, yard: Trainyard, dataset: str) -> None:
    first = free_port()
    wide = project.with_environ(TRAINYARD_API_PUBLISH=f"127.0.0.1:{first}-{first + 9}")

    wide.up("--scale", "api=2", "--scale", "controller=2")
    addresses = [published(one.id, 7070) for one in wide.containers("api")]
    jobs = []
    for address in addresses:
        with Trainyard(address) as client:
            jobs.append(submit(client, dataset))
    with Trainyard(addresses[0]) as other:
        runs = [follow(other, job) for job in jobs]

    assert len(set(addresses)) == 2
    assert [run.attempts() for run in runs] == [1, 1]
    wait_until(
        lambda: sorted(query(project, LEADING_NOW)) == [0, 1],
        what="one of two controllers leads",
        limit_seconds=90,
    )


def test_a_backup_comes_back_in_an_empty_platform(project: Project, uninterrupted: Run, tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    folder.mkdir(mode=0o700)
    os.chown(folder, 10001, 10001)
    # As deploy/README.md says.
    api = ("run", "--rm", "--no-deps", "-e", "TMPDIR=/var/lib/trainyard", "-v", f"{folder}:/backup", "api")
    project.compose(*api, "trainyard", "admin", "backup", "/backup")
    empty = Project.fresh("trainyard-test-empty", Path(project.environ["TRAINYARD_SECRETS"]))
    try:
        empty.compose("up", "-d", "--no-build", "postgres", "minio")
        empty.wait_healthy(limit_seconds=120)
        empty.compose(*api, "trainyard", "admin", "restore", "/backup")
        empty.up("api")
        with Trainyard(empty.address("TRAINYARD_API_PUBLISH")) as restored:
            back = follow(restored, uninterrupted.name)
            model = restored.get_model_version("shapes")
            files = restored.download_files(model.name, model.files, tmp_path / "model")
    finally:
        empty.down()

    assert back.weights_sha256 == uninterrupted.weights_sha256
    assert back.steps() == uninterrupted.steps()
    assert {file.path.name for file in files} >= {"bundle.json", "weights.safetensors"}


def test_the_override_for_servers_outside_opens_the_network(project: Project) -> None:
    files = f"{project.environ['COMPOSE_FILE']}:{ROOT / 'deploy' / 'external.yaml'}"
    opened = Project.fresh("trainyard-test-opened", Path(project.environ["TRAINYARD_SECRETS"]))
    opened = opened.with_environ(COMPOSE_FILE=files)
    try:
        opened.compose("run", "--rm", "--no-deps", "controller", "python", "-c", "")
        found = {name: is_closed(f"{name}_platform") for name in (project.name, opened.name)}
    finally:
        opened.down()

    # What the engine does not forward reaches nobody outside.
    assert found == {project.name: True, opened.name: False}


def test_the_api_speaks_tls_with_the_override(
    project: Project, yard: Trainyard, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(project.environ["TRAINYARD_SECRETS"])
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    for name, blobs in (("tls_cert", issued.cert_chain_pems), ("tls_key", [issued.private_key_pem])):
        (folder / name).write_bytes(b"".join(blob.bytes() for blob in blobs))
        (folder / name).chmod(0o444)
    authority.cert_pem.write_to_path(str(folder / "authority"))

    files = f"{project.environ['COMPOSE_FILE']}:{ROOT / 'deploy' / 'tls.yaml'}"
    project.with_environ(COMPOSE_FILE=files).up()
    with Trainyard(yard.address) as plain, pytest.raises(ApiError) as refused:
        list(plain.list_recipes())
    monkeypatch.setenv("TRAINYARD_TLS_CA", str(folder / "authority"))
    with Trainyard(yard.address) as safe:
        recipes = list(safe.list_recipes())

    assert refused.value.code == "UNAVAILABLE"
    assert recipes


def redone(run: Run) -> list[int]:
    """Return the steps that were made more than once."""
    steps = run.steps()
    return sorted({step for step in steps if steps.count(step) > 1})


def answers(yard: Trainyard, image: bytes) -> bool:
    try:
        return len(yard.predict("shapes", [image]).predictions) == 1
    except ApiError as err:
        # What was ready before the containers went is called so until TorchServe has started again and been looked at.
        if err.code != "UNAVAILABLE":
            raise
        return False


def bucket(project: Project) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=f"http://{project.address('TRAINYARD_S3_PUBLISH')}",
        aws_access_key_id=project.secret("trainyard_s3_access_key"),
        aws_secret_access_key=project.secret("trainyard_s3_secret_key"),
        region_name="us-east-1",
    )


def read(client: Any, key: str) -> bytes:
    body: bytes = client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    return body


def ask(project: Project, path: str, **parameters: str) -> Mapping[str, Any]:
    url = f"http://{project.address('PROMETHEUS_PUBLISH')}/api/v1/{path}"
    document = httpx.get(url, params=parameters, timeout=10, trust_env=False).raise_for_status().json()
    assert document["status"] == "success", document
    data: Mapping[str, Any] = document["data"]
    return data


def query(project: Project, expression: str) -> list[float]:
    return [float(one["value"][1]) for one in ask(project, "query", query=expression)["result"]]


def is_closed(network: str) -> bool:
    return docker("network", "inspect", "--format", "{{.Internal}}", network).strip() == "true"


def published(container: str, port: int) -> str:
    return docker("port", container, str(port)).split()[0]


def _is_running(event: job_pb2.JobEvent) -> bool:
    return event.WhichOneof("payload") == "state_change" and event.state_change.state == job_pb2.JOB_STATE_RUNNING
