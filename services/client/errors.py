"""What a call to the platform can raise, with everything the server said about it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

_UNREACHABLE = "no platform answers at {address}: start one with `trainyard up`, or set TRAINYARD_SERVER to its address"
_IS_THERE = re.compile("Socket closed|SETTINGS frame|reset by peer")
_TOO_LARGE = re.compile(r"SERVER: Received message larger than max \((\d+) vs\. (\d+)\)")
_NOT_SPOKEN = (
    "{address} hangs up: a platform with TLS wants TRAINYARD_TLS_CA, and where it asks for certificates"
    " TRAINYARD_TLS_CLIENT_CERT and TRAINYARD_TLS_CLIENT_KEY of an authority that it knows; without TLS leave them out"
)
_NO_TLS = "no TLS with {address}: {why}; TRAINYARD_TLS_CA names the authority of the server's certificate"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One thing wrong with one field of a request, and what to do about it."""

    field: str
    description: str


class ApiError(Exception):
    """The platform refused or could not answer a call."""

    def __init__(
        self,
        code: str,
        reason: str,
        message: str,
        *,
        violations: Sequence[FieldViolation] = (),
        request_id: str = "",
        retry_seconds: float = 0.0,
        as_sent: ApiError | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.violations = tuple(violations)
        self.request_id = request_id
        self.retry_seconds = retry_seconds
        """How long the server asks to be left alone."""
        self.as_sent = as_sent or self
        """The error in the words of the server, where these are others."""

    def restated(self, message: str, violations: Sequence[FieldViolation] = ()) -> ApiError:
        """Return the same error in other words."""
        return ApiError(
            self.code,
            self.reason,
            message,
            violations=violations,
            request_id=self.request_id,
            retry_seconds=self.retry_seconds,
            as_sent=self.as_sent,
        )

    @property
    def was_not_begun(self) -> bool:
        """True where the call was turned away before anything was done, so that any may be tried again."""
        return self.reason == "RATE_LIMITED"

    @property
    def is_transient(self) -> bool:
        """True where the same call may succeed a moment later."""
        return self.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED")


class CredentialsInvalid(Exception):
    """A token or a certificate that was named cannot be used; the message says which and why."""


class NoPlatform(Exception):
    """No platform was named, and none runs on this machine; the message says what to do."""


class TransferFailed(Exception):
    """Downloaded bytes are not the stored ones."""


def from_rpc(error: grpc.RpcError, *, address: str) -> ApiError:
    """Turn an error of a call into an ApiError with its details."""
    call: grpc.Call = error  # type: ignore[assignment]  # an RpcError of a stub is a Call too
    code, message = call.code().name, call.details() or ""
    reason, request_id, retry_seconds = code, "", 0.0
    violations: list[FieldViolation] = []
    status = rpc_status.from_call(call)
    for detail in status.details if status is not None else ():
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        request, retry = error_details_pb2.RequestInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            reason = info.reason
            request_id = info.metadata.get("request_id", request_id)
        elif detail.Unpack(bad):
            violations += [FieldViolation(each.field, each.description) for each in bad.field_violations]
        elif detail.Unpack(request):
            request_id = request.request_id
        elif detail.Unpack(retry):
            retry_seconds = retry.retry_delay.ToMilliseconds() / 1000
    if code == "UNAVAILABLE" and status is None:
        reason, text = _why_out_of_reach(message)
        message = text.format(address=address, why=message)
    if too_large := _TOO_LARGE.search(message):
        sent, most = (int(size) / 2**20 for size in too_large.groups())
        reason = "REQUEST_TOO_LARGE"
        message = (
            f"the request has {sent:.1f} MiB, and one call takes {most:.0f}: send fewer or smaller pictures at once"
        )
    return ApiError(code, reason, message, violations=violations, request_id=request_id, retry_seconds=retry_seconds)


def _why_out_of_reach(message: str) -> tuple[str, str]:
    """Return the reason and the words for what the transport says of a call that reached no server."""
    if "handshake" in message.lower():
        return "TLS_FAILED", _NO_TLS
    # Who takes the connection and ends it, or never answers on it, is there, but speaks otherwise.
    return ("TLS_FAILED", _NOT_SPOKEN) if _IS_THERE.search(message) else ("UNREACHABLE", _UNREACHABLE)
