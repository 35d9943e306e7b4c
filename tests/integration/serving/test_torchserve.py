"""One real agent and TorchServe: what deployments ask for is served, through kills, replacements and bad archives."""

from __future__ import annotations

import base64
import io
import json
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import grpc
import httpx
import psutil
import pytest
from PIL import Image

from services.agent.torchserve import TorchServeProcess
from services.core.errors import DeploymentNotFound
from services.core.states import DeploymentState
from services.db import deployments
from tests.builders.detection_bundle import scene_png
from tests.builders.pictures import odd_and_plain
from tests.integration.serving.torchserve_grpc import compile_stubs, grpc_client
from tests.integration.serving.yard import BuiltModel, ServingYard, wait_for
from workers.families.base import Handler
from workers.serving.bundle import read_parts

READY, FAILED = DeploymentState.READY, DeploymentState.FAILED
TRUNCATED = scene_png(0)[:200]


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> ServingYard:
    return ServingYard(tmp_path_factory.mktemp("yard"), {"AGENT_SECRET_KEY": "for the agent only"})


@pytest.fixture(scope="module")
def first(yard: ServingYard) -> BuiltModel:
    return yard.publish(seed=0)


@pytest.fixture(scope="module")
def second(yard: ServingYard) -> BuiltModel:
    return yard.publish(seed=1)


@pytest.fixture(scope="module")
def handler(yard: ServingYard, first: BuiltModel) -> Handler:
    return read_parts(yard.root / "bundle-0-0").handler


@pytest.fixture(scope="module")
def agent(yard: ServingYard, first: BuiltModel) -> Iterator[psutil.Process]:
    yard.deploy("digits", first)
    with yard.agent() as process:
        yard.wait_state("digits", READY)
        yield process


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModuleType, ModuleType]:
    return compile_stubs(tmp_path_factory.mktemp("stubs"))


def test_rest_gives_the_trainer_s_answers(yard, agent, first, handler):
    answers = [yard.predict("digits", body).raise_for_status().json()["predictions"][0] for body in first.inputs]

    assert all(answer["boxes"] for answer in answers)
    assert all(handler.compare(want, got).passed for want, got in zip(first.answers, answers, strict=True))


def test_what_is_answered_well_is_not_logged(yard, agent, first):
    log = yard.layout.logs / "model_log.log"
    before = log.read_text()

    yard.predict("digits", first.inputs[0]).raise_for_status()

    assert "bundle_opened" in before
    assert "[METRICS]" not in log.read_text()
    assert "Backend received inference" not in log.read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have allocators of their own")
def test_serving_processes_keep_freed_memory_for_the_next_request(yard, agent):
    body = io.BytesIO()
    Image.new("RGB", (2000, 1500), (9, 8, 7)).save(body, "PNG")

    def faults() -> int:
        serving = [one for one in agent.children(recursive=True) if "model_service_worker" in " ".join(one.cmdline())]
        return sum(int(Path(f"/proc/{one.pid}/stat").read_text().rsplit(")", 1)[1].split()[7]) for one in serving)

    def ask_thrice() -> int:
        before = faults()
        for _ in range(3):
            yard.predict("digits", body.getvalue()).raise_for_status()
        return faults() - before

    ask_thrice()

    # Its pixels alone would be 8,000 a request.
    assert ask_thrice() < 3000


def test_grpc_gives_the_trainer_s_answers(yard, agent, first, handler, stubs):
    replica = yard.replica("digits")

    with grpc_client(replica.grpc_address, stubs) as client:
        body = client.predict("default--digits", first.inputs[0], token=replica.token)

    assert handler.compare(first.answers[0], json.loads(body)["predictions"][0]).passed


