"""Free TCP ports: the wanted one where nobody listens, any other one otherwise."""

from __future__ import annotations

import atexit
import fcntl
import os
import socket
import tempfile
from dataclasses import dataclass, field
from pathlib import Path


class PortTaken(Exception):
    """A port that was asked for by name is in use."""


def is_free(host: str, port: int) -> bool:
    # Without SO_REUSEPORT, which gRPC sets by default: with it, two API servers would share the port.
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
        return True


def reserve(port: int, *, folder: Path | None = None) -> bool:
    """Keep a port from other platforms of this user that start before anybody listens on it."""
    folder = folder or Path(tempfile.gettempdir()) / f"trainyard-ports-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        lock = (folder / f"{port}.lock").open("wb")
    except OSError:
        # Without a place for locks two platforms that start at once may meet on a port, as before.
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        return False
    # Held for as long as this process lives.
    atexit.register(lock.close)
    return True


@dataclass(slots=True)
class PortPicker:
    """Hands out ports of one host, none of them twice, and none that another platform was handed."""

    host: str
    given: set[int] = field(default_factory=set)

    def pick(self, wanted: int, *, is_fixed: bool = False, setting: str = "") -> int:
        """Return `wanted` where it is free, else another free port.

        Raises:
            PortTaken: `is_fixed`, and the port is in use.
        """
        if wanted and wanted not in self.given and is_free(self.host, wanted) and reserve(wanted):
            self.given.add(wanted)
            return wanted
        if is_fixed and wanted:
            raise PortTaken(f"{setting}={wanted}: another process has that port; choose a free one or unset it")
        return self._any()

    def _any(self) -> int:
        while True:
            with socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET, socket.SOCK_STREAM) as probe:
                probe.bind((self.host, 0))
                port: int = probe.getsockname()[1]
            if port not in self.given and reserve(port):
                self.given.add(port)
                return port
