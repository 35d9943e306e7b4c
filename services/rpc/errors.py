"""Turns every exception of a call into a google.rpc.Status; the only place that does."""

from __future__ import annotations

from typing import Any

import grpc.aio
import structlog
from grpc_status import rpc_status

from services.core.errors import Code, NotServed, PlatformError
from services.rpc.middleware import Call, Proceed
from services.rpc.request_id import HEADER
from services.rpc.status import internal_status, status_of

log = structlog.get_logger(__name__)


class Errors:
    """Platform errors keep their code and reason; anything else is logged and answered as internal."""

    async def __call__(self, call: Call, proceed: Proceed) -> Any:
        try:
            return await proceed()
        except grpc.aio.AbortError:
            raise
        except PlatformError as err:
            if err.code is Code.INTERNAL:
                log.exception("rpc_failed", method=call.method, reason=err.reason)
            elif err.retryable and err.code is not Code.RESOURCE_EXHAUSTED:
                # A line for each refused call of a flood would be a flood of its own; the metrics count them.
                log.warning("rpc_unavailable", method=call.method, reason=err.reason, error=str(err))
            status = status_of(err, request_id=call.request_id)
        except NotImplementedError:
            # How generated base classes answer for a method nobody wrote, such as a newer one of gRPC's health.
            status = status_of(NotServed(), request_id=call.request_id)
        except Exception:
            if call.context.cancelled() or call.context.done():
                # A client that left while the handler wrote; nobody reads an answer.
                raise
            log.exception("rpc_failed", method=call.method)
            status = internal_status(request_id=call.request_id)
        answer = rpc_status.to_status(status)
        trailers = ((HEADER, call.request_id), *answer.trailing_metadata)
        return await call.context.abort(answer.code, answer.details, trailers)
