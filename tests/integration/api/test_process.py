"""The server as a process: how soon it serves, what it loads, how it ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from trainyard.v1 import job_pb2, job_pb2_grpc

from services.db.database import Database
from tests.stack.identity import admit, showing
from tests.stack.ports import free_port

START_SECONDS = 60.0


@pytest.fixture
def environment(template: Path, tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "TRAINYARD_STATE_DIR": str(tmp_path),
        "TRAINYARD_DATABASE_URL": f"sqlite:///{shutil.copy(template, tmp_path / 'metadata.sqlite3')}",
        "TRAINYARD_API_PORT": str(free_port()),
        "TRAINYARD_METRICS_PORT": str(free_port()),
    }


@pytest.fixture
def token(environment: dict[str, str]) -> str:
    database = Database(environment["TRAINYARD_DATABASE_URL"])
    made = admit(database)
    database.dispose()
    return made


@pytest.fixture
def process(environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    started = subprocess.Popen([sys.executable, "-m", "services.api"], env=environment)
    yield started
    started.kill()
    started.wait()


def test_the_control_plane_loads_no_torch() -> None:
    code = (
        "import sys; import services.api.serve, services.controller.__main__; "
        "from services.recipes.manager import RecipeManager; "
        "[recipe.presets for recipe in RecipeManager.of_catalog().recipes.values()]; "
        "sys.exit(str([name for name in ('torch', 'torchvision', 'ts') if name in sys.modules] or ''))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr.strip()) == (1, "")


def test_the_api_starts_without_what_only_the_reading_of_datasets_and_postgres_need() -> None:
    """Together they cost it a third of a second."""
    late = ("numpy", "PIL", "psycopg", "sqlalchemy.dialects.postgresql")
    code = f"import sys; import services.api.serve; print([name for name in {late} if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_it_serves_and_drains(environment: dict[str, str], process: subprocess.Popen[bytes], token: str) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{environment['TRAINYARD_API_PORT']}") as plain:
        grpc.channel_ready_future(plain).result(START_SECONDS)
        channel = showing(plain, token)
        health = health_pb2_grpc.HealthStub(channel)
        jobs = job_pb2_grpc.JobServiceStub(channel)
        request = job_pb2.CreateJobRequest(
            recipe="detection/yolo_v1", preset="tiny", dataset="projects/default/datasets/digits"
        )
        job = jobs.CreateJob(request, timeout=10).job
        stream = jobs.WatchJob(job_pb2.WatchJobRequest(name=job.name))
        next(stream)
        states = health.Watch(health_pb2.HealthCheckRequest())
        assert next(states).status == health_pb2.HealthCheckResponse.SERVING
        with urlopen(f"http://127.0.0.1:{environment['TRAINYARD_METRICS_PORT']}/metrics") as metrics:
            assert b"trainyard_rpc_requests_total" in metrics.read()

        process.send_signal(signal.SIGTERM)

        assert next(states).status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.RpcError) as ended:
            list(stream)
        assert ended.value.code() == grpc.StatusCode.UNAVAILABLE
    assert process.wait(20) == 0


def test_a_second_server_on_the_port_fails(environment: dict[str, str], process: subprocess.Popen[bytes]) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{environment['TRAINYARD_API_PORT']}") as channel:
        grpc.channel_ready_future(channel).result(START_SECONDS)

        second = subprocess.run(
            [sys.executable, "-m", "services.api"],
            env={**environment, "TRAINYARD_METRICS_PORT": "0"},
            capture_output=True,
            timeout=START_SECONDS,
            check=False,
        )

    assert second.returncode != 0
