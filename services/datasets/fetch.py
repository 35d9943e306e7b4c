"""Fetches a dataset's archive from an address, with every hop checked and every length, time and count bounded.

Blocking; runs in a thread. The server that answers is a stranger like the one who named it: what it
announces is compared with what it sends, and it is given no cookie, no credential and no second of more.
"""

from __future__ import annotations

import hashlib
import http.client
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urljoin

import structlog

from services.core.errors import LimitExceeded, RequestInvalid, SourceUnavailable, Violation
from services.core.units import human_bytes
from services.datasets.address import FIELD, Guard, Target, refused
from services.datasets.room import check_room, no_room

log = structlog.get_logger(__name__)

_CHUNK_BYTES = 1 << 20
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_OK = 200
_HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity", "Connection": "close", "User-Agent": "trainyard"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchLimits:
    """Bounds of one fetch."""

    max_bytes: int = 20 * 2**30
    max_redirects: int = 5
    idle_seconds: float = 30.0
    """Longest silence of the other side."""
    head_seconds: float = 30.0
    """For connecting, the handshake and the headers, at every hop."""
    total_seconds: float = 1800.0
    """For the body."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A whole archive on this machine."""

    path: Path
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Fetcher:
    """Fetches over checked targets only. Threads may share it."""

    guard: Guard
    limits: FetchLimits = FetchLimits()
    tls: ssl.SSLContext = field(default_factory=ssl.create_default_context)

    def fetch(self, url: str, path: Path, *, sha256: str = "", abandoned: threading.Event | None = None) -> Fetched:
        """Write what `url` holds to `path`; `abandoned` ends it early.

        Raises:
            RequestInvalid: the address, or one it redirects to, may not be fetched, or the digest is another.
            SourceUnavailable: the other side does not answer, or not with the whole archive.
            LimitExceeded: the archive is too large, or this machine has no room for it.
        """
        with self._response(url) as (response, watch):
            expected = self._length(response)
            self._check_size(expected or 0)
            check_room(path.parent, needed_bytes=expected or 0)
            watch.restart(self.limits.total_seconds)
            fetched = self._copy(response, path, expected, abandoned or threading.Event())
        if watch.has_barked or (expected is not None and fetched.size_bytes != expected):
            raise _unavailable(f"ended after {fetched.size_bytes} of {expected or 'unknown'} bytes")
        if sha256 and sha256.lower() != fetched.sha256:
            text = f"does not match what was fetched, whose digest is {fetched.sha256}"
            raise RequestInvalid(violations=[Violation("header.sha256", text)])
        return fetched

    @contextmanager
    def _response(self, url: str) -> Iterator[tuple[http.client.HTTPResponse, _Watchdog]]:
        """Follow redirects, each checked like the first address, to an answer with a body."""
        for _ in range(self.limits.max_redirects + 1):
            target = self.guard.check(url)
            with self._asked(target) as (response, watch):
                if response.status == _OK:
                    yield response, watch
                    return
                if response.status not in _REDIRECTS:
                    raise _unavailable(f"answered with status {response.status}")
                location = response.getheader("Location") or ""
            # A fragment never leaves the asking side.
            url = urljoin(url, location).partition("#")[0]
        raise refused(f"redirects more than {self.limits.max_redirects} times")

    @contextmanager
    def _asked(self, target: Target) -> Iterator[tuple[http.client.HTTPResponse, _Watchdog]]:
        """Send one request to a checked address, and close everything afterwards."""
        connection = http.client.HTTPConnection(target.host)
        connection.auto_open = 0
        watch = _Watchdog()
        try:
            with watch.watching(self.limits.head_seconds):
                connection.sock = self._connect(target, watch)
                connection.putrequest("GET", target.request, skip_host=True, skip_accept_encoding=True)
                for name, value in {"Host": target.host_header, **_HEADERS}.items():
                    connection.putheader(name, value)
                connection.endheaders()
                with connection.getresponse() as response:
                    yield response, watch
        except (OSError, http.client.HTTPException) as err:
            log.info("dataset_fetch_failed", host=target.host, error=type(err).__name__)
            raise _unavailable("did not answer in time" if watch.has_barked else _said(err)) from err
        finally:
            connection.close()

    def _connect(self, target: Target, watch: _Watchdog) -> socket.socket:
        limits = self.limits
        patience = min(limits.idle_seconds, limits.head_seconds)
        plain = socket.create_connection((target.address, target.port), timeout=patience)
        watch.socket = plain
        if target.scheme != "https":
            return plain
        # Closes the plain socket by itself where it cannot take it over.
        secure = self.tls.wrap_socket(plain, server_hostname=target.host.rstrip("."), do_handshake_on_connect=False)
        watch.socket = secure
        try:
            secure.do_handshake()
        except BaseException:
            secure.close()
            raise
        return secure

    def _length(self, response: http.client.HTTPResponse) -> int | None:
        """Return the announced length; None where the body ends by itself, in chunks."""
        coding = (response.getheader("Content-Encoding") or "identity").strip().lower()
        if coding != "identity":
            raise _unavailable(f"sends it encoded as {coding[:40]}, which was not asked for")
        return response.length

    def _copy(
        self, response: http.client.HTTPResponse, path: Path, expected: int | None, abandoned: threading.Event
    ) -> Fetched:
        digest, size = hashlib.sha256(), 0
        with path.open("wb") as target:
            # What has come, not what was asked for: a drip of bytes must show in the count. More than the
            # other side announced is not read.
            while expected is None or size < expected:
                chunk = response.read1(_CHUNK_BYTES if expected is None else min(_CHUNK_BYTES, expected - size))
                if not chunk:
                    break
                if abandoned.is_set():
                    raise SourceUnavailable("the caller left")
                size += len(chunk)
                self._check_size(size)
                check_room(path.parent)
                digest.update(chunk)
                _write(target, chunk, path)
        return Fetched(path, digest.hexdigest(), size)

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self.limits.max_bytes:
            limit = human_bytes(self.limits.max_bytes)
            raise LimitExceeded(f"the archive has more than {limit}, which is what this server takes")


