"""Counts and times every call by method and code."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
from prometheus_client import Counter, Gauge, Histogram

from services.rpc.middleware import Call, Proceed

REQUESTS = Counter("trainyard_rpc_requests_total", "Calls answered, by how they ended.", ("method", "code"))
SECONDS = Histogram(
    "trainyard_rpc_duration_seconds",
    "Wall time of one call; streams are not counted.",
    ("method",),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0),
)
_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}

ACTIVE = Gauge("trainyard_rpc_active", "Calls being answered now.", ("method",))


class Metrics:
    """Knows the code of a call after the error middleware inside it has set it."""

    async def __call__(self, call: Call, proceed: Proceed) -> Any:
        active = ACTIVE.labels(call.method)
        active.inc()
        start = time.perf_counter()
        code = grpc.StatusCode.OK
        try:
            return await proceed()
        except asyncio.CancelledError:
            code = grpc.StatusCode.CANCELLED
            raise
        except BaseException:
            code = _code_of(call)
            raise
        finally:
            active.dec()
            REQUESTS.labels(call.method, code.name).inc()
            if call.is_unary:
                SECONDS.labels(call.method).observe(time.perf_counter() - start)


def _code_of(call: Call) -> grpc.StatusCode:
    # The context of grpc.aio holds the number that goes over the wire.
    code: Any = call.context.code()
    return _BY_NUMBER.get(code, grpc.StatusCode.UNKNOWN) if isinstance(code, int) else code
