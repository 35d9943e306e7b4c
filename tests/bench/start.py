"""Seconds from starting an API server's process to its first answer."""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.stack.ports import free_port

STARTS = 7
LIMIT_SECONDS = 60.0


def run(directory: Path) -> dict[str, Any]:
    environ = {**os.environ, "TRAINYARD_STATE_DIR": str(directory), "TRAINYARD_METRICS_PORT": "0"}
    subprocess.run([sys.executable, "-m", "services.up.migrate"], env=environ, check=True)
    seconds = [_start(environ) for _ in range(STARTS)]
    return {"api_start_seconds": {"p50": round(statistics.median(seconds), 3), "max": round(max(seconds), 3)}}


def _start(environ: dict[str, str]) -> float:
    port = free_port()
    begin = time.perf_counter()
    server = subprocess.Popen([sys.executable, "-m", "services.api"], env={**environ, "TRAINYARD_API_PORT": str(port)})
    try:
        # A channel that finds nobody waits longer and longer before it tries again; a plain connect does not.
        while not _accepts(port):
            if time.perf_counter() - begin > LIMIT_SECONDS:
                raise TimeoutError(f"the API server did not start within {LIMIT_SECONDS:g} s")
            time.sleep(0.01)
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            request = health_pb2.HealthCheckRequest(service="trainyard.v1.JobService")
            reply = health_pb2_grpc.HealthStub(channel).Check(request, wait_for_ready=True, timeout=LIMIT_SECONDS)
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
        return time.perf_counter() - begin
    finally:
        server.terminate()
        server.wait()


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
