"""Tells the database every heartbeat that this worker lives, what it consumes and whether it drains."""

from __future__ import annotations

import os
import platform
import threading
from importlib import metadata

import structlog

from services.core.errors import DatabaseUnavailable
from services.db import workers
from services.db.workers import WorkerInfo
from workers.runtime import Runtime

log = structlog.get_logger(__name__)

_PACKAGES = ("trainyard", "torch", "torchvision")


class Registry:
    """One thread that keeps this worker's row from `start` to `close`."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._closing = threading.Event()
        self._versions = versions()
        self._thread = threading.Thread(target=self._work, name="registry", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop, and take this worker off the list: one that ends in order is not a lost one."""
        self._closing.set()
        self._thread.join()
        identity = self._runtime.identity
        try:
            with self._runtime.database.write() as session:
                workers.leave(session, worker_id=identity.worker_id, boot_id=identity.boot_id, pid=os.getpid())
        except DatabaseUnavailable as err:
            log.warning("worker_not_signed_off", error=str(err))

    def beat(self) -> None:
        """Write the row once; a database that is away hears of us at the next beat."""
        try:
            with self._runtime.database.write() as session:
                workers.heartbeat(session, self._info())
        except DatabaseUnavailable as err:
            log.warning("worker_not_registered", error=str(err))

    def _work(self) -> None:
        while True:
            self.beat()
            if self._closing.wait(self._runtime.settings.timings.heartbeat):
                return

    def _info(self) -> WorkerInfo:
        identity = self._runtime.identity
        return WorkerInfo(
            id=identity.worker_id,
            host=identity.host,
            boot_id=identity.boot_id,
            pid=os.getpid(),
            slots=self._runtime.settings.worker_slots,
            queues=self._runtime.queues,
            is_draining=self._runtime.drain.is_set,
            is_disk_full=self._runtime.full_disk is not None,
            versions=self._versions,
        )


def versions() -> dict[str, str]:
    """Return the versions that matter to what a worker computes."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
