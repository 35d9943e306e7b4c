"""Connections of the client: over a long distance, and back after the server was away."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from services.client.channel import open_channel, wait_for_contact
from tests.stack.ports import free_port

DELAY_SECONDS = 0.5
"""Each way: as by satellite, and more than a restarted server is given between two tries."""


@contextmanager
def serving(port: int = 0) -> Iterator[int]:
    server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
    health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield bound
    finally:
        server.stop(0).wait()


@dataclass
class Distance:
    """A way to `port` on which every byte is late."""

    port: int
    entry: int = 0
    is_open: threading.Event = field(default_factory=threading.Event)
    _loop: asyncio.AbstractEventLoop | None = None
    _is_over: asyncio.Event | None = None

    async def run(self) -> None:
        self._loop, self._is_over = asyncio.get_running_loop(), asyncio.Event()
        async with await asyncio.start_server(self._connect, "127.0.0.1", 0) as server:
            self.entry = server.sockets[0].getsockname()[1]
            self.is_open.set()
            await self._is_over.wait()

    def close(self) -> None:
        assert self._loop is not None
        assert self._is_over is not None
        self._loop.call_soon_threadsafe(self._is_over.set)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.port)
        async with asyncio.TaskGroup() as both:
            both.create_task(self._pump(reader, far_writer))
            both.create_task(self._pump(far_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(2**16):
                asyncio.get_running_loop().call_later(DELAY_SECONDS, writer.write, data)
        finally:
            writer.close()


@contextmanager
def far_away(port: int) -> Iterator[int]:
    distance = Distance(port)
    thread = threading.Thread(target=lambda: asyncio.run(distance.run()))
    thread.start()
    assert distance.is_open.wait(20)
    try:
        yield distance.entry
    finally:
        distance.close()
        thread.join()


def status(channel: grpc.Channel) -> int:
    answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60, wait_for_ready=True)
    return int(answer.status)


def test_a_server_far_away_is_reached() -> None:
    with serving() as port, far_away(port) as distant, open_channel(f"127.0.0.1:{distant}") as channel:
        assert status(channel) == health_pb2.HealthCheckResponse.SERVING


def test_waiting_for_contact_ends_when_the_server_is_back() -> None:
    port = free_port()
    with open_channel(f"127.0.0.1:{port}") as channel:
        with serving(port):
            status(channel)
        started = time.monotonic()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(wait_for_contact, channel, 120.0)
            time.sleep(0.3)
            assert not waiting.done()
            with serving(port):
                waiting.result(timeout=60)
        assert time.monotonic() - started < 60


def test_waiting_for_contact_outlives_a_server_that_goes_while_it_waits() -> None:
    port = free_port()
    with open_channel(f"127.0.0.1:{port}") as channel, ThreadPoolExecutor(1) as pool:
        with serving(port):
            status(channel)
            waiting = pool.submit(wait_for_contact, channel, 60.0)
            time.sleep(0.3)
        time.sleep(0.3)
        assert not waiting.done()
        started = time.monotonic()
        with serving(port):
            waiting.result(timeout=90)
    assert time.monotonic() - started < 50


@pytest.mark.parametrize("is_up", [True, False])
def test_waiting_for_contact_is_no_longer_than_asked(is_up: bool) -> None:
    port = free_port()
    with open_channel(f"127.0.0.1:{port}") as channel:
        with serving(port):
            status(channel)
            if is_up:
                started = time.monotonic()
                wait_for_contact(channel, 0.3)
                # A server that answers is given the time in full: it asked for it.
                assert time.monotonic() - started >= 0.3
        if not is_up:
            wait_for_contact(channel, 0.3)
