"""Which addresses a stranger may make the platform fetch from."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import pytest

from services.core.errors import PlatformError, RequestInvalid, SourceUnavailable
from services.datasets.address import MAX_URL_LENGTH, Guard

PUBLIC = "93.184.215.14"


def guard(*addresses: str, trusted: Sequence[str] = ()) -> Guard:
    """Return a guard for whom every host has these addresses."""
    return Guard(frozenset(trusted), lambda host, port: list(addresses or (PUBLIC,)))


@pytest.mark.parametrize(
    ("url", "why"),
    [
        pytest.param("http://example.com/a.zip", "https", id="plain http"),
        pytest.param("ftp://example.com/a.zip", "https://host/path", id="another scheme"),
        pytest.param("file:///etc/passwd", "https://host/path", id="a file"),
        pytest.param("gopher://127.0.0.1:6379/_FLUSHALL", "https://host/path", id="a scheme that speaks to Redis"),
        pytest.param("dict://127.0.0.1:11211/stats", "https://host/path", id="a scheme that speaks to memcached"),
        pytest.param("data:application/zip;base64,UEs=", "https://host/path", id="the data itself"),
        pytest.param("//example.com/a.zip", "https://host/path", id="no scheme"),
        pytest.param("example.com/a.zip", "https://host/path", id="a bare name"),
        pytest.param("https:///a.zip", "https://host/path", id="no host"),
        pytest.param("https://:443/a.zip", "https://host/path", id="a port without a host"),
        pytest.param("https://user:secret@example.com/a.zip", "user name", id="credentials"),
        pytest.param("https://user@example.com/a.zip", "user name", id="a user name"),
        pytest.param("https://example.com@127.0.0.1/a.zip", "user name", id="a host that is none"),
        pytest.param("https://example.com:22/a.zip", "443", id="another port"),
        pytest.param("https://example.com:6379/a.zip", "443", id="the port of Redis"),
        pytest.param("https://example.com:0/a.zip", "port", id="port nought"),
        pytest.param("https://example.com:99999/a.zip", "port", id="a port too high"),
        pytest.param("https://example.com:x/a.zip", "port", id="a port of letters"),
        pytest.param("https://exa mple.com/a.zip", "space", id="a space"),
        pytest.param("https://example.com/a.zip\r\nHost: evil", "space", id="a header smuggled in"),
        pytest.param("https://example.com/\x00a.zip", "space", id="a NUL"),
        pytest.param("https://example.com\\@127.0.0.1/", "backslash", id="a backslash"),
        pytest.param("https://exämple.com/a.zip", "ASCII", id="letters beyond ASCII"),
        pytest.param("https://127。0。0。1/a.zip", "ASCII", id="full stops that are none"),
        pytest.param("https://ⓛocalhost/a.zip", "ASCII", id="letters that normalise"),
        pytest.param("https://[fe80::1%25eth0]/a.zip", "zone", id="a zone"),
        pytest.param("https://[::1/a.zip", "https://host/path", id="a bracket too few"),
        pytest.param("https://[v1.x]/a.zip", "", id="an address of a future version"),
        pytest.param("https://exa%6dple.com/a.zip", "no host", id="an encoded host"),
        pytest.param("https://-example.com/a.zip", "no host", id="a hyphen first"),
        pytest.param("https://a" + "b" * 300 + ".com/", "no host", id="a host too long"),
        pytest.param("https://example.com/" + "a" * MAX_URL_LENGTH, "longer", id="too long"),
        pytest.param("", "space", id="nothing"),
    ],
)
def test_an_address_of_another_shape_is_refused(url: str, why: str) -> None:
    with pytest.raises(RequestInvalid) as caught:
        guard().check(url)

    assert why in caught.value.violations[0].description


def test_a_name_with_one_internal_address_among_public_ones_is_refused() -> None:
    with pytest.raises(RequestInvalid, match="public"):
        guard(PUBLIC, "10.0.0.5").check("https://rebind.example/a.zip")


def test_a_name_is_resolved_once_and_the_checked_address_is_the_one_to_connect_to() -> None:
    asked: list[str] = []

    def rebinding(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return [PUBLIC] if len(asked) == 1 else ["127.0.0.1"]

    target = Guard(resolve=rebinding).check("https://rebind.example/a.zip?key=1#part")

    assert asked == ["rebind.example"]
    assert (target.address, target.port, target.request) == (PUBLIC, 443, "/a.zip?key=1")
    assert target.host_header == "rebind.example"


def test_a_host_that_nobody_knows_is_the_sender_s_mistake_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)

    with pytest.raises(SourceUnavailable, match="not known"):
        Guard().check("https://nowhere.example/a.zip")


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.215.14", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses_pass(address: str) -> None:
    assert guard(address).check("https://example.com/a.zip").address == address


@pytest.mark.parametrize(
    ("trusted", "url", "passes"),
    [
        pytest.param("data.internal", "https://data.internal/a.zip", True, id="the named host"),
        pytest.param("data.internal", "http://DATA.internal:8080/a.zip", True, id="its other ports, in plain http"),
        pytest.param("data.internal:8080", "http://data.internal:8080/a.zip", True, id="the named port"),
        pytest.param("data.internal:8080", "http://data.internal:9000/a.zip", False, id="another port"),
        pytest.param("data.internal", "https://evil.data.internal/a.zip", False, id="a host below it"),
        pytest.param("data.internal", "https://data.internal.evil.com/a.zip", False, id="a host that begins like it"),
        pytest.param("data.internal", "ftp://data.internal/a.zip", False, id="another scheme"),
        pytest.param("data.internal", "https://u:p@data.internal/a.zip", False, id="credentials"),
    ],
)
def test_the_operator_s_list_opens_exactly_what_it_names(trusted: str, url: str, passes: bool) -> None:
    found = Guard(Guard.of_setting(f" {trusted} ,, ").trusted, lambda host, port: ["10.1.2.3"])

    if passes:
        assert found.check(url).address == "10.1.2.3"
    else:
        with pytest.raises(PlatformError):
            found.check(url)
