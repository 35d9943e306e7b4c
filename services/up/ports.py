"""Free TCP ports: the wanted one where nobody listens, any other one otherwise."""

from __future__ import annotations

import atexit
import fcntl
import os
import socket
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from services.core.errors import SettingsInvalid


class PortTaken(Exception):
    """A port that was asked for by name is in use."""


def check_host(host: str) -> None:
    """Return if servers of this machine can listen at an address.

    Raises:
        SettingsInvalid: they cannot.
    """
    try:
        with socket.socket(_family(host), socket.SOCK_STREAM) as probe:
            probe.bind((host, 0))
    except (OSError, UnicodeError) as err:
        raise SettingsInvalid(
            f"TRAINYARD_HOST={host}: servers cannot listen there ({getattr(err, 'strerror', err)}); "
            "use an address of this machine, such as 127.0.0.1, or 0.0.0.0 for all of them"
        ) from err


def is_free(host: str, port: int) -> bool:
    # Without SO_REUSEPORT, which gRPC sets by default: with it, two API servers would share the port.
    with socket.socket(_family(host), socket.SOCK_STREAM) as probe:
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

    def pick(self, wanted: int, *, is_fixed: bool = False, setting: str = "", last: int = 0) -> int:
        """Return `wanted` where it is free, else the one it was the last time, else another free port.

        Raises:
            PortTaken: `is_fixed`, and the port is in use.
        """
        if self._take(wanted):
            return wanted
        if is_fixed and wanted:
            raise PortTaken(f"{setting}={wanted}: another process has that port; choose a free one or unset it")
        return last if self._take(last) else self._any()

    def _take(self, port: int) -> bool:
        if not port or port in self.given or not is_free(self.host, port) or not reserve(port):
            return False
        self.given.add(port)
        return True

    def _any(self) -> int:
        while True:
            with socket.socket(_family(self.host), socket.SOCK_STREAM) as probe:
                probe.bind((self.host, 0))
                port: int = probe.getsockname()[1]
            if port not in self.given and reserve(port):
                self.given.add(port)
                return port


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
