"""A platform as its users and operators see it: addresses, and the few things a test may do to it from outside.

The suite (`test_platform.py`) knows nothing else, so it runs on every platform. By default it runs on the embedded one
and on the process stack, which it starts itself. Against one that runs already, such as compose, name its addresses and
run `pytest tests/e2e/test_platform.py`:

    TRAINYARD_E2E_API            host:port of the gRPC API; naming it chooses that platform
    TRAINYARD_E2E_PROMETHEUS     http://host:port of the Prometheus that scrapes it
    TRAINYARD_E2E_S3             http(s)://host:port/bucket of its object store, with
    TRAINYARD_E2E_S3_ACCESS_KEY  and
    TRAINYARD_E2E_S3_SECRET_KEY  for a client that is not ours
    TRAINYARD_E2E_KILL_WORKER    shell command that kills the workers without grace and lets workers run again, such as
                                 `docker compose kill -s KILL worker && docker compose up -d worker`
    TRAINYARD_E2E_TORCHSERVE     http://host:port, where what deployments report cannot be reached from here
    TRAINYARD_E2E_TORCHSERVE_GRPC  host:port, likewise
    TRAINYARD_E2E_PATIENCE       seconds to wait for anything; 300 unless said

The client's own TRAINYARD_TOKEN or TRAINYARD_TOKEN_FILE holds a token of the project `default`; those for TorchServe
come from the API. A platform that lacks one of the first five cannot be tested, and says so.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

from services.up import endpoints as embedded_endpoints
from services.up.endpoints import Endpoints
from tests.stack.identity import local_token
from tests.stack.platform import test_timings, wait_until
from tests.stack.ports import free_port
from tests.stack.process_stack import BUCKET, process_stack
from tests.stack.prometheus import Prometheus, Target, prometheus_server

PREFIX = "TRAINYARD_E2E_"
# The share of one process; several busy pools on the same cores slow each other down many times over.
_SMALL = {
    "TRAINYARD_WORKER_THREADS": "1",
    "TRAINYARD_WORKER_DEVICE": "cpu",
    # Attempts and steps are counted: only a worker that was killed may lose its lease, not one that waits for a core.
    "TRAINYARD_TIMINGS__LEASE_TTL": "6",
}

Objects = Mapping[str, Callable[[], bytes]]
"""Keys below a prefix, each with what reads it."""


@dataclass(frozen=True, kw_only=True)
class Platform:
    """Where a platform answers, and what a test may do to it."""

    api: str
    token: str | None
    """For the API; None leaves it to what the client finds in its environment."""
    prometheus: Prometheus
    objects: Callable[[str], Objects]
    """What the object store holds below a prefix, read past our own code."""
    kill_worker: Callable[[], None]
    """Kill what trains now without grace; returns once a worker runs again or will by itself."""
    torchserve: str = ""
    """REST address to use in place of the reported one."""
    torchserve_grpc: str = ""
    patience_seconds: float = 300.0


def is_named(environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether the environment names a platform that runs already."""
    return bool(environ.get(f"{PREFIX}API"))


@contextmanager
def named(_directory: Path, environ: Mapping[str, str] = os.environ) -> Iterator[Platform]:
    """Return the platform that the environment names."""
    names = ("API", "PROMETHEUS", "S3", "S3_ACCESS_KEY", "S3_SECRET_KEY", "KILL_WORKER")
    missing = [PREFIX + name for name in names if not environ.get(PREFIX + name)]
    assert not missing, f"set {', '.join(missing)}; see tests/e2e/endpoints.py"
    found = {name: environ[PREFIX + name] for name in names}
    command = found["KILL_WORKER"]
    url = urlsplit(found["S3"])
    yield Platform(
        api=found["API"],
        token=None,
        prometheus=Prometheus(found["PROMETHEUS"].rstrip("/")),
        objects=_s3_objects(
            f"{url.scheme}://{url.netloc}", url.path.strip("/"), found["S3_ACCESS_KEY"], found["S3_SECRET_KEY"]
        ),
        kill_worker=lambda: _shell(command),
        torchserve=environ.get(f"{PREFIX}TORCHSERVE", ""),
        torchserve_grpc=environ.get(f"{PREFIX}TORCHSERVE_GRPC", ""),
        patience_seconds=float(environ.get(f"{PREFIX}PATIENCE", "300")),
    )


