"""What a worker process shares between its attempts; built once by `app`, passed to everything."""

from __future__ import annotations

import queue
import shutil
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from services.broker.sender import BUILD_QUEUE
from services.core.cores import core_count
from services.core.queues import names_of
from services.core.retry import Backoff
from services.core.settings import Settings
from services.db.database import Database
from services.storage.local import LocalStore
from services.storage.port import ObjectStore
from workers import metrics
from workers.cache import DatasetCache
from workers.devices import Gpu
from workers.salvage import Salvage
from workers.stop import Latch
from workers.warm_link import WarmLink

MIN_FREE_FRACTION = 0.05
MIN_FREE_BYTES = 2 << 30
"""With less free disk than the smaller of the two the worker begins no attempt: its checkpoints would not fit."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Room for one attempt, and the devices that come with it."""

    gpus: tuple[Gpu, ...] = ()

    @property
    def device(self) -> str:
        return self.gpus[0].device if self.gpus else "cpu"

    def devices(self, count: int) -> list[str]:
        """Return a device for each process of an attempt; on a CPU they share its threads."""
        return [gpu.device for gpu in self.gpus[:count]] or ["cpu"] * count


def devices_of(queue: str) -> int:
    """Return how many GPUs a job of a queue needs: N of `train.gpu.xN`, else 1."""
    _, found, count = queue.strip().rpartition(".x")
    return int(count) if found and count.isdigit() else 1


class Slots:
    """The attempts this worker may run at a time."""

    def __init__(self, slots: Iterable[Slot]) -> None:
        self._free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        self._closed: set[Slot] = set()
        self._missed = threading.Event()
        for slot in slots:
            self._free.put(slot)

    @contextmanager
    def take(self) -> Iterator[Slot | None]:
        """Hold a free slot while the context lasts; None when all are busy, which `was_missed` then tells a holder."""
        slot = self._next()
        if slot is None:
            self._missed.set()
            # Whoever left meanwhile may have asked for missed ones before this one was.
            slot = self._next()
        if slot is None:
            yield None
            return
        metrics.BUSY_SLOTS.inc()
        try:
            yield slot
        finally:
            metrics.BUSY_SLOTS.dec()
            if slot not in self._closed:
                self._free.put(slot)

    def forget_missed(self) -> None:
        """Say that what rang until now is about to be looked for."""
        self._missed.clear()

    @property
    def was_missed(self) -> bool:
        """Whether somebody found all slots busy since `forget_missed`."""
        return self._missed.is_set()

    def _next(self) -> Slot | None:
        try:
            return self._free.get_nowait()
        except queue.Empty:
            return None

    def close(self, slot: Slot) -> None:
        """Let nobody take a slot again once its holder leaves it."""
        self._closed.add(slot)

    def is_closed(self, slot: Slot) -> bool:
        return slot in self._closed


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
    drain: Latch = field(default_factory=Latch)

    @property
    def backoff(self) -> Backoff:
        timings = self.settings.timings
        return Backoff(base_seconds=timings.retry_base, cap_seconds=timings.retry_cap)

    @property
    def attempts_dir(self) -> Path:
        return self.home / "attempts"

    @property
    def salvage(self) -> Salvage:
        """Whole checkpoints that nobody committed, shared by the workers of this host."""
        return Salvage(self.settings.state_dir / "salvage")

    @property
    def threads(self) -> int:
        """The share of one attempt; two busy thread pools on the same cores slow each other down many times over."""
        return self.settings.worker_threads or max(1, core_count() // self.settings.worker_slots)

    @property
    def queues(self) -> list[str]:
        return names_of(self.settings.worker_queues)

    @property
    def train_queues(self) -> list[str]:
        return [name for name in self.queues if name != BUILD_QUEUE]

    @property
    def full_disk(self) -> Path | None:
        """Return the directory of this worker or of a local object store whose disk is nearly full, if one is."""
        written = [self.home]
        if isinstance(self.store, LocalStore):
            written.append(self.store.root)
        return next(filter(_is_nearly_full, written), None)


def _is_nearly_full(directory: Path) -> bool:
    try:
        disk = shutil.disk_usage(directory)
    except OSError:
        # A store is made with its first object; what else is wrong with a disk is said by whoever writes there.
        return False
    return disk.free < min(MIN_FREE_BYTES, MIN_FREE_FRACTION * disk.total)
