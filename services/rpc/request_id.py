"""Gives every call an id that its logs, its error and its trailers share."""

from __future__ import annotations

import re
from typing import Any

from structlog.contextvars import bound_contextvars

from services.core.ids import new_id
from services.rpc.middleware import Call, Proceed

HEADER = "x-request-id"
_ACCEPTED = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RequestId:
    """Takes the caller's `x-request-id` where it is harmless, else makes one."""

    async def __call__(self, call: Call, proceed: Proceed) -> Any:
        call.request_id = _given(call) or new_id()
        call.context.set_trailing_metadata(((HEADER, call.request_id),))
        with bound_contextvars(request_id=call.request_id):
            return await proceed()


def _given(call: Call) -> str | None:
    for key, value in call.context.invocation_metadata() or ():
        if key == HEADER and isinstance(value, str) and _ACCEPTED.fullmatch(value):
            return value
    return None
