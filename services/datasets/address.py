"""Where the platform may fetch from: a stranger's address must not make it talk to its own network.

A host is resolved once and the connection goes to the address that was checked, so a name that answers
differently the second time gains nothing. Every address of the name must be public.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from services.core.errors import RequestInvalid, SourceUnavailable, Violation

FIELD = "header.source_url"
MAX_URL_LENGTH = 2048
_PORTS = {"https": 443, "http": 80}
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?\.?")
_PRINTABLE = re.compile(r"[!-~]+")

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_REFUSED_V4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",
        "100.64.0.0/10",  # carriers, and 100.100.100.200, a metadata service
        "127.0.0.0/8",
        "168.63.129.16/32",  # a metadata service at a public address
        "169.254.0.0/16",  # link-local, and 169.254.169.254, the metadata service of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocols, and 192.0.0.192, a metadata service
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
# Public addresses lie in one block; whatever maps, translates or tunnels IPv4 lies outside it or is named here.
_PUBLIC_V6 = ipaddress.IPv6Network("2000::/3")
_REFUSED_V6 = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # protocols, Teredo among them
        "2001:db8::/32",
        "2002::/16",  # 6to4: holds an IPv4 address
        "3fff::/20",
    )
)

Resolve = Callable[[str, int], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Target:
    """One checked hop: what to ask for, and the address to connect to."""

    scheme: str
    host: str
    port: int
    request: str
    """Path and query."""
    address: str

    @property
    def host_header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def is_public(address: _Address) -> bool:
    """Tell whether an address belongs to the internet at large and to nobody's own network."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _REFUSED_V4)
    return address in _PUBLIC_V6 and not any(address in network for network in _REFUSED_V6)


def resolve(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host, without duplicates.

    Raises:
        SourceUnavailable: nobody knows the host.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as err:
        raise SourceUnavailable(f"{FIELD}: the host {host!r} is not known") from err
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True, slots=True)
class Guard:
    """Turns addresses as strangers write them into checked targets.

    `trusted` are hosts the operator named, as `host` or `host:port`: they may be internal, speak plain
    http and use any port (the named one where one is named).
    """

    trusted: frozenset[str] = frozenset()
    resolve: Resolve = field(default=resolve)

    @classmethod
    def of_setting(cls, hosts: str) -> Guard:
        return cls(frozenset(host.strip().lower() for host in hosts.split(",") if host.strip()))

    def check(self, url: str) -> Target:
        """Return the target of `url`.

        Raises:
            RequestInvalid: it may not be fetched; the violation says why.
            SourceUnavailable: its host is not known.
        """
        parts = _split(url)
        host = (parts.hostname or "").lower()
        port = _port(parts)
        is_trusted = not self.trusted.isdisjoint({host, f"{host}:{port}", f"[{host}]:{port}"})
        if not is_trusted:
            if parts.scheme != "https":
                raise refused("must be an https address")
            if port != _PORTS["https"]:
                raise refused("must use port 443; only hosts that the operator trusts may use another")
        addresses = self.resolve(host, port)
        if not addresses:
            raise SourceUnavailable(f"{FIELD}: the host {host!r} is not known")
        if not is_trusted and not all(is_public(_parsed(address)) for address in addresses):
            raise refused("leads to an address that is not public; only hosts that the operator trusts may be internal")
        request = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return Target(parts.scheme, host, port, request, addresses[0])


def refused(description: str) -> RequestInvalid:
    return RequestInvalid(violations=[Violation(FIELD, description)])


def _split(url: str) -> SplitResult:
    if len(url) > MAX_URL_LENGTH:
        raise refused(f"is longer than {MAX_URL_LENGTH} characters")
    if not _PRINTABLE.fullmatch(url) or "\\" in url:
        raise refused("holds a space, a backslash or characters beyond ASCII; write them percent-encoded")
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError as err:
        raise refused("is not an address such as https://host/path") from err
    if parts.scheme not in _PORTS or not host:
        raise refused("is not an address such as https://host/path")
    if "@" in parts.netloc:
        raise refused("holds a user name or password; use an address that needs none, such as a presigned one")
    is_literal = parts.netloc.startswith("[")
    if (is_literal and not _is_ip(host)) or (not is_literal and not _HOST.fullmatch(host)):
        raise refused("names no host; use a name or an address without a zone")
    return parts


def _port(parts: SplitResult) -> int:
    try:
        port = parts.port
    except ValueError as err:
        raise refused("has no valid port") from err
    if port == 0:
        raise refused("has no valid port")
    return port or _PORTS[parts.scheme]


def _is_ip(text: str) -> bool:
    try:
        return _parsed(text) is not None and "%" not in text
    except ValueError:
        return False


def _parsed(address: str) -> _Address:
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found
