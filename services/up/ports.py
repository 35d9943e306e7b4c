"""Free TCP ports: the wanted one where nobody listens, any other one otherwise."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field


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


@dataclass(slots=True)
class PortPicker:
    """Hands out ports of one host, none of them twice."""

    host: str
    given: set[int] = field(default_factory=set)

    def pick(self, wanted: int, *, is_fixed: bool = False, setting: str = "") -> int:
        """Return `wanted` where it is free, else another free port.

        Raises:
            PortTaken: `is_fixed`, and the port is in use.
        """
        if wanted and wanted not in self.given and is_free(self.host, wanted):
            self.given.add(wanted)
            return wanted
        if is_fixed and wanted:
            raise PortTaken(f"{setting}={wanted}: another process listens on that port; choose a free one or unset it")
        return self._any()

    def _any(self) -> int:
        while True:
            with socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET, socket.SOCK_STREAM) as probe:
                probe.bind((self.host, 0))
                port: int = probe.getsockname()[1]
            if port not in self.given:
                self.given.add(port)
                return port
