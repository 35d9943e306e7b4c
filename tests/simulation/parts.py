"""The parts everybody talks to, with the faults that real ones have: database, object store, broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from services.core.errors import BrokerUnavailable, DatabaseUnavailable, StoreUnavailable
from services.db.session import Session
from services.storage.port import DEFAULT_CONTENT_TYPE, ObjectInfo
from tests.simulation.plan import Fault
from tests.simulation.world import World
from tests.stack.memory_store import MemoryStore
from tests.stack.virtual import VirtualDatabase

ERROR_SHARE = 0.03


class FlakyDatabase(VirtualDatabase):
    """Fails before a commit, after it, or altogether; its user may die at either point."""

    def __init__(self, path: Path, world: World) -> None:
        super().__init__(path, world.database_clock)
        self._world = world
        self.away_until = 0.0

    @contextmanager
    def write(self) -> Iterator[Session]:
        self._world.hazard()
        self._meet()
        with super().write() as session:
            yield session
            if self._world.happens(Fault.DATABASE_ERRORS, ERROR_SHARE):
                self._world.say("database", "fails before a commit")
                raise DatabaseUnavailable("the connection broke before the commit")
        if self._world.happens(Fault.DATABASE_ERRORS, ERROR_SHARE):
            self._world.say("database", "loses the answer to a commit")
            raise DatabaseUnavailable("the connection broke after the commit")
        self._world.hazard()

    @contextmanager
    def read(self) -> Iterator[Session]:
        self._meet()
        with super().read() as session:
            yield session

    def _meet(self) -> None:
        if self._world.time < self.away_until and not self._world.is_calm:
            raise DatabaseUnavailable("nobody listens")


class FlakyStore(MemoryStore):
    """Refuses a write now and then; its user may die between two writes."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        self._spoiled: set[str] = set()

    def spoil_one(self) -> None:
        """Flip a bit in the weights of some checkpoint."""
        weights = [key for key in self.objects if "/checkpoints/" in key and key.endswith("model.safetensors")]
        fresh = sorted(set(weights) - self._spoiled)
        if fresh:
            key = self._world.rng.choice(fresh)
            self._world.say("store", "spoils", object=key)
            self._spoiled.add(key)
            self.flip_a_bit(key)

    def heal(self) -> None:
        """Take back every flip nobody met: a disk's fault is no fault of the protocol."""
        for key in self._spoiled & set(self.objects):
            self.flip_a_bit(key)
        self._spoiled.clear()

    def put(
        self,
        key: str,
        source: BinaryIO | bytes,
        *,
        size_bytes: int | None = None,
        content_type: str = DEFAULT_CONTENT_TYPE,
    ) -> ObjectInfo:
        self._world.hazard()
        if self._world.happens(Fault.STORE_ERRORS, 0.1):
            raise StoreUnavailable("the store is away")
        self._spoiled.discard(key)
        return super().put(key, source, size_bytes=size_bytes, content_type=content_type)


class Broker:
    """Carries messages to somebody who listens; may lose, double and delay them, or be away."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._listeners: list[Callable[[str], None]] = []
        self.away_until = 0.0

    def listen(self, listener: Callable[[str], None]) -> None:
        self._listeners.append(listener)

    def send(self, task: str, queue: str, argument: str) -> None:
        """Send one message; `services.controller.dispatcher.Doorbell`."""
        del task, queue
        world = self._world
        if world.time < self.away_until and not world.is_calm:
            raise BrokerUnavailable("nobody listens")
        if world.happens(Fault.LOST_MESSAGES, 0.3):
            return
        for _ in range(1 + world.happens(Fault.DOUBLED_MESSAGES, 0.5)):
            listener = world.rng.choice(self._listeners)
            world.at(world.rng.uniform(0.005, 1.0), lambda listener=listener: listener(argument))
