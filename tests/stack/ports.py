"""Ports for servers that tests start."""

from __future__ import annotations

import random
import socket

_FIRST, _LAST = 10_000, 32_000
"""Below those that systems give to outgoing connections, one of which could take a free port before its server does."""
_given: set[int] = set()
_choice = random.SystemRandom()


def free_port() -> int:
    """Return a port that nobody listens on, and that this process was not given before."""
    while True:
        port = _choice.randint(_FIRST, _LAST)
        if port not in _given and _is_free(port):
            _given.add(port)
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
