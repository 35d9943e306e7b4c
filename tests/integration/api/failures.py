"""What a refused call says, unpacked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status


class Refusal:
    """A refused call's code, message and details."""

    def __init__(self, error: grpc.RpcError) -> None:
        self.code: grpc.StatusCode = error.code()
        self.message: str = error.details()
        self.trailers = dict(error.trailing_metadata() or ())
        self._status: status_pb2.Status | None = rpc_status.from_call(error)

    @property
    def reason(self) -> str:
        return self.detail(error_details_pb2.ErrorInfo).reason

    @property
    def request_id(self) -> str:
        return self.detail(error_details_pb2.RequestInfo).request_id

    @property
    def violations(self) -> dict[str, str]:
        found = self.detail(error_details_pb2.BadRequest).field_violations
        return {violation.field: violation.description for violation in found}

    def detail(self, kind: Any) -> Any:
        assert self._status is not None
        message = kind()
        for detail in self._status.details:
            if detail.Unpack(message):
                return message
        raise AssertionError(f"no {kind.__name__} in {self._status}")


def refused(call: Callable[[], Any]) -> Refusal:
    """Return how `call` was refused; fail if it was not."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return Refusal(caught.value)
