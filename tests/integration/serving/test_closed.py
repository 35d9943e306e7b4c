"""TorchServe as a stranger on the network and a thief in its process find it: closed, and with nothing to steal."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.integration.serving.yard import ServingYard, wait_for
from tests.stack.ports import free_port

# A service on 127.0.0.1 alone does not answer here, one on every address does: the network, as far as it matters.
OUTSIDE = "127.0.0.2"
SECRETS = {
    "TRAINYARD_S3_SECRET_KEY": "s3-secret-of-the-agent",
    "TRAINYARD_S3_ACCESS_KEY": "s3-access-of-the-agent",
    "AWS_SECRET_ACCESS_KEY": "aws-secret-of-the-agent",
    "PGPASSWORD": "database-secret-of-the-agent",
    "TRAINYARD_TOKEN": "api-token-of-the-agent",
    "CI_CREDENTIALS": "other-secret-of-the-agent",
}
KNOWN_NAMES = {
    *("PATH", "HOME", "LANG", "LC_ALL", "TZ", "PYTHONPATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "TMPDIR"),
    *("JAVA_HOME", "LOG_LOCATION", "METRICS_LOCATION", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY"),
    "PYTHONUNBUFFERED",
}


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> ServingYard:
    ports = {"TRAINYARD_HOST": "0.0.0.0", "TRAINYARD_METRICS_PORT": str(free_port())}
    return ServingYard(tmp_path_factory.mktemp("closed"), {**ports, **SECRETS})


@pytest.fixture(scope="module")
def agent(yard: ServingYard) -> Iterator[psutil.Process]:
    with yard.agent() as process:
        wait_for(lambda: readiness(yard), lambda status: status == 200)
        yield process


def readiness(yard: ServingYard) -> int:
    try:
        return httpx.get(
            f"http://{OUTSIDE}:{yard.settings.metrics_port}/readyz", trust_env=False, timeout=5
        ).status_code
    except httpx.HTTPError:
        return 0


def answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def test_torchserve_s_process_holds_no_secret(yard: ServingYard, agent: psutil.Process) -> None:
    family = [one for one in agent.children(recursive=True) if one.pid != agent.pid]
    held = {one.pid: Path(f"/proc/{one.pid}/environ").read_bytes() for one in family}

    assert any("java" in one.name() for one in family)
    names = {entry.partition(b"=")[0].decode() for body in held.values() for entry in body.split(b"\0") if entry}
    assert names <= KNOWN_NAMES
    assert not [value for value in SECRETS.values() if any(value.encode() in body for body in held.values())]


@pytest.mark.parametrize("name", ["management", "grpc_management"])
def test_management_does_not_listen_where_others_reach_it(yard: ServingYard, agent: psutil.Process, name: str) -> None:
    port = getattr(yard.settings, f"torchserve_{name}_port")

    wait_for(lambda: answers("127.0.0.1", port), bool)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((OUTSIDE, port), timeout=5)


def test_nothing_of_torchserve_listens_but_what_is_meant_to(yard: ServingYard, agent: psutil.Process) -> None:
    java, settings = yard.java(agent), yard.settings

    def listening() -> set[tuple[str, int]]:
        found = java.net_connections("inet")
        return {(one.laddr.ip, one.laddr.port) for one in found if one.status == psutil.CONN_LISTEN}

    # Its gRPC servers come last.
    seen = wait_for(listening, lambda found: len(found) >= 5)
    public = {settings.torchserve_inference_port, settings.torchserve_metrics_port, settings.torchserve_grpc_port}
    assert {port for address, port in seen if not address.endswith("127.0.0.1")} == public
    assert len(seen) == 5


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/models"),
        ("POST", "/models?url=digits.mar"),
        ("POST", "/models?url=https://example.com/evil.mar"),
        ("PUT", "/models/digits?min_worker=3"),
        ("PUT", "/models/digits/1/set-default"),
        ("DELETE", "/models/digits"),
        ("GET", "/token?type=management"),
        ("GET", "/models/digits/all"),
    ],
)
@pytest.mark.parametrize("token", ["", "Bearer", "Bearer AAAAAAAA", "Basic YTpi"])
def test_management_without_its_token_is_refused(
    yard: ServingYard, agent: psutil.Process, method: str, path: str, token: str
) -> None:
    url = f"http://127.0.0.1:{yard.settings.torchserve_management_port}{path}"

    response = httpx.request(method, url, headers={"authorization": token} if token else {}, trust_env=False)

    assert response.status_code in (400, 401, 403)
    assert "Token" in response.text


def test_predictions_and_the_health_check_want_a_token_too(yard: ServingYard, agent: psutil.Process) -> None:
    base = f"http://{OUTSIDE}:{yard.settings.torchserve_inference_port}"

    for path in ("/ping", "/predictions/default--digits", "/explanations/default--digits", "/"):
        response = httpx.post(f"{base}{path}", content=b"x", trust_env=False)
        assert response.status_code in (400, 401, 403, 404, 405), path


def test_readiness_is_what_torchserve_says_at_that_moment(yard: ServingYard, agent: psutil.Process) -> None:
    java = yard.java(agent)

    java.send_signal(signal.SIGSTOP)
    try:
        assert readiness(yard) == 503
    finally:
        java.send_signal(signal.SIGCONT)

    assert wait_for(lambda: readiness(yard), lambda status: status == 200) == 200


def test_readiness_ends_with_torchserve_and_comes_back_with_it(yard: ServingYard, agent: psutil.Process) -> None:
    yard.java(agent).kill()

    wait_for(lambda: readiness(yard), lambda status: status == 503)
    wait_for(lambda: readiness(yard), lambda status: status == 200)
    metrics = httpx.get(f"http://{OUTSIDE}:{yard.settings.metrics_port}/metrics", trust_env=False).text
    assert "trainyard_torchserve_starts_total 2" in metrics
