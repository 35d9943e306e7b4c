"""Just enough HTTP/2 to misbehave: frames by hand over a socket, as no client library would send them."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0x0, 0x1, 0x3, 0x4, 0x6, 0x7, 0x8
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1
MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 0x3, 0x4
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as it came."""

    kind: int
    flags: int
    stream: int
    body: bytes


class RawConnection:
    """A connection after its preface; the server's frames are read when asked for."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), timeout=10)
        self._socket.sendall(_PREFACE + _frame(SETTINGS, 0, 0, b""))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, kind: int, flags: int, stream: int, body: bytes = b"") -> None:
        self._socket.sendall(_frame(kind, flags, stream, body))

    def send_at_once(self, kind: int, bodies: Iterable[bytes]) -> None:
        """Send frames of the connection in one write: the other side cannot close between two of them."""
        self._socket.sendall(b"".join(_frame(kind, 0, 0, body) for body in bodies))

    def call(self, stream: int, path: str, message: bytes = b"", *, more: Sequence[tuple[str, str]] = ()) -> None:
        """Begin a call and send its one request."""
        fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "server"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            *more,
        ]
        self.send(HEADERS, END_HEADERS, stream, b"".join(_literal(name, value) for name, value in fields))
        self.send(DATA, END_STREAM, stream, struct.pack(">BI", 0, len(message)) + message)

    def frames(self) -> Iterator[Frame]:
        """Yield frames until the server closes the connection or is silent for 10 s."""
        while True:
            try:
                head = self._exactly(9)
            except (EOFError, ConnectionError):
                return
            length = int.from_bytes(head[:3], "big")
            yield Frame(head[3], head[4], int.from_bytes(head[5:], "big") & 0x7FFFFFFF, self._exactly(length))

    def setting(self, number: int) -> int:
        """Return a value of the server's first settings."""
        for frame in self.frames():
            if frame.kind == SETTINGS and not frame.flags & ACK:
                pairs = (struct.unpack(">HI", frame.body[at : at + 6]) for at in range(0, len(frame.body), 6))
                return dict(pairs)[number]
        raise AssertionError("the server sent no settings")

    def _exactly(self, count: int) -> bytes:
        body = b""
        while len(body) < count:
            chunk = self._socket.recv(count - len(body))
            if not chunk:
                raise EOFError
            body += chunk
        return body


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


def _literal(name: str, value: str) -> bytes:
    """Return a header field that no table remembers."""
    return b"\x00" + _text(name) + _text(value)


def _text(text: str) -> bytes:
    raw = text.encode()
    return _integer(len(raw)) + raw


def _integer(value: int) -> bytes:
    """Return an integer with a prefix of 7 bits (RFC 7541, section 5.1)."""
    if value < 127:
        return bytes([value])
    out, value = [127], value - 127
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes([*out, value])
