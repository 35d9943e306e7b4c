"""What a worker process shares between its attempts; built once by `app`, passed to everything."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from services.broker.sender import BUILD_QUEUE
from services.core.retry import Backoff
from services.core.settings import Settings
from services.db.database import Database
from services.storage.port import ObjectStore
from workers import host, metrics
from workers.cache import DatasetCache
from workers.stop import Latch
from workers.warm_link import WarmLink

MIN_FREE_FRACTION = 0.05
"""Below this share of free disk the worker begins no attempt: its checkpoints would not fit."""


class Slots:
    """The attempts this worker may run at a time, numbered as its devices are."""

    def __init__(self, count: int) -> None:
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for index in range(count):
            self._free.put(index)

    @contextmanager
    def take(self) -> Iterator[int | None]:
        """Hold a free slot while the context lasts; None when all are busy."""
        try:
            index = self._free.get_nowait()
        except queue.Empty:
            yield None
            return
        metrics.BUSY_SLOTS.inc()
        try:
            yield index
        finally:
            metrics.BUSY_SLOTS.dec()
            self._free.put(index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who this worker is, on which machine and boot."""

    worker_id: str
    host: str
    boot_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """The parts and facts every attempt needs."""

    settings: Settings
    identity: Identity
    database: Database
    store: ObjectStore
    cache: DatasetCache
    warm: WarmLink
    slots: Slots
    home: Path
    """This worker's own directory; an attempt's directory is below it."""
    has_gpu: bool
    drain: Latch = field(default_factory=Latch)

    @property
    def backoff(self) -> Backoff:
        timings = self.settings.timings
        return Backoff(base_seconds=timings.retry_base, cap_seconds=timings.retry_cap)

    @property
    def attempts_dir(self) -> Path:
        return self.home / "attempts"

    @property
    def threads(self) -> int:
        """The share of one attempt; two busy thread pools on the same cores slow each other down many times over."""
        return self.settings.worker_threads or max(1, host.core_count() // self.settings.worker_slots)

    @property
    def queues(self) -> list[str]:
        return [name.strip() for name in self.settings.worker_queues.split(",") if name.strip()]

    @property
    def train_queues(self) -> list[str]:
        return [name for name in self.queues if name != BUILD_QUEUE]

    @property
    def has_disk_room(self) -> bool:
        return host.free_fraction(self.home) >= MIN_FREE_FRACTION

    def device(self, slot: int) -> str:
        return f"cuda:{slot}" if self.has_gpu else "cpu"
