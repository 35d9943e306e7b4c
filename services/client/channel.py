"""The connection to one platform: channel options, retries of lost calls and errors with details."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

import grpc

from services.client.address import is_local
from services.client.errors import ApiError, from_rpc
from services.core.clock import Deadline
from services.core.retry import Backoff

Request = TypeVar("Request")
Response = TypeVar("Response")
Item = TypeVar("Item")

MAX_MESSAGE_BYTES = 64 * 2**20
UNARY_SECONDS = 60.0
_TRIES = 4
_NUDGE_SECONDS = 0.25
_BACKOFF = Backoff(base_seconds=0.15, cap_seconds=2.0)
# A call that reaches a server between the end of its drain and its own end is dropped as CANCELLED; nobody here cancels.
_LOST = ("UNAVAILABLE", "CANCELLED")


def open_channel(address: str, tls: grpc.ChannelCredentials | None = None) -> grpc.Channel:
    """Open a channel that comes back fast after a restart of the server; without `tls` it is a plain one."""
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        # `min_reconnect_backoff_ms` stays at its default: it also bounds how long a connection may take to come up.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 300),
        # The server allows a ping every 30 s; a stream that waits for a slow job must notice a dead link.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
    ]
    if is_local(address):
        # A proxy of the environment cannot reach this machine's own ports.
        options.append(("grpc.enable_http_proxy", 0))
    if tls is not None:
        return grpc.secure_channel(address, tls, options)
    return grpc.insecure_channel(address, options)


def wait_for_contact(channel: grpc.Channel, seconds: float) -> None:
    """Wait for `seconds`; where the connection is down, only until it is back."""
    was_down, is_back, is_idle = threading.Event(), threading.Event(), threading.Event()

    def note(state: grpc.ChannelConnectivity) -> None:
        if state is grpc.ChannelConnectivity.IDLE:
            is_idle.set()
        if state is not grpc.ChannelConnectivity.READY:
            was_down.set()
        elif was_down.is_set():
            is_back.set()

    deadline = Deadline(seconds)
    channel.subscribe(note, try_to_connect=True)
    try:
        while not is_back.wait(min(_NUDGE_SECONDS, deadline.remaining)) and not deadline.is_over:
            # A connection that ends after the first look is idle, and nobody would make it anew. Not at the last moment:
            # the channel takes note a fifth of a second later, when its owner may have closed it.
            if is_idle.is_set() and deadline.remaining > 2 * _NUDGE_SECONDS:
                is_idle.clear()
                channel.subscribe(_ignore, try_to_connect=True)
                channel.unsubscribe(_ignore)
    finally:
        channel.unsubscribe(note)


def _ignore(state: grpc.ChannelConnectivity) -> None:
    del state


class _PageRequest(Protocol):
    page_token: str


class _Page(Protocol):
    next_page_token: str


PageRequest = TypeVar("PageRequest", bound=_PageRequest)
Page = TypeVar("Page", bound=_Page)


class Caller:
    """Calls one server: transient failures of repeatable calls are tried again a few times."""

    def __init__(self, address: str, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        """`metadata` goes with every call."""
        self.address = address
        self._metadata = metadata
        self._rng = random.Random()

    def unary(
        self,
        method: grpc.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        *,
        is_repeatable: bool = True,
        timeout_seconds: float = UNARY_SECONDS,
    ) -> Response:
        """Return the reply.

        Raises:
            ApiError: the server refused, or did not answer in several tries.
        """
        retry = 0
        while True:
            try:
                return method(request, timeout=timeout_seconds, metadata=self._metadata)
            except grpc.RpcError as err:
                failure = from_rpc(err, address=self.address)
            retry += 1
            if retry >= _TRIES or not (failure.was_not_begun or (is_repeatable and failure.code in _LOST)):
                raise failure
            time.sleep(max(failure.retry_seconds, _BACKOFF.delay_seconds(retry, self._rng)))

    def pages(
        self,
        method: grpc.UnaryUnaryMultiCallable[PageRequest, Page],
        request: PageRequest,
        items: Callable[[Page], Iterable[Item]],
    ) -> Iterator[Item]:
        """Yield the items of every page; `request` is moved on from page to page."""
        while True:
            page = self.unary(method, request)
            yield from items(page)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def send(self, method: grpc.StreamUnaryMultiCallable[Request, Response], messages: Iterator[Request]) -> Response:
        """Send a stream and return the reply; not tried again."""
        try:
            return method(messages, metadata=self._metadata)
        except grpc.RpcError as err:
            raise from_rpc(err, address=self.address) from err

    def stream(self, method: grpc.UnaryStreamMultiCallable[Request, Response], request: Request) -> Iterator[Response]:
        """Yield the replies of a stream; raises ApiError where it breaks."""
        call = method(request, metadata=self._metadata)
        try:
            yield from call
        except grpc.RpcError as err:
            raise from_rpc(err, address=self.address) from err
        finally:
            call.cancel()  # type: ignore[no-untyped-call]  # the stubs leave it without types


def is_lost_contact(error: ApiError) -> bool:
    """Tell whether reconnecting may help: the server went away, not the request was wrong."""
    return error.is_transient or error.was_not_begun or error.code in ("CANCELLED", "UNKNOWN")