class _Watchdog:
    """Shuts a socket down when time is up, whatever a thread is doing with it, such as reading a header bit by bit."""

    def __init__(self) -> None:
        self.socket: socket.socket | None = None
        self.has_barked = False
        self._timer: threading.Timer | None = None

    @contextmanager
    def watching(self, seconds: float) -> Iterator[None]:
        self.restart(seconds)
        try:
            yield
        finally:
            self._stop()

    def restart(self, seconds: float) -> None:
        self._stop()
        self._timer = threading.Timer(seconds, self._bark)
        self._timer.daemon = True
        self._timer.start()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _bark(self) -> None:
        self.has_barked = True
        if self.socket is not None:
            with suppress(OSError):
                # The plain socket's: that of a TLS socket also takes its session away from under the reader.
                socket.socket.shutdown(self.socket, socket.SHUT_RDWR)


def _write(target: BinaryIO, chunk: bytes, path: Path) -> None:
    try:
        target.write(chunk)
    except OSError as err:
        # This machine's fault, not the other side's.
        raise no_room(path.parent) from err


def digest_of_request(url: str, sha256: str) -> str:
    """Return what makes two requests for an address the same, whatever it holds at the time."""
    return hashlib.sha256(f"{url}\n{sha256.lower()}".encode()).hexdigest()


def _unavailable(what: str) -> SourceUnavailable:
    return SourceUnavailable(f"{FIELD}: the other side {what}")


def _said(err: Exception) -> str:
    if isinstance(err, TimeoutError):
        return "did not answer in time"
    if isinstance(err, ssl.SSLCertVerificationError):
        return "has no certificate that this server trusts"
    if isinstance(err, http.client.HTTPException | ssl.SSLError):
        return "does not speak HTTP as it should"
    return f"cannot be reached ({getattr(err, 'strerror', None) or type(err).__name__})"
