"""Fetching an archive from servers on this machine that do everything wrong a server can do."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import socket
import ssl
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import trustme

from services.core.errors import LimitExceeded, PlatformError, RequestInvalid, SourceUnavailable
from services.datasets.address import Guard
from services.datasets.fetch import Fetcher, FetchLimits
from tests.integration.hostile.peer import BODY, Answer, Peer, ok, peer, says

LIMITS = FetchLimits(max_bytes=64 * 1024, idle_seconds=30, head_seconds=30, total_seconds=30)
IMPATIENT = replace(LIMITS, idle_seconds=0.4, head_seconds=0.6, total_seconds=0.8)


def redirect(location: str) -> bytes:
    return b"HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % location.encode()


def chunked(*parts: bytes) -> bytes:
    coded = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + coded + b"0\r\n\r\n"


def fetcher(*trusted: str, limits: FetchLimits = LIMITS, tls: ssl.SSLContext | None = None) -> Fetcher:
    return Fetcher(Guard(frozenset(trusted)), limits, tls or ssl.create_default_context())


def fetch(running: Peer, path: Path, *, limits: FetchLimits = LIMITS, **options: str) -> bytes:
    fetched = fetcher("127.0.0.1", limits=limits).fetch(
        f"http://127.0.0.1:{running.port}/a.zip?key=1", path / "got", **options
    )
    assert fetched.sha256 == hashlib.sha256(fetched.path.read_bytes()).hexdigest()
    assert fetched.size_bytes == fetched.path.stat().st_size
    return fetched.path.read_bytes()


def test_a_trusted_host_is_asked_once_with_nothing_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")

    with peer(says(ok())) as running:
        assert fetch(running, tmp_path) == BODY

    (request,) = running.requests
    lines = request.decode().split("\r\n")
    assert lines[0] == "GET /a.zip?key=1 HTTP/1.1"
    assert f"Host: 127.0.0.1:{running.port}" in lines
    names = {line.partition(":")[0].lower() for line in lines[1:] if line}
    assert names == {"host", "accept", "accept-encoding", "connection", "user-agent"}


def test_the_connection_goes_to_the_address_that_was_checked_and_asks_for_the_name(tmp_path: Path) -> None:
    with peer(says(ok())) as running:
        asked: list[str] = []

        def resolve(host: str, port: int) -> list[str]:
            asked.append(host)
            return ["127.0.0.1"]

        guard = Guard(frozenset({f"archive.example:{running.port}"}), resolve)
        Fetcher(guard, LIMITS).fetch(f"http://archive.example:{running.port}/a", tmp_path / "got")

    assert asked == ["archive.example"]
    assert f"Host: archive.example:{running.port}\r\n".encode() in running.requests[0]


def test_the_same_server_gets_no_packet_where_nobody_trusts_it(tmp_path: Path) -> None:
    with peer(says(ok())) as running, pytest.raises(RequestInvalid):
        fetcher().fetch(f"http://127.0.0.1:{running.port}/a.zip", tmp_path / "got")

    assert running.requests == []


def test_an_archive_whose_announced_length_does_not_fit_is_refused_with_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**30))

    with peer(says(ok(length=2048))) as running, pytest.raises(LimitExceeded) as caught:
        fetch(running, tmp_path)

    assert "it needs 2.0 KiB and 1.0 GiB to spare, and 1.0 GiB are free" in str(caught.value)


@pytest.mark.parametrize("answer", [chunked(BODY[:100], BODY[100:]), b"HTTP/1.0 200 OK\r\n\r\n" + BODY])
def test_a_body_without_a_length_is_taken_to_its_end(tmp_path: Path, answer: bytes) -> None:
    with peer(says(answer)) as running:
        assert fetch(running, tmp_path) == BODY


def test_a_digest_that_was_asked_for_is_held_against_the_bytes(tmp_path: Path) -> None:
    digest = hashlib.sha256(BODY).hexdigest()

    with peer(says(ok())) as running:
        assert fetch(running, tmp_path, sha256=digest.upper()) == BODY
        with pytest.raises(RequestInvalid, match="digest"):
            fetch(running, tmp_path, sha256="0" * 64)


@pytest.mark.parametrize(
    ("answer", "error", "why"),
    [
        pytest.param(says(ok(length=10**6)), LimitExceeded, "more than", id="an announced length above the limit"),
        pytest.param(says(ok(BODY * 10, length=5)), None, "", id="more bytes than announced"),
        pytest.param(says(ok(BODY, length=len(BODY) + 1)), SourceUnavailable, "ended after", id="a byte too few"),
        pytest.param(says(chunked(*[b"x" * 9000] * 10)), LimitExceeded, "more than", id="chunks above the limit"),
        pytest.param(
            says(b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 10**6), LimitExceeded, "more than", id="a body that does not end"
        ),
        pytest.param(
            says(ok(gzip.compress(bytes(10**6)), extra=b"Content-Encoding: gzip\r\n")),
            SourceUnavailable,
            "encoded as gzip",
            id="a compression bomb",
        ),
        pytest.param(says(b"HTTP/1.1 404 Not Found\r\n\r\n"), SourceUnavailable, "status 404", id="not there"),
        pytest.param(says(b"HTTP/1.1 206 Partial\r\n\r\nx"), SourceUnavailable, "status 206", id="a part of it"),
        pytest.param(says(b"HTTP/1.1 204 No\r\n\r\n"), SourceUnavailable, "status 204", id="nothing at all"),
        pytest.param(says(b"220 mail.example ESMTP\r\n"), SourceUnavailable, "does not speak", id="not HTTP"),
        pytest.param(says(b""), SourceUnavailable, "other side", id="a closed door"),
        pytest.param(
            says(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000), SourceUnavailable, "does not speak", id="an endless header"
        ),
        pytest.param(
            says(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n"),
            SourceUnavailable,
            "does not speak",
            id="two hundred headers",
        ),
        pytest.param(
            says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
            SourceUnavailable,
            "does not speak",
            id="chunks of no length",
        ),
        pytest.param(says(b"HTTP/1.1 302 Found\r\n\r\n"), RequestInvalid, "redirects more", id="a redirect to itself"),
    ],
)
def test_a_server_that_lies_or_breaks_is_found_out(
    tmp_path: Path, answer: Answer, error: type[PlatformError] | None, why: str
) -> None:
    with peer(answer) as running:
        if error is None:
            assert fetch(running, tmp_path) == (BODY * 10)[:5]
        else:
            with pytest.raises(error, match=why):
                fetch(running, tmp_path)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(says(stays=True), id="nothing after the request"),
        pytest.param(says(*[b"x"] * 20, pause=0.1), id="a status line letter by letter"),
        pytest.param(says(*[b"HTTP/1.1 100 Continue\r\n\r\n"] * 20, pause=0.1), id="wait, and wait, and wait"),
        pytest.param(says(ok(b"", length=100), *[b"x"] * 20, pause=0.1), id="a body byte by byte"),
        pytest.param(says(ok(b"", length=100), stays=True), id="headers and then silence"),
    ],
)
def test_a_server_that_takes_its_time_is_left(tmp_path: Path, answer: Answer) -> None:
    with peer(answer) as running, pytest.raises(SourceUnavailable, match=r"in time|ended after"):
        fetch(running, tmp_path, limits=IMPATIENT)


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.2:{port}/a.zip",
        "http://localhost:{port}/a.zip",
        "http://[::1]:{port}/a.zip",
        "https://169.254.169.254/latest/meta-data/",
        "//127.0.0.3:{port}/a.zip",
        "file:///etc/passwd",
        "gopher://127.0.0.1:{port}/_x",
        "http://user:secret@127.0.0.1:{port}/a.zip",
        "http://127.0.0.1:{port}/a b",
    ],
)
def test_every_redirect_is_checked_like_the_first_address(tmp_path: Path, location: str) -> None:
    with peer(says(ok())) as inner:
        answer = redirect(location.format(port=inner.port))
        with peer(says(answer)) as outer, pytest.raises(RequestInvalid) as caught:
            fetcher(f"127.0.0.1:{outer.port}", f"127.0.0.1:{inner.port}").fetch(
                f"http://127.0.0.1:{outer.port}/a.zip", tmp_path / "got"
            )

    assert caught.value.violations[0].field == "header.source_url"
    assert inner.requests == []


@pytest.mark.parametrize("location", ["http://127.0.0.1:{port}/b.zip#part", "/b.zip", "b.zip"])
def test_a_redirect_to_where_one_may_go_is_followed(tmp_path: Path, location: str) -> None:
    def answer(connection: socket.socket) -> None:
        is_first = len(running.requests) == 1
        connection.sendall(redirect(location.format(port=running.port)) if is_first else ok())

    with peer(answer) as running:
        assert fetch(running, tmp_path) == BODY

    assert running.requests[1].startswith(b"GET /b.zip HTTP/1.1\r\n")


def test_redirects_are_counted(tmp_path: Path) -> None:
    with peer(says(redirect("/again"))) as running, pytest.raises(RequestInvalid, match="redirects more than 5"):
        fetch(running, tmp_path)

    assert len(running.requests) == 6


def test_a_caller_that_leaves_ends_the_fetch(tmp_path: Path) -> None:
    abandoned = threading.Event()
    abandoned.set()

    with peer(says(ok())) as running, pytest.raises(SourceUnavailable, match="left"):
        fetcher("127.0.0.1").fetch(f"http://127.0.0.1:{running.port}/a", tmp_path / "got", abandoned=abandoned)


def test_a_certificate_must_be_that_of_the_name(tmp_path: Path) -> None:
    authority = trustme.CA()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(serving)

    with peer(says(ok()), serving) as running:
        trusted = (f"127.0.0.1:{running.port}", f"localhost:{running.port}")
        named = fetcher(*trusted, tls=trusting).fetch(f"https://localhost:{running.port}/a", tmp_path / "got")
        with pytest.raises(SourceUnavailable, match="certificate"):
            fetcher(*trusted, tls=trusting).fetch(f"https://127.0.0.1:{running.port}/a", tmp_path / "other")
        with pytest.raises(SourceUnavailable, match="certificate"):
            fetcher(*trusted).fetch(f"https://localhost:{running.port}/a", tmp_path / "other")

    assert named.path.read_bytes() == BODY
    assert len(running.requests) == 1


def test_a_handshake_that_never_ends_is_left(tmp_path: Path) -> None:
    with peer(says(*[b"\x16"] * 20, pause=0.1)) as running, pytest.raises(SourceUnavailable):
        fetcher("127.0.0.1", limits=IMPATIENT).fetch(f"https://127.0.0.1:{running.port}/a", tmp_path / "got")
