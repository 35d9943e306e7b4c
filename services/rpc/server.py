"""Building, draining and health of the server; which services it serves is decided by its caller."""

from __future__ import annotations

from collections.abc import Sequence

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.rpc.deadline import Deadline
from services.rpc.errors import Errors
from services.rpc.limits import ServerLimits, grpc_options
from services.rpc.metrics import Metrics
from services.rpc.middleware import Chain, Middleware
from services.rpc.rate import RateLimit
from services.rpc.request_id import RequestId
from services.rpc.sockets import bound_send_queue
from services.rpc.streams import Streams
from services.rpc.tls import TlsFiles, server_credentials

LIVENESS = "liveness"
"""Health service that only says that the event loop runs; "" also needs the database."""


class Server:
    """A grpc.aio server with standard health and reflection."""

    def __init__(self, limits: ServerLimits | None = None, *, guards: Sequence[Middleware]) -> None:
        """`guards` decide who may call; they run after what bounds callers and before what bounds streams."""
        self._limits = limits = limits or ServerLimits()
        bounded = (RequestId(), Metrics(), Errors(), RateLimit(limits))
        middlewares: tuple[Middleware, ...] = (*bounded, *guards, Streams(limits), Deadline())
        chain = Chain(middlewares, write_patience_seconds=limits.write_patience_seconds)
        self.grpc = grpc.aio.server(
            interceptors=(chain,),
            options=grpc_options(limits),
            maximum_concurrent_rpcs=limits.concurrent_calls,
        )
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # missing in the stubs
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc)
        self._names: tuple[str, ...] = ()
        self._plain: grpc.aio.Server | None = None

    def describe(self, names: Sequence[str]) -> None:
        """Announce the full names of the services added to `grpc`, for reflection and health."""
        self._names = ("", *names)
        reflection.enable_server_reflection((*names, health.SERVICE_NAME, reflection.SERVICE_NAME), self.grpc)

    async def start(self, host: str, port: int, *, tls: TlsFiles | None = None, health_port: int = 0) -> int:
        """Bind, serve and return the port; 0 picks a free one. A `health_port` answers health alone, without TLS.

        Raises:
            RuntimeError: the address is in use.
            TlsInvalid: the files of TLS cannot be used.
        """
        address = f"{host}:{port}"
        if tls is None:
            bound = self.grpc.add_insecure_port(address)
        else:
            bound = self.grpc.add_secure_port(address, server_credentials(tls))
        await self.grpc.start()
        bound_send_queue(bound, self._limits.send_queue_bytes)
        if health_port:
            # Probes of orchestrators speak neither TLS nor tokens.
            self._plain = grpc.aio.server(options=grpc_options(ServerLimits()))
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self._plain)
            self._plain.add_insecure_port(f"{host}:{health_port}")
            await self._plain.start()
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
        if self._plain is not None:
            await self._plain.stop(0)
