"""The whole platform from real parts as plain processes: PostgreSQL, Redis, MinIO, TorchServe, Prometheus.

Every process of ours has a state directory of its own, as on machines of their own: what one needs of another one
goes through the database, the broker or the object store.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from services.identity.bootstrap import LOCAL_FILE
from services.up.probe import grpc_serves
from tests.stack.minio import MinioServer, minio_server
from tests.stack.platform import Stack, test_timings, wait_until
from tests.stack.ports import free_port
from tests.stack.postgres import PostgresServer, postgres_process
from tests.stack.prometheus import Prometheus, Target, prometheus_server
from tests.stack.redis import RedisServer, redis_server
from tests.stack.server import answers

BUCKET = "trainyard"
MODULES = {
    "api": "services.api",
    "controller": "services.controller",
    "worker": "workers",
    "torchserve": "services.agent",
}
READY_SECONDS = 120.0


@dataclass
class ProcessStack:
    """What runs, and how to reach it."""

    stack: Stack
    postgres: PostgresServer
    redis: RedisServer
    minio: MinioServer
    prometheus: Prometheus
    metrics_ports: dict[str, int]

    def start(self, part: str) -> None:
        """Start one process of ours, again where it ran before."""
        state_dir = self.stack.state_dir / part
        self.stack.start(
            part,
            MODULES[part],
            TRAINYARD_STATE_DIR=str(state_dir),
            TRAINYARD_METRICS_PORT=str(self.metrics_ports[part]),
        )

    def kill(self, part: str) -> None:
        """Kill one process of ours with SIGKILL."""
        process = self.stack.processes[part]
        process.kill()
        process.wait()


@contextmanager
def process_stack(directory: Path, environ: Mapping[str, str]) -> Iterator[ProcessStack]:
    """Run the platform with one of each part until the context ends; `environ` adds to what all of ours get.

    Raises:
        PartMissing: one of the servers is not here and cannot be installed.
    """
    with ExitStack() as closing:
        postgres = closing.enter_context(postgres_process(directory / "postgres", in_memory=True))
        redis = closing.enter_context(redis_server(directory / "redis"))
        minio = closing.enter_context(minio_server(directory / "minio"))
        api_port, torchserve_metrics = free_port(), free_port()
        full = {
            **os.environ,
            **_addresses(postgres, redis, minio),
            **test_timings(),
            "TRAINYARD_API_PORT": str(api_port),
            "TRAINYARD_WORKER_ID": "worker-1",
            "TRAINYARD_AGENT_ID": "torchserve-1",
            "TRAINYARD_TORCHSERVE_METRICS_PORT": str(torchserve_metrics),
            **{
                f"TRAINYARD_TORCHSERVE_{name}_PORT": str(free_port())
                for name in ("INFERENCE", "MANAGEMENT", "GRPC", "GRPC_MANAGEMENT")
            },
            **environ,
        }
        migrate = [sys.executable, "-m", "services.up.migrate", "--local-token", str(directory / LOCAL_FILE)]
        subprocess.run(migrate, env=full, check=True)
        stack = Stack(directory, full, f"127.0.0.1:{api_port}")
        closing.callback(stack.stop)
        ports = {part: free_port() for part in MODULES}
        targets = [Target(part, f"127.0.0.1:{port}", "metrics") for part, port in ports.items()]
        targets.append(Target("torchserve", f"127.0.0.1:{torchserve_metrics}", "server-metrics"))
        targets.append(Target("minio", minio.endpoint))
        prometheus = closing.enter_context(prometheus_server(directory / "prometheus", targets))
        running = ProcessStack(stack, postgres, redis, minio, prometheus, ports)
        for part in MODULES:
            running.start(part)
        wait_until(grpc_serves(stack.address), what="the API server answers", limit_seconds=READY_SECONDS)
        for port in (*ports.values(), torchserve_metrics):
            url = f"http://127.0.0.1:{port}/metrics"
            wait_until(lambda url=url: answers(url), what=url, limit_seconds=READY_SECONDS)
        yield running


def _addresses(postgres: PostgresServer, redis: RedisServer, minio: MinioServer) -> dict[str, str]:
    return {
        "TRAINYARD_DATABASE_URL": postgres.url,
        "TRAINYARD_BROKER_URL": redis.url,
        "TRAINYARD_OBJECT_STORE_URL": f"s3://{minio.endpoint}/{BUCKET}",
        "TRAINYARD_S3_ACCESS_KEY": minio.access_key,
        "TRAINYARD_S3_SECRET_KEY": minio.secret_key,
        "TRAINYARD_S3_SECURE": "false",
    }
