"""A real Redis on a free port of this machine. It keeps nothing on disk, so that a restart forgets, as a crash may."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from tests.stack.install import find_program
from tests.stack.ports import free_port
from tests.stack.server import ServerProcess


@dataclass(frozen=True)
class RedisServer:
    """One server; `process` stops and starts it on the same port."""

    process: ServerProcess
    port: int

    @property
    def url(self) -> str:
        return self.url_of(0)

    def url_of(self, database: int) -> str:
        """Return the URL of one of its 16 databases, each empty at the start."""
        return f"redis://127.0.0.1:{self.port}/{database}"


@contextmanager
def redis_server(directory: Path) -> Iterator[RedisServer]:
    """Run a Redis for as long as the context lasts.

    Raises:
        PartMissing: there is no Redis here and none can be installed.
    """
    program = find_program("redis-server", package="redis-server")
    port = free_port()
    options = {"port": str(port), "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": str(directory)}
    command = [str(program), *(part for name, value in options.items() for part in (f"--{name}", value))]
    directory.mkdir(parents=True, exist_ok=True)
    server = RedisServer(ServerProcess("redis", command, directory, lambda: _answers(port)), port)
    server.process.start()
    try:
        yield server
    finally:
        server.process.stop()


def _answers(port: int) -> bool:
    with redis.Redis(port=port, socket_timeout=2) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
