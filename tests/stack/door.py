"""A TCP port that leads to the first of some servers that answers, as the address of a service does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

Address = tuple[str, int]


class Door:
    """Carries bytes both ways; a connection lasts as long as both of its ends."""

    def __init__(self, targets: Sequence[Address], *, listen: Address = ("127.0.0.1", 0)) -> None:
        self._targets = list(targets)
        self._listener = socket.create_server(listen)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = self._reach()
            if server is None:
                client.close()
                continue
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=_carry, args=(source, sink), daemon=True).start()

    def _reach(self) -> socket.socket | None:
        for target in self._targets:
            with suppress(OSError):
                return socket.create_connection(target, timeout=5)
        return None


@contextmanager
def door(*targets: Address, listen: Address = ("127.0.0.1", 0)) -> Iterator[Door]:
    """Keep a door open for the time of the block."""
    opened = Door(targets, listen=listen)
    try:
        yield opened
    finally:
        opened.close()


def _carry(source: socket.socket, sink: socket.socket) -> None:
    source.settimeout(None)
    with suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
