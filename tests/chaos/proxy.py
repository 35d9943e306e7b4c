"""A TCP proxy whose connections can be slowed, held, or cut at a moment that depends on what passes."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_CHUNK = 1 << 16
_ACCEPT_SECONDS = 0.2

Watch = Callable[[bytes], bool]
"""Given what a client sends; True asks to cut this connection once the server has answered."""


class Proxy:
    """Forwards 127.0.0.1:`port` to a target; its fields may be changed at any time."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.bytes_per_second = 0
        """What clients may send on each connection; 0: as much as they like."""
        self.is_holding = False
        """Whether nothing passes, though connections stay open."""
        self.watch: Watch | None = None
        self.cuts = 0
        self.sent = 0
        """Bytes clients have sent in all."""
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(_ACCEPT_SECONDS)
        self.port = int(self._listener.getsockname()[1])
        self._is_closed = threading.Event()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._is_closed.set()
        self._listener.close()

    def _accept(self) -> None:
        while not self._is_closed.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            try:
                server = socket.create_connection(self._target, timeout=5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            link = _Link(self, client, server)
            threading.Thread(target=link.upstream, daemon=True).start()
            threading.Thread(target=link.downstream, daemon=True).start()

    def count(self, sent: int) -> None:
        with self._lock:
            self.sent += sent

    def count_cut(self) -> None:
        with self._lock:
            self.cuts += 1

    def wait_while_holding(self) -> None:
        while self.is_holding and not self._is_closed.is_set():
            time.sleep(0.01)


class _Link:
    """One client's connection and its twin to the server."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._is_doomed = False

    def upstream(self) -> None:
        with suppress(OSError):
            while data := self._client.recv(self._size()):
                self._proxy.wait_while_holding()
                if self._proxy.watch is not None and self._proxy.watch(data):
                    self._is_doomed = True
                self._server.sendall(data)
                self._proxy.count(len(data))
                if self._proxy.bytes_per_second:
                    time.sleep(len(data) / self._proxy.bytes_per_second)
        self._end()

    def downstream(self) -> None:
        with suppress(OSError):
            while data := self._server.recv(_CHUNK):
                if self._is_doomed:
                    # The server has done what it was asked; the client will never hear of it.
                    self._proxy.count_cut()
                    break
                self._proxy.wait_while_holding()
                self._client.sendall(data)
        self._end()

    def _size(self) -> int:
        slow = self._proxy.bytes_per_second
        return max(1024, min(_CHUNK, slow // 20)) if slow else _CHUNK

    def _end(self) -> None:
        for one in (self._client, self._server):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@contextmanager
def proxy_to(target: tuple[str, int]) -> Iterator[Proxy]:
    """Run a proxy for the time of the block."""
    proxy = Proxy(target)
    try:
        yield proxy
    finally:
        proxy.close()
