"""The limits of the server itself: rates, streams, sizes and connections, each met by a caller who means no good."""

from __future__ import annotations

import asyncio
import struct
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from services.client.channel import Caller
from services.rpc.limits import ServerLimits
from services.rpc.server import Server
from tests.integration.api.failures import Refusal, refused
from tests.stack import http2
from tests.stack.queues import send_queues

ECHO, FOREVER, FLOOD, COLLECT = (f"/test.Limits/{name}" for name in ("Echo", "Forever", "Flood", "Collect"))
CODE = grpc.StatusCode


class Behaviours:
    """A service whose methods do one thing each."""

    def __init__(self) -> None:
        self.written = 0
        self.ended = threading.Event()

    async def echo(self, request: bytes, context: Any) -> bytes:
        return request

    async def forever(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"begun"
        await asyncio.Event().wait()

    async def flood(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(64 * 1024)
                self.written += 64 * 1024
        finally:
            self.ended.set()

    async def collect(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        return b"".join([request async for request in requests])

    def handlers(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            "test.Limits",
            {
                "Echo": grpc.unary_unary_rpc_method_handler(self.echo),
                "Forever": grpc.unary_stream_rpc_method_handler(self.forever),
                "Flood": grpc.unary_stream_rpc_method_handler(self.flood),
                "Collect": grpc.stream_unary_rpc_method_handler(self.collect),
            },
        )


@dataclass
class Running:
    """A server under certain limits."""

    port: int
    behaviours: Behaviours
    channel: grpc.Channel

    def echo(self, body: bytes = b"x", **options: Any) -> bytes:
        reply: bytes = self.channel.unary_unary(ECHO)(body, timeout=10, **options)
        return reply

    def echo_later(self) -> Any:
        return self.channel.unary_unary(ECHO).future(b"x", timeout=30)

    def stream(self, path: str = FOREVER, **options: Any) -> Any:
        return self.channel.unary_stream(path)(b"", **options)


@contextmanager
def serving(**limits: Any) -> Iterator[Running]:
    behaviours, started = Behaviours(), threading.Event()
    found: dict[str, Any] = {}

    async def serve() -> None:
        server = Server(ServerLimits(**limits), guards=())
        server.grpc.add_generic_rpc_handlers((behaviours.handlers(),))
        server.describe(())
        found.update(port=await server.start("127.0.0.1", 0), loop=asyncio.get_running_loop(), stop=asyncio.Event())
        started.set()
        await found["stop"].wait()
        await server.drain(0)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(10)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{found['port']}") as channel:
            yield Running(found["port"], behaviours, channel)
    finally:
        found["loop"].call_soon_threadsafe(found["stop"].set)
        thread.join()


def bearer(token: str) -> dict[str, Any]:
    return {"metadata": (("authorization", f"Bearer {token}"),)}


def test_calls_above_the_rate_are_refused_and_told_when_to_come_back() -> None:
    with serving(calls_per_second=0.05, burst_seconds=60, rate_patience_seconds=0.2) as server:
        for _ in range(3):
            server.echo()

        begin = time.monotonic()
        refusal = refused(server.echo)
        seconds = time.monotonic() - begin

    assert (refusal.code, refusal.reason) == (CODE.RESOURCE_EXHAUSTED, "RATE_LIMITED")
    delay = refusal.detail(error_details_pb2.RetryInfo).retry_delay
    assert 10 < delay.seconds + delay.nanos / 1e9 <= 20
    assert seconds >= 0.2, "whoever is refused at once calls again at once"


def test_calls_a_little_above_the_rate_wait_for_their_turn() -> None:
    with serving(calls_per_second=20, burst_seconds=0.05, rate_patience_seconds=5) as server:
        begin = time.monotonic()
        pending = [server.echo_later() for _ in range(11)]

        answers = {one.result() for one in pending}
        seconds = time.monotonic() - begin

    assert answers == {b"x"}
    assert seconds >= 0.5


def test_more_refused_calls_than_may_wait_hear_it_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.rpc.rate.MAX_HELD", 4)
    with serving(calls_per_second=0.001, burst_seconds=1, rate_patience_seconds=60) as server:
        server.echo()
        pending = [server.echo_later() for _ in range(10)]

        assert _eventually(lambda: sum(one.done() for one in pending) == 6)
        at_once = [one for one in pending if one.done()]
        assert {one.code() for one in at_once} == {CODE.RESOURCE_EXHAUSTED}
        # The next call is there 1000 s after the first, and these waited for none of them.
        assert all(_retry_seconds(one) > 980 for one in at_once)
        for one in pending:
            one.cancel()


def _retry_seconds(call: Any) -> float:
    status = rpc_status.from_call(call)
    delay = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(delay) for detail in status.details)
    return delay.retry_delay.seconds + delay.retry_delay.nanos / 1e9


def test_our_client_waits_as_long_as_it_is_told_even_for_calls_it_would_not_repeat() -> None:
    with serving(calls_per_second=4, burst_seconds=0.25, rate_patience_seconds=0.05) as server:
        caller = Caller(f"127.0.0.1:{server.port}")
        method = server.channel.unary_unary(ECHO)

        answers = [caller.unary(method, bytes([number]), is_repeatable=False) for number in range(3)]

    assert answers == [b"\0", b"\1", b"\2"]


def test_made_up_tokens_do_not_help_against_the_rate_of_an_address() -> None:
    limits = {"calls_per_second": 0.5, "burst_seconds": 2, "callers_per_address": 3.0, "rate_patience_seconds": 0.0}
    with serving(**limits) as server:
        for number in range(3):
            server.echo(**bearer(f"made-up-{number}"))

        assert refused(lambda: server.echo(**bearer("another"))).reason == "RATE_LIMITED"


def test_health_checks_are_answered_whatever_the_rate() -> None:
    with serving(calls_per_second=0.5, burst_seconds=2, rate_patience_seconds=0.1) as server:
        server.echo()
        refused(server.echo)

        answers = [
            health_pb2_grpc.HealthStub(server.channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
            for _ in range(20)
        ]

    assert {answer.status for answer in answers} == {health_pb2.HealthCheckResponse.SERVING}


def test_streams_of_a_caller_are_counted_and_given_back() -> None:
    with serving(streams_per_caller=2) as server:
        first, second = server.stream(), server.stream()
        assert next(first) == next(second) == b"begun"

        refusal = refused(lambda: next(server.stream()))
        assert (refusal.code, refusal.reason) == (CODE.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED")
        assert server.echo() == b"x"

        first.cancel()
        assert _eventually(lambda: next(server.stream()) == b"begun")


def test_streams_of_all_callers_together_are_bounded_so_that_calls_are_answered() -> None:
    with serving(streams=3, streams_per_caller=100) as server:
        held = [server.stream(**bearer(str(number))) for number in range(3)]
        assert [next(stream) for stream in held] == [b"begun"] * 3

        assert "on this server" in refused(lambda: next(server.stream())).message
        assert server.echo() == b"x"


def test_a_stream_ends_when_its_time_is_up_and_says_so() -> None:
    with serving(stream_seconds=0.3) as server:
        stream = server.stream()
        assert next(stream) == b"begun"

        refusal = refused(lambda: next(stream))

    assert (refusal.code, refusal.reason) == (CODE.UNAVAILABLE, "STREAM_ENDED")


def test_a_reader_that_takes_nothing_is_sent_away() -> None:
    with serving(write_patience_seconds=0.3) as server:
        stream = server.stream(FLOOD)
        next(stream)

        assert server.behaviours.ended.wait(10)
        assert server.behaviours.written < 64 * 2**20
        assert server.echo() == b"x"
        with pytest.raises(grpc.RpcError) as caught:
            list(stream)

    assert Refusal(caught.value).reason == "READER_TOO_SLOW"


def test_the_kernel_keeps_little_for_a_reader_with_open_windows_that_takes_nothing() -> None:
    with serving() as server, http2.RawConnection("127.0.0.1", server.port) as raw:
        raw.send(http2.SETTINGS, 0, 0, struct.pack(">HI", http2.INITIAL_WINDOW_SIZE, 2**31 - 1))
        raw.send(http2.WINDOW_UPDATE, 0, 0, (2**31 - 65_536).to_bytes(4, "big"))
        raw.call(1, FLOOD)
        end = time.monotonic() + 30
        while not server.behaviours.written and time.monotonic() < end:
            time.sleep(0.05)
        before = -1
        while server.behaviours.written > before:
            before = server.behaviours.written
            time.sleep(0.5)

        (queued,) = send_queues(server.port)

    assert 0 < queued <= 2 * ServerLimits().send_queue_bytes


def test_a_message_above_the_limit_is_refused_in_both_kinds_of_calls() -> None:
    with serving(message_bytes=1000) as server:
        collect = server.channel.stream_unary(COLLECT)

        assert server.echo(b"x" * 900) == b"x" * 900
        for call in (lambda: server.echo(b"x" * 1100), lambda: collect(iter([b"x", b"x" * 1100]), timeout=5)):
            with pytest.raises(grpc.RpcError) as caught:
                call()
            assert caught.value.code() is CODE.RESOURCE_EXHAUSTED


def test_a_compressed_message_is_measured_by_what_it_unpacks_to() -> None:
    with serving(message_bytes=100_000) as server, pytest.raises(grpc.RpcError) as caught:
        server.echo(bytes(200_000), compression=grpc.Compression.Gzip)

    assert caught.value.code() is CODE.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("size", [20_000, 200_000])
def test_metadata_above_the_limit_is_refused(size: int) -> None:
    with serving() as server:
        with pytest.raises(grpc.RpcError) as caught:
            server.echo(metadata=(("x-large", "y" * size),))

        assert caught.value.code() in (CODE.RESOURCE_EXHAUSTED, CODE.UNAVAILABLE, CODE.INTERNAL)
        assert server.echo(metadata=(("x-small", "y" * 1000),)) == b"x"


def test_a_connection_may_hold_only_so_many_streams() -> None:
    with serving(streams_per_connection=3) as server, http2.RawConnection("127.0.0.1", server.port) as raw:
        assert raw.setting(http2.MAX_CONCURRENT_STREAMS) == 3

        for number in range(6):
            raw.call(2 * number + 1, FOREVER)
        refusals = [frame.stream for frame in _until(raw, http2.RST_STREAM, count=3)]

    assert len(refusals) == 3


def test_a_connection_that_pings_without_end_is_closed() -> None:
    with serving(min_ping_interval_ms=1000) as server, http2.RawConnection("127.0.0.1", server.port) as raw:
        raw.send_at_once(http2.PING, (number.to_bytes(8, "big") for number in range(10)))
        goaway = next(frame for frame in raw.frames() if frame.kind == http2.GOAWAY)

        assert b"too_many_pings" in goaway.body
        assert server.echo() == b"x"


def test_a_client_that_pings_as_often_as_it_is_told_stays_connected() -> None:
    with serving(min_ping_interval_ms=50) as server, http2.RawConnection("127.0.0.1", server.port) as raw:
        raw.call(1, FOREVER)
        for number in range(12):
            raw.send(http2.PING, 0, 0, number.to_bytes(8, "big"))
            answer = next(frame for frame in raw.frames() if _answers_a_ping(frame))
            assert answer.kind == http2.PING
            # The time between two pings is the matter of this test.
            time.sleep(0.1)


def test_streams_opened_and_cancelled_in_a_rush_leave_nothing_open() -> None:
    with serving(streams=50, streams_per_caller=50) as server:
        with http2.RawConnection("127.0.0.1", server.port) as raw:
            for number in range(2000):
                raw.call(2 * number + 1, FOREVER)
                raw.send(http2.RST_STREAM, 0, 2 * number + 1, (8).to_bytes(4, "big"))
            assert server.echo() == b"x"

        assert _eventually(lambda: next(server.stream()) == b"begun")


def test_a_method_that_nobody_wrote_is_not_a_fault_of_the_server() -> None:
    with serving() as server:
        refusal = refused(lambda: health_pb2_grpc.HealthStub(server.channel).List(health_pb2.HealthListRequest()))

    assert (refusal.code, refusal.reason) == (CODE.UNIMPLEMENTED, "NOT_SERVED")


def _answers_a_ping(frame: http2.Frame) -> bool:
    return frame.kind == http2.GOAWAY or (frame.kind == http2.PING and bool(frame.flags & http2.ACK))


def _until(raw: http2.RawConnection, kind: int, *, count: int) -> list[http2.Frame]:
    found: list[http2.Frame] = []
    for frame in raw.frames():
        if frame.kind == kind:
            found.append(frame)
        if len(found) == count:
            break
    return found


def _eventually(condition: Any, seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(grpc.RpcError):
            if condition():
                return True
        time.sleep(0.02)
    return False