@contextmanager
def embedded(directory: Path) -> Iterator[Platform]:
    """Run `trainyard up` with a Prometheus beside it."""
    state_dir = directory / "state"
    # Ports of their own: the usual ones may be another platform's of this machine.
    ports = {f"TRAINYARD_TORCHSERVE_{name}_PORT": str(free_port()) for name in _TORCHSERVE}
    environ = {
        **os.environ,
        **test_timings(),
        **_SMALL,
        **ports,
        "TRAINYARD_API_PORT": str(free_port()),
        "TRAINYARD_STATE_DIR": str(state_dir),
    }
    with ExitStack() as closing:
        found = Endpoints.model_validate_json(_trainyard(environ, "up", "--background", "--json"))
        closing.callback(_trainyard, environ, "down")
        prometheus = closing.enter_context(prometheus_server(directory / "prometheus", _targets(found)))
        yield Platform(
            api=found.address,
            token=local_token(state_dir),
            prometheus=prometheus,
            objects=lambda prefix: _local_objects(state_dir / "objects" / "objects", prefix),
            kill_worker=lambda: _kill_embedded_worker(state_dir),
        )


@contextmanager
def processes(directory: Path) -> Iterator[Platform]:
    """Run the process stack."""

    def kill_worker() -> None:
        running.kill("worker")
        running.start("worker")

    with process_stack(directory, _SMALL) as running:
        minio = running.minio
        yield Platform(
            api=running.stack.address,
            token=running.stack.token,
            prometheus=running.prometheus,
            objects=_s3_objects(f"http://{minio.endpoint}", BUCKET, minio.access_key, minio.secret_key),
            kill_worker=kill_worker,
        )


def _trainyard(environ: Mapping[str, str], *arguments: str) -> str:
    command = [sys.executable, "-c", "from services.client.cli import main; main()", *arguments]
    done = subprocess.run(command, env=dict(environ), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


_TORCHSERVE = ("INFERENCE", "MANAGEMENT", "METRICS", "GRPC", "GRPC_MANAGEMENT")


def _targets(found: Endpoints) -> list[Target]:
    jobs = {"api": "api", "controller": "controller", "worker": "worker", "serving": "torchserve"}
    targets = [Target(jobs[name], f"127.0.0.1:{part.metrics_port}", "metrics") for name, part in found.parts.items()]
    return [*targets, Target("torchserve", f"127.0.0.1:{found.torchserve.metrics}", "server-metrics")]


def _kill_embedded_worker(state_dir: Path) -> None:
    def worker() -> tuple[str, int]:
        found = embedded_endpoints.read(state_dir)
        assert found is not None
        return found.parts["worker"].state, found.parts["worker"].pid or 0

    _, before = worker()
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: worker()[1] not in (0, before), what="another worker", limit_seconds=60)


def _local_objects(root: Path, prefix: str) -> Objects:
    paths = (path for path in root.rglob("*") if path.is_file())
    keys = {path.relative_to(root).as_posix(): path for path in paths}
    return {key: path.read_bytes for key, path in keys.items() if key.startswith(prefix)}


def _s3_objects(url: str, bucket: str, access_key: str, secret_key: str) -> Callable[[str], Objects]:
    """Return what lists and reads a bucket by Amazon's own client."""
    client = boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, proxies={}),
    )

    def read(key: str) -> bytes:
        body: bytes = client.get_object(Bucket=bucket, Key=key)["Body"].read()
        return body

    def objects(prefix: str) -> Objects:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        keys = [one["Key"] for page in pages for one in page.get("Contents", ())]
        return {key: lambda key=key: read(key) for key in keys}

    return objects


def _shell(command: str) -> None:
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
