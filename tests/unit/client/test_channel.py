"""Which lost calls are made again, and which are not."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from services.client.channel import Caller
from services.client.errors import ApiError


class Broken(grpc.RpcError):
    """A call that ended with nothing but a code."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._code.name

    def trailing_metadata(self) -> None:
        return None


class Method:
    """Ends its first call with a code and answers the next one."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self.calls = 0
        self._code = code

    def __call__(self, request: str, **_: Any) -> str:
        self.calls += 1
        if self.calls == 1:
            raise Broken(self._code)
        return f"answer to {request}"


# A server that ends drops a call that it has just taken as CANCELLED.
LOST = [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED]


@pytest.mark.parametrize("code", LOST)
def test_a_repeatable_call_that_a_stopping_server_dropped_is_made_again(code: grpc.StatusCode) -> None:
    method: Any = Method(code)

    assert Caller("here").unary(method, "it") == "answer to it"
    assert method.calls == 2


@pytest.mark.parametrize("code", [*LOST, grpc.StatusCode.INTERNAL])
def test_what_may_have_happened_and_must_not_happen_twice_is_not(code: grpc.StatusCode) -> None:
    method: Any = Method(code)

    with pytest.raises(ApiError) as caught:
        Caller("here").unary(method, "it", is_repeatable=False)

    assert (caught.value.code, method.calls) == (code.name, 1)
