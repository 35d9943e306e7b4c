"""The one table from errors to statuses, and what a status may tell a stranger.

Mistakes of the caller are answered in full. Faults of ours are answered by the docstring of their class:
their messages may hold addresses, paths or SQL, and those stay in the log.
"""

from __future__ import annotations

import inspect

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from services.core.errors import (
    BrokerUnavailable,
    Code,
    DatabaseUnavailable,
    PlatformError,
    RateExceeded,
    StoreUnavailable,
    Violation,
)

DOMAIN = "trainyard"
RETRY_SECONDS = 1
# Statuses travel as HTTP/2 trailers, and clients refuse those above 8 KiB.
MAX_MESSAGE_LENGTH = 1000
MAX_DESCRIPTION_LENGTH = 400
MAX_VIOLATIONS_BYTES = 4000

CODES: dict[Code, grpc.StatusCode] = {
    Code.INVALID_ARGUMENT: grpc.StatusCode.INVALID_ARGUMENT,
    Code.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Code.ALREADY_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    Code.FAILED_PRECONDITION: grpc.StatusCode.FAILED_PRECONDITION,
    Code.ABORTED: grpc.StatusCode.ABORTED,
    Code.RESOURCE_EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Code.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    Code.PERMISSION_DENIED: grpc.StatusCode.PERMISSION_DENIED,
    Code.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Code.UNIMPLEMENTED: grpc.StatusCode.UNIMPLEMENTED,
    Code.DEADLINE_EXCEEDED: grpc.StatusCode.DEADLINE_EXCEEDED,
    Code.INTERNAL: grpc.StatusCode.INTERNAL,
}

_OPAQUE = (DatabaseUnavailable, StoreUnavailable, BrokerUnavailable)


def status_of(error: PlatformError, *, request_id: str) -> status_pb2.Status:
    """Return the status that answers `error`, with its reason, its violations and whether to retry."""
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN),
        error_details_pb2.RequestInfo(request_id=request_id),
    ]
    if error.violations:
        details.append(_bad_request(error.violations))
    if error.retryable:
        details.append(error_details_pb2.RetryInfo(retry_delay=_retry_delay(error)))
    return _status(error.code, _public_message(error), details)


def internal_status(*, request_id: str) -> status_pb2.Status:
    """Return the status for an exception nobody foresaw; the log has the rest under the same request id."""
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=PlatformError.reason, domain=DOMAIN),
        error_details_pb2.RequestInfo(request_id=request_id),
    ]
    return _status(Code.INTERNAL, f"internal error (request {request_id})", details)


def _public_message(error: PlatformError) -> str:
    if error.code is Code.INTERNAL or isinstance(error, _OPAQUE):
        return inspect.getdoc(type(error)) or ""
    return _cut(str(error), MAX_MESSAGE_LENGTH)


def _retry_delay(error: PlatformError) -> duration_pb2.Duration:
    delay = duration_pb2.Duration()
    delay.FromMilliseconds(round(1000 * (error.retry_seconds if isinstance(error, RateExceeded) else RETRY_SECONDS)))
    return delay


def _bad_request(violations: tuple[Violation, ...]) -> error_details_pb2.BadRequest:
    bad_request = error_details_pb2.BadRequest()
    for number, violation in enumerate(violations):
        if bad_request.ByteSize() > MAX_VIOLATIONS_BYTES:
            more = sum(violation.count for violation in violations[number:])
            bad_request.field_violations.add(field="", description=f"and {more} more")
            break
        bad_request.field_violations.add(
            field=_cut(violation.field, MAX_DESCRIPTION_LENGTH),
            description=_cut(violation.description, MAX_DESCRIPTION_LENGTH),
        )
    return bad_request


def _status(code: Code, message: str, details: list[Message]) -> status_pb2.Status:
    packed = []
    for detail in details:
        box = any_pb2.Any()
        box.Pack(detail)
        packed.append(box)
    return status_pb2.Status(code=code_pb2.Code.Value(code.value), message=message, details=packed)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."
