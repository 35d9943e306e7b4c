"""Every test of the doorbell runs on the broker of files and on a real Redis, each on a queue of its own."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from services.broker.app import make_app, select_queues
from services.broker.sender import RUN_ATTEMPT, Sender
from services.core.settings import Settings
from tests.stack.install import required_parts
from tests.stack.redis import RedisServer, redis_server

PATIENCE_SECONDS = 60.0
_numbers = itertools.count()


@dataclass
class Consumer:
    """One process with so many slots; what it was given stands in its log, in order."""

    log: Path
    hold: Path
    process: subprocess.Popen[bytes]

    @property
    def received(self) -> list[str]:
        return self.log.read_text().split() if self.log.exists() else []

    def wait_for(self, count: int) -> list[str]:
        """Return what it received once that is so many messages."""
        until(lambda: len(self.received) >= count, what=f"{count} messages, not {self.received}")
        return self.received

    def release(self) -> None:
        """Let running tasks end, and later ones too."""
        self.hold.unlink(missing_ok=True)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@dataclass
class Broker:
    """One kind of broker, as the platform's own code talks to it."""

    settings: Settings
    folder: Path
    server: RedisServer | None
    queue: str = field(default_factory=lambda: f"train.test-{next(_numbers)}")
    consumers: list[Consumer] = field(default_factory=list)
    senders: list[Sender] = field(default_factory=list)

    def sender(self) -> Sender:
        made = Sender(make_app(self.settings))
        self.senders.append(made)
        return made

    def send(self, *arguments: str) -> None:
        sender = self.sender()
        for argument in arguments:
            sender.send(RUN_ATTEMPT, self.queue, argument)

    def consume(self, *, slots: int = 1, is_holding: bool = False) -> Consumer:
        """Start a consumer; a holding one ends no task before `release`."""
        name = f"consumer-{len(self.consumers)}"
        log, hold = self.folder / f"{name}.log", self.folder / f"{name}.hold"
        if is_holding:
            hold.touch()
        environ = os.environ | {
            "TRAINYARD_STATE_DIR": str(self.settings.state_dir),
            "TRAINYARD_BROKER_URL": self.settings.broker_url,
        }
        with (self.folder / f"{name}.err").open("wb") as errors:
            process = subprocess.Popen(
                [
                    sys.executable,
                    str(Path(__file__).parent / "consumer.py"),
                    self.queue,
                    str(log),
                    str(slots),
                    str(hold),
                ],
                env=environ,
                stderr=errors,
                cwd=Path(__file__).parents[3],
            )
        self.consumers.append(Consumer(log, hold, process))
        return self.consumers[-1]

    def waiting(self) -> int:
        """Return how many messages nobody has taken yet."""
        app = make_app(self.settings)
        with app.connection_for_read() as connection, connection.channel() as channel:
            count: int = channel._size(self.queue)
        return count

    def purge(self) -> int:
        app = make_app(self.settings)
        select_queues(app, [self.queue])
        with app.connection_for_write() as connection:
            count: int = app.control.purge(connection)
        return count

    def restart(self) -> None:
        """End what holds the messages, forget them all, and begin again. Files are held by nobody; they just go."""
        if self.server is not None:
            self.server.process.stop(signal.SIGKILL)
            self.server.process.start()
            return
        for message in (self.settings.state_dir / "broker").glob("*.msg"):
            message.unlink()

    def close(self) -> None:
        for consumer in self.consumers:
            consumer.kill()
        for sender in self.senders:
            sender.close()


@pytest.fixture(scope="session")
def redis_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with required_parts(), redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=["files", "redis"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    server: RedisServer | None = None
    if request.param == "redis":
        server = request.getfixturevalue("redis_process")
    settings = Settings(state_dir=tmp_path / "state", broker_url="" if server is None else server.url)
    made = Broker(settings, tmp_path, server)
    yield made
    made.close()


def until(condition: Callable[[], bool], *, what: str) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, f"waited {PATIENCE_SECONDS:.0f} s for {what}"
        time.sleep(0.02)
