"""Building, draining and health of the server; which services it serves is decided by its caller."""

from __future__ import annotations

from collections.abc import Sequence

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.rpc.deadline import Deadline
from services.rpc.errors import Errors
from services.rpc.metrics import Metrics
from services.rpc.middleware import Chain
from services.rpc.request_id import RequestId

MAX_MESSAGE_BYTES = 4 * 2**20
MAX_CONCURRENT_CALLS = 8192
LIVENESS = "liveness"
"""Health service that only says that the event loop runs; "" also needs the database."""

OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_concurrent_streams", 1000),
    # Clients may ping every 30 s; the default of 5 minutes cuts off those that keep idle streams alive.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 30_000),
    ("grpc.http2.max_ping_strikes", 2),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Spreads long-lived clients over replicas again; watchers resume by sequence number.
    ("grpc.max_connection_age_ms", 30 * 60_000),
    ("grpc.max_connection_age_grace_ms", 10 * 60_000),
    ("grpc.max_connection_idle_ms", 15 * 60_000),
    # A second server on the port must fail, not take half of the connections.
    ("grpc.so_reuseport", 0),
)


class Server:
    """A grpc.aio server with standard health and reflection."""

    def __init__(self) -> None:
        chain = Chain((RequestId(), Metrics(), Errors(), Deadline()))
        self.grpc = grpc.aio.server(
            interceptors=(chain,), options=OPTIONS, maximum_concurrent_rpcs=MAX_CONCURRENT_CALLS
        )
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # missing in the stubs
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc)
        self._names: tuple[str, ...] = ()

    def describe(self, names: Sequence[str]) -> None:
        """Announce the full names of the services added to `grpc`, for reflection and health."""
        self._names = ("", *names)
        reflection.enable_server_reflection((*names, health.SERVICE_NAME, reflection.SERVICE_NAME), self.grpc)

    async def start(self, host: str, port: int) -> int:
        """Bind, serve and return the port; 0 picks a free one.

        Raises:
            RuntimeError: the address is in use.
        """
        bound = self.grpc.add_insecure_port(f"{host}:{port}")
        await self.grpc.start()
        await self._health.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        await self.set_ready(True)
        return bound

    async def set_ready(self, is_ready: bool) -> None:
        """Say whether calls make sense now."""
        state = health_pb2.HealthCheckResponse
        for name in self._names:
            await self._health.set(name, state.SERVING if is_ready else state.NOT_SERVING)

    async def drain(self, grace_seconds: float) -> None:
        """Say NOT_SERVING for good, take no new calls, and give running ones time to end."""
        await self._health.enter_graceful_shutdown()
        await self.grpc.stop(grace_seconds)
