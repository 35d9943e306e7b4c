"""Who calls, as far as limits care: the address it comes from, and the bearer token it shows."""

from __future__ import annotations

import hashlib
import ipaddress
from urllib.parse import unquote

from services.rpc.middleware import Context

_IPV6_SITE = 64


def callers(context: Context) -> tuple[str, str]:
    """Return the keys a call counts under: its address, and its token or, where it shows none, the address again.

    Both, because a stranger makes up tokens at will, and a holder of one comes from many addresses.
    """
    address = _address(context.peer() or "")
    token = next((value for key, value in context.invocation_metadata() or () if key == "authorization"), None)
    if token is None:
        return address, address
    text = token if isinstance(token, bytes) else token.encode()
    return address, f"token:{hashlib.sha256(text).hexdigest()[:32]}"


def _address(peer: str) -> str:
    """Return the host of `ipv4:1.2.3.4:5`, or the network of an IPv6 host, who has all of its addresses."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return peer
    host = unquote(rest).rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return peer
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.IPv6Network((found, _IPV6_SITE), strict=False))
    return str(found)
