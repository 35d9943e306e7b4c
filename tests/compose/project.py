"""One Compose project of compose.yaml, with its own name, ports, secrets and volumes, beside any other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.compose.engine import has_plugin
from tests.stack.ports import free_port

ROOT = Path(__file__).parents[2]
# Names of variables of compose.yaml that publish a port, by the port inside.
PUBLISHED = {
    "TRAINYARD_API_PUBLISH": 7070,
    "TRAINYARD_INFERENCE_PUBLISH": 7080,
    "TRAINYARD_INFERENCE_GRPC_PUBLISH": 7083,
    "TRAINYARD_S3_PUBLISH": 9000,
    "PROMETHEUS_PUBLISH": 9090,
}
MANY_RESTARTS = 4
_NAME = "COMPOSE_PROJECT_NAME"


class NotHealthy(RuntimeError):
    """Containers ended or stayed unhealthy; the message says which, with their last lines."""


@dataclass(frozen=True, slots=True)
class Container:
    """What the engine says of one container."""

    id: str
    service: str
    facts: Mapping[str, Any]

    @property
    def state(self) -> Mapping[str, Any]:
        state: Mapping[str, Any] = self.facts["State"]
        return state

    @property
    def is_settled(self) -> bool:
        """Whether it is as it should be: healthy, or ended well where it is meant to end."""
        if self.state["Status"] == "exited":
            return bool(self.state["ExitCode"] == 0)
        return bool(self.state.get("Health", {}).get("Status") == "healthy")


@dataclass(frozen=True, slots=True)
class Project:
    """Compose commands for one project. `environ` is what compose.yaml reads its variables from."""

    environ: Mapping[str, str]

    @classmethod
    def fresh(cls, name: str, secrets: Path) -> Project:
        """Return a project on free ports of loopback, whose secrets lie in a folder."""
        ports = {variable: f"127.0.0.1:{free_port()}" for variable in PUBLISHED}
        own = {
            _NAME: name,
            "COMPOSE_FILE": str(ROOT / "compose.yaml"),
            "TRAINYARD_SECRETS": str(secrets),
            "TRAINYARD_TOKEN_FILE": str(secrets / "bootstrap_token"),
            # One of the cores is for everything else.
            "TRAINYARD_WORKER_THREADS": "1",
        }
        return cls({**os.environ, **own, **ports})

    @classmethod
    def current(cls) -> Project:
        """Return the project whose environment this process got."""
        return cls(dict(os.environ))

    @property
    def name(self) -> str:
        return self.environ[_NAME]

    def address(self, variable: str) -> str:
        """Return host:port where a part is published."""
        return self.environ[variable]

    def secret(self, name: str) -> str:
        return (Path(self.environ["TRAINYARD_SECRETS"]) / name).read_text().strip()

    def with_environ(self, **changes: str) -> Project:
        return Project({**self.environ, **changes})

    def compose(self, *arguments: str, limit_seconds: float = 900.0) -> str:
        """Run a Compose command and return what it prints; its own words are in the error where it fails."""
        command = [*_compose_client(), *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env=self.environ, capture_output=True, text=True, timeout=limit_seconds, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def up(self, *arguments: str, limit_seconds: float = 600.0) -> None:
        """Start what is not running and return once everything is healthy."""
        self.compose("up", "-d", "--no-build", *arguments)
        self.wait_healthy(limit_seconds=limit_seconds)

    def down(self) -> None:
        """Remove containers, networks and volumes."""
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "60")

    def wait_healthy(self, *, limit_seconds: float) -> None:
        deadline = time.monotonic() + limit_seconds
        while late := [one for one in self.containers() if not one.is_settled]:
            is_hopeless = any(one.facts["RestartCount"] >= MANY_RESTARTS for one in late)
            if is_hopeless or time.monotonic() > deadline:
                raise NotHealthy("\n".join(f"{one.service}: {one.state}\n{self.logs(one)}" for one in late))
            time.sleep(0.5)

    def containers(self, service: str = "") -> list[Container]:
        """Return the containers of the project, or of one service."""
        labels = [f"label=com.docker.compose.project={self.name}"]
        if service:
            labels.append(f"label=com.docker.compose.service={service}")
        filters = [word for label in labels for word in ("--filter", label)]
        ids = docker("ps", "--all", "--quiet", "--no-trunc", *filters).split()
        if not ids:
            return []
        facts = json.loads(docker("inspect", *ids))
        return [Container(one["Id"], one["Config"]["Labels"]["com.docker.compose.service"], one) for one in facts]

    def only(self, service: str) -> Container:
        (found,) = self.containers(service)
        return found

    def crash(self, service: str) -> None:
        """Kill a container's first process from outside: the engine sees a crash, and its restart policy applies."""
        os.kill(int(self.only(service).state["Pid"]), signal.SIGKILL)

    def logs(self, container: Container, *, lines: int = 40) -> str:
        done = subprocess.run(
            ["docker", "logs", "--tail", str(lines), container.id], capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr

    def images(self) -> Iterator[tuple[str, int]]:
        """Yield every image of the running project with its size in bytes."""
        for name in sorted({one.facts["Config"]["Image"] for one in self.containers()}):
            yield name, int(docker("image", "inspect", "--format", "{{.Size}}", name))


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout


def _compose_client() -> list[str]:
    return ["docker", "compose"] if has_plugin() else ["docker-compose"]
