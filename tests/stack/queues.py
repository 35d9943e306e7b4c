"""What the kernel holds of connections."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_TCP_LISTEN = "0A"


def send_queues(port: int) -> Iterator[int]:
    """Yield the bytes the kernel holds for each connection of the server at `port`."""
    lines = [line for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    for fields in map(str.split, lines):
        if fields[1].endswith(f":{port:04X}") and fields[3] != _TCP_LISTEN:
            yield int(fields[4].partition(":")[0], 16)
