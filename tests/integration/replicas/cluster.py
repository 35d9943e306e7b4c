"""A control plane of several API servers and controllers, one at a time in a process of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from services.client.sdk import Trainyard
from services.db import datasets
from services.db.database import Database
from services.up.probe import grpc_serves
from tests.stack.builders import make_dataset
from tests.stack.platform import Stack, control_plane, wait_until
from tests.stack.ports import free_port

READY_SECONDS = 90.0


@dataclass
class Cluster:
    """What runs, and how to see who leads."""

    stack: Stack
    database: Database
    api_ports: dict[str, int] = field(default_factory=dict)
    metrics_ports: dict[str, int] = field(default_factory=dict)

    def client(self, api: str) -> Trainyard:
        return Trainyard(f"127.0.0.1:{self.api_ports[api]}", token=self.stack.token)

    def add_api(self, name: str) -> None:
        port = self.api_ports[name] = free_port()
        self.stack.start(name, "services.api", TRAINYARD_API_PORT=str(port))
        wait_until(grpc_serves(f"127.0.0.1:{port}"), what=name, limit_seconds=READY_SECONDS)

    def add_controller(self, name: str) -> None:
        port = self.metrics_ports[name] = free_port()
        self.stack.start(name, "services.controller", TRAINYARD_METRICS_PORT=str(port))
        wait_until(lambda: self.is_leading(name) is not None, what=name, limit_seconds=READY_SECONDS)

    def kill(self, name: str) -> None:
        self.stack.processes[name].kill()
        self.stack.processes[name].wait()

    def is_leading(self, controller: str) -> bool | None:
        """Return what a controller says of itself; None where it does not answer."""
        try:
            with urlopen(f"http://127.0.0.1:{self.metrics_ports[controller]}/metrics", timeout=5) as reply:
                text = reply.read().decode()
        except (URLError, OSError):
            return None
        found = re.search(r"^trainyard_controller_leading (\S+)$", text, re.MULTILINE)
        return found is not None and float(found[1]) == 1

    def leaders(self) -> list[str]:
        return [name for name in self.metrics_ports if self.is_leading(name)]

    def messages(self) -> list[str]:
        """Return the job id of every message that waits in the broker of files."""
        found = []
        for path in sorted((self.stack.state_dir / "broker").glob("*.msg")):
            document = json.loads(path.read_bytes())
            found.append(json.loads(document["headers"]["argsrepr"].replace("'", '"'))[0])
        return found

    def dataset(self) -> datasets.DatasetVersion:
        with self.database.write() as session:
            return make_dataset(session)


@contextmanager
def cluster(state_dir: Path, database_url: str, environ: Mapping[str, str]) -> Iterator[Cluster]:
    """Run one API server, `api-1`, on a database; the rest is the caller's to add."""
    full = {"TRAINYARD_DATABASE_URL": database_url, **environ}
    with control_plane(state_dir, full, has_controller=False) as stack:
        database = Database(database_url)
        running = Cluster(stack, database)
        running.api_ports["api-1"] = int(stack.address.rpartition(":")[2])
        stack.processes["api-1"] = stack.processes.pop("api")
        try:
            yield running
        finally:
            database.dispose()
