"""Cheap questions to a starting part: does it answer yet?"""

from __future__ import annotations

import http.client
from collections.abc import Callable

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

Probe = Callable[[], bool]
_PATIENCE_SECONDS = 0.5


def http_answers(host: str, port: int, path: str) -> Probe:
    """Return a probe that is true once a GET of `path` succeeds."""

    def answers() -> bool:
        connection = http.client.HTTPConnection(host, port, timeout=_PATIENCE_SECONDS)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    return answers


def grpc_serves(address: str) -> Probe:
    """Return a probe that is true once the server's health check says SERVING."""

    def serves() -> bool:
        with grpc.insecure_channel(address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            try:
                answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=_PATIENCE_SECONDS)
            except grpc.RpcError:
                return False
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    return serves