def test_the_envelope_answers_good_instances_beside_bad_ones(yard, agent, first):
    good = {"image": {"b64": base64.b64encode(first.inputs[0]).decode()}}
    envelope = {"instances": [good, {"image": {"b64": "no base64!"}}, good], "params": {"max_detections": 1}}

    document = yard.predict("digits", json.dumps(envelope).encode()).raise_for_status().json()

    assert [len(answer.get("boxes", [])) for answer in document["predictions"]] == [1, 0, 1]
    assert "base64" in document["predictions"][1]["error"]
    assert document["model"] == {"name": "digits-0", "version": 1, "recipe": "detection/yolo_v1"}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(b"", "empty", id="nothing"),
        pytest.param(b"\x00\xff" * 500, "image", id="bytes that are no image"),
        pytest.param(TRUNCATED, "image", id="half an image"),
        pytest.param(b"{", "not valid JSON", id="half an envelope"),
        pytest.param(b"[" * 100_000, "image", id="a list is no envelope"),
        pytest.param(b'{"instances":' + b"[" * 100_000, "not valid JSON", id="JSON deeper than any stack"),
        pytest.param(b'{"instances": []}', "1 to 64", id="no instances"),
        pytest.param(b'{"instances": [{}], "oops": 1}', "oops", id="unknown keys"),
        pytest.param(b'{"instances": [{"image": {"url": "http://169.254.169.254/"}}]}', "b64", id="nothing is fetched"),
        pytest.param(b'{"instances": [{}], "params": {"score_threshold": 7}}', "score_threshold", id="out of range"),
    ],
)
def test_bad_input_is_refused_with_its_reason(yard, agent, body, reason):
    response = yard.predict("digits", body, **{"content-type": "application/json"})

    assert response.status_code == 400
    assert reason in response.json()["message"]


def test_unusual_encodings_are_answered_like_plain_ones(yard, agent):
    with Image.open(io.BytesIO(scene_png(0))) as scene:
        pairs = odd_and_plain(scene)
    images = [[base64.b64encode(data).decode() for data in kind] for kind in zip(*pairs.values(), strict=True)]
    envelopes = [{"instances": [{"image": {"b64": one}} for one in kind]} for kind in images]

    bodies = [json.dumps(envelope).encode() for envelope in envelopes]
    odd, plain = (yard.predict("digits", body).raise_for_status().json()["predictions"] for body in bodies)

    assert all(answer["boxes"] for answer in plain)
    assert dict(zip(pairs, odd, strict=True)) == dict(zip(pairs, plain, strict=True))


def test_bad_input_over_grpc_is_an_invalid_argument(yard, agent, stubs):
    replica = yard.replica("digits")

    with grpc_client(replica.grpc_address, stubs) as client, pytest.raises(grpc.RpcError) as refused:
        client.predict("default--digits", b"junk", token=replica.token)

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "image" in refused.value.details()


def test_bad_requests_in_a_batch_spoil_no_other(yard, agent, first):
    bodies = [first.inputs[0], b"junk"] * 12

    with ThreadPoolExecutor(len(bodies)) as pool:
        statuses = list(pool.map(lambda body: yard.predict("digits", body).status_code, bodies))

    assert statuses == [200, 400] * 12


def test_no_token_opens_nothing(yard, agent, first, stubs):
    replica = yard.replica("digits")
    management = f"http://127.0.0.1:{yard.settings.torchserve_management_port}"

    refused = [
        yard.predict("digits", first.inputs[0], token="wrong").status_code,
        httpx.get(f"{management}/models", trust_env=False).status_code,
        httpx.get(f"{management}/models", headers=_bearer(replica.token), trust_env=False).status_code,
    ]

    assert refused == [400, 400, 400]
    with grpc_client(replica.grpc_address, stubs) as client, pytest.raises(grpc.RpcError) as denied:
        client.predict("default--digits", first.inputs[0], token="wrong")
    assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_tokens_that_somebody_rotated_reach_callers(yard, agent, first):
    old = yard.replica("digits").token
    soon = datetime.now(UTC)

    with yard.client() as client:
        assert not client.renew_tokens(soon)
        assert client.renew_tokens(soon + timedelta(minutes=40))

    wait_for(lambda: yard.replica("digits").token, lambda token: token not in ("", old))
    assert yard.predict("digits", first.inputs[0]).status_code == 200
    assert yard.predict("digits", first.inputs[0], token=old).status_code == 400


