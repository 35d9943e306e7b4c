"""A server on this machine that answers as badly as a test wants, and remembers what it was asked."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

BODY = b"PK archive " * 1000

Answer = Callable[[socket.socket], None]


class Peer:
    """A server that answers each connection with `answer`, and keeps what it was asked."""

    def __init__(self, answer: Answer, context: ssl.SSLContext | None = None) -> None:
        self._answer = answer
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.requests: list[bytes] = []
        self.asked = threading.Event()
        self.left = threading.Event()
        """Set once a connection has ended."""
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._is_closed.set()
        # A closed listener does not end an accept that runs; a connection does.
        with socket.create_connection(("127.0.0.1", self.port)):
            pass
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self._is_closed.is_set():
                connection.close()
                return
            try:
                with connection:
                    self._serve(connection)
            except OSError:
                # The other side had enough; that is what most tests are about.
                continue
            finally:
                self.left.set()

    def _serve(self, plain: socket.socket) -> None:
        plain.settimeout(5)
        connection = self._context.wrap_socket(plain, server_side=True) if self._context else plain
        request = b""
        while b"\r\n\r\n" not in request and (chunk := connection.recv(65536)):
            request += chunk
        self.requests.append(request)
        self.asked.set()
        self._answer(connection)
        if self._context:
            connection.close()


@contextmanager
def peer(answer: Answer, context: ssl.SSLContext | None = None) -> Iterator[Peer]:
    running = Peer(answer, context)
    try:
        yield running
    finally:
        running.close()


def says(*parts: bytes, pause: float = 0.0, stays: bool = False) -> Answer:
    def answer(connection: socket.socket) -> None:
        for part in parts:
            connection.sendall(part)
            time.sleep(pause)
        if stays:
            # Until the other side has had enough.
            connection.recv(1)

    return answer


def ok(body: bytes = BODY, *, length: int | None = None, extra: bytes = b"") -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n" % (len(body) if length is None else length, extra)
    return head + body
