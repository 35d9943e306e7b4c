"""What the kernel keeps for a connection whose reader takes nothing: gRPC bounds its own buffers, not this one."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)


def bound_send_queue(port: int, limit_bytes: int) -> None:
    """Bound the send queue of every connection to come at `port`; log it where no socket listens there.

    Accepted connections take the limit over from the socket that listens. Without one the kernel keeps up to its
    `tcp_wmem`, 4 MiB, for a client that opens its windows wide and never reads. The kernel allows twice the limit,
    for its own headers.
    """
    found = 0
    for path in Path("/proc/self/fd").iterdir():
        try:
            # Sockets only: to close a copy of a database's file would let go of this process's locks on it.
            if path.readlink().name.startswith("socket:"):
                found += _bound(os.dup(int(path.name)), port, limit_bytes)
        except OSError:
            # Closed since it was listed.
            continue
    if not found:
        log.warning("send_queues_unbounded", port=port)


def _bound(descriptor: int, port: int, limit_bytes: int) -> bool:
    with socket.socket(fileno=descriptor) as listening:
        is_listening = bool(listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        if not is_listening or listening.family not in (socket.AF_INET, socket.AF_INET6):
            return False
        if listening.getsockname()[1] != port:
            return False
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, limit_bytes)
        return True