def test_torchserve_loads_nothing_by_url_and_sees_no_credentials(yard, agent):
    keys = json.loads((yard.state_dir / "torchserve" / "run" / "key_file.json").read_text())
    management = f"http://127.0.0.1:{yard.settings.torchserve_management_port}"
    url = f"http://127.0.0.1:{yard.settings.torchserve_inference_port}/x.mar"

    response = httpx.post(
        f"{management}/models", params={"url": url}, headers=_bearer(keys["management"]["key"]), trust_env=False
    )

    assert response.status_code == 404
    assert "does not match any allowed URL" in response.text
    serving = [one for one in agent.children(recursive=True) if one.pid != agent.pid]
    assert len(serving) >= 3
    assert not any("AGENT_SECRET_KEY" in one.environ() for one in serving)


def test_a_new_version_takes_over_without_a_failed_request(yard, agent, first, second, handler):
    stop, statuses = threading.Event(), []

    def ask() -> None:
        while not stop.is_set():
            statuses.append(yard.predict("digits", second.inputs[0]).status_code)
            stop.wait(0.05)

    with ThreadPoolExecutor(2) as pool:
        callers = [pool.submit(ask) for _ in range(2)]
        yard.replace("digits", second)
        yard.wait_state("digits", READY)
        wait_for(lambda: _versions(yard), lambda versions: len(versions) == 1)
        stop.set()
        for caller in callers:
            caller.result()

    answer = yard.predict("digits", second.inputs[0]).json()
    assert set(statuses) == {200}
    assert answer["model"]["name"] == "digits-1"
    assert handler.compare(second.answers[0], answer["predictions"][0]).passed


def test_torchserve_comes_back_by_itself_after_kill_9(yard, agent, second):
    before = yard.java(agent)

    before.kill()
    wait_for(lambda: yard.get("digits").replicas[0].is_ready, lambda is_ready: not is_ready)
    yard.wait_state("digits", READY)

    assert yard.java(agent).pid != before.pid
    assert yard.predict("digits", second.inputs[0]).status_code == 200


def test_a_version_that_does_not_start_fails_with_its_reason_and_the_old_one_goes_on(yard, agent, second):
    broken = yard.publish(seed=2, spoil={"classes": ["only one"]})

    yard.replace("digits", broken)
    deployment = yard.wait_state("digits", FAILED)

    assert "BundleInvalid" in deployment.message
    assert "goes on answering" in deployment.message
    assert yard.predict("digits", second.inputs[0]).json()["model"]["name"] == "digits-1"
    wait_for(lambda: _versions(yard), lambda versions: len(versions) == 1)


def test_a_deleted_deployment_leaves_torchserve(yard, agent, first):
    yard.deploy("brief", first)
    yard.wait_state("brief", READY)

    with yard.database.write() as session:
        deployments.delete(session, "default", "brief")

    wait_for(lambda: _is_gone(yard, "brief"), bool)
    assert yard.predict("digits", first.inputs[0]).status_code == 200
    assert not _management(yard, "/models/default--brief/all").is_success


def test_nothing_outlives_an_agent_killed_with_9(yard, agent):
    family = [agent, *agent.children(recursive=True)]
    assert any("java" in one.name() for one in family)
    assert any("model_service_worker" in " ".join(one.cmdline()) for one in family)

    agent.kill()

    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []


def test_a_torchserve_someone_else_runs_is_reconciled_and_left_alone(yard, agent, second):
    torchserve = TorchServeProcess(yard.settings, yard.layout)
    torchserve.ensure_running()
    try:
        with yard.agent("--no-launch"):
            yard.wait_state("digits", FAILED)
            yard.replace("digits", second)
            yard.wait_state("digits", READY)

        assert torchserve.is_alive
        assert yard.predict("digits", second.inputs[0]).status_code == 200
    finally:
        torchserve.stop()


def _bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def _management(yard: ServingYard, path: str) -> httpx.Response:
    keys = json.loads((yard.state_dir / "torchserve" / "run" / "key_file.json").read_text())
    url = f"http://127.0.0.1:{yard.settings.torchserve_management_port}{path}"
    return httpx.get(url, headers=_bearer(keys["management"]["key"]), trust_env=False)


def _versions(yard: ServingYard) -> list[str]:
    return [one["modelVersion"] for one in _management(yard, "/models/default--digits/all").json()]


def _is_gone(yard: ServingYard, name: str) -> bool:
    try:
        yard.get(name)
    except DeploymentNotFound:
        return True
    return False
