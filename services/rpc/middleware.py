"""What surrounds every call, of any kind and of any service: a chain of small middlewares.

One interceptor holds the chain and wraps each method once. A streaming handler becomes a coroutine that
writes to the context, so that a middleware is the same for all kinds of calls.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from services.core.errors import RequestInvalid, Violation
from services.rpc.patience import Patience
from services.rpc.texts import nul_field

Context = grpc.aio.ServicerContext[Any, Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Proceed = Callable[[], Awaitable[Any]]
Behaviour = Callable[[Any, Context], Any]


@dataclass(slots=True)
class Call:
    """One call on its way through the chain."""

    method: str
    """`/package.Service/Method`; one of the served methods, so a bounded label."""
    is_unary: bool
    """One request and one response."""
    context: Context
    request: Any
    """The message, or the stream of them; a middleware may put another in its place."""
    request_id: str = ""


class Middleware(Protocol):
    """One concern around every call."""

    async def __call__(self, call: Call, proceed: Proceed) -> Any:
        """Await `proceed` once and return what it returns, or raise."""


class Chain(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Runs every call through the middlewares, the first of them outermost."""

    def __init__(self, middlewares: Sequence[Middleware], *, write_patience_seconds: float = 60.0) -> None:
        self._middlewares = tuple(reversed(middlewares))
        self._write_patience = write_patience_seconds
        self._wrapped: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None:
                # Not a served method: gRPC answers UNIMPLEMENTED, and nothing is remembered.
                return handler  # type: ignore[return-value]
            wrapped = self._wrapped[method] = self._wrap(method, handler)
        return wrapped

    def _wrap(self, method: str, handler: Handler) -> Handler:
        parse = handler.request_deserializer
        codec = {
            "request_deserializer": partial(_parse, parse) if parse is not None else None,
            "response_serializer": handler.response_serializer,
        }
        if handler.request_streaming and handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(self._streaming(method, handler.stream_stream), **codec)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(self._streaming(method, handler.unary_stream), **codec)
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(self._single(method, handler.stream_unary, False), **codec)
        return grpc.unary_unary_rpc_method_handler(self._single(method, handler.unary_unary, True), **codec)

    def _single(self, method: str, behaviour: Any, is_unary: bool) -> Any:
        async def handle(request: Any, context: Context) -> Any:
            call = Call(method, is_unary, context, _checked_any(request))
            return await self._run(call, partial(_answer, behaviour, call))

        return handle

    def _streaming(self, method: str, behaviour: Any) -> Any:
        async def handle(request: Any, context: Context) -> None:
            call = Call(method, False, context, _checked_any(request))
            await self._run(call, partial(_pump, behaviour, call, self._write_patience))

        return handle

    async def _run(self, call: Call, proceed: Proceed) -> Any:
        for middleware in self._middlewares:
            proceed = partial(middleware, call, proceed)
        return await proceed()


@dataclass(frozen=True, slots=True)
class _Malformed:
    """Stands for a message that is refused, until the chain can do so."""

    refusal: RequestInvalid


def _parse(parse: Callable[[bytes], Any], data: bytes) -> Any:
    # An exception here would leave gRPC as UNKNOWN, past every middleware.
    try:
        request = parse(data)
    except DecodeError:
        return _Malformed(RequestInvalid("the request is not a message of this method"))
    # Most requests hold no zero byte, and are not looked through.
    if b"\0" in data and isinstance(request, Message) and (field := nul_field(request)) is not None:
        return _Malformed(RequestInvalid(violations=[Violation(field, "holds a NUL character; leave it out")]))
    return request


def _checked(request: Any) -> Any:
    if isinstance(request, _Malformed):
        raise request.refusal
    return request


async def _checked_stream(requests: AsyncIterable[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _checked(request)


def _checked_any(request: Any) -> Any:
    return _checked_stream(request) if isinstance(request, AsyncIterable) else request


async def _answer(behaviour: Behaviour, call: Call) -> Any:
    return await behaviour(_checked(call.request), call.context)


async def _pump(behaviour: Behaviour, call: Call, patience_seconds: float) -> None:
    responses = behaviour(_checked(call.request), call.context)
    if inspect.isawaitable(responses):
        await responses
        return
    try:
        async with Patience(patience_seconds) as patience:
            async for response in responses:
                patience.begin()
                await call.context.write(response)
                patience.end()
    finally:
        # A client that went away raises out of `write`; the generator must still run its own `finally`.
        await responses.aclose()
