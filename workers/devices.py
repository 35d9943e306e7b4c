"""The accelerators of this machine, asked through NVML so that no CUDA context is made, and which may be used."""

from __future__ import annotations

from dataclasses import dataclass

import pynvml
import structlog

from services.core.errors import DatabaseUnavailable
from services.db import workers
from services.db.database import Database

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One device; `index` is the N of `cuda:N`."""

    index: int
    uuid: str
    name: str
    memory_bytes: int

    @property
    def device(self) -> str:
        return f"cuda:{self.index}"


def list_gpus() -> list[Gpu]:
    """Return the machine's devices; none where there is no driver."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        return [_describe(index) for index in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()


def is_lost(gpu: Gpu) -> bool:
    """Tell whether a device that was there has stopped to answer: fallen off the bus, or its driver failed."""
    try:
        pynvml.nvmlInit()
        try:
            pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByUUID(gpu.uuid))
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as err:
        log.warning("device_does_not_answer", device=gpu.index, error=str(err))
        return True
    return False


def register(database: Database, gpus: list[Gpu], *, host: str) -> list[Gpu]:
    """Make the devices known and return those that nobody put into quarantine."""
    usable = []
    for gpu in gpus:
        try:
            with database.write() as session:
                device = workers.register_device(
                    session, uuid=gpu.uuid, host=host, name=gpu.name, memory_bytes=gpu.memory_bytes
                )
        except DatabaseUnavailable as err:
            log.warning("device_not_registered", device=gpu.index, error=str(err))
        else:
            if device.is_quarantined:
                log.error("device_quarantined", device=gpu.index, reason=device.reason)
                continue
        usable.append(gpu)
    return usable


def quarantine(database: Database, gpu: Gpu, reason: str) -> None:
    """Keep a faulty device out of use, also after a restart, until a person releases it."""
    log.error("device_quarantined", device=gpu.index, reason=reason)
    try:
        with database.write() as session:
            workers.quarantine(session, gpu.uuid, reason)
    except DatabaseUnavailable as err:
        log.warning("quarantine_not_written", device=gpu.index, error=str(err))


def _describe(index: int) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    return Gpu(
        index=index,
        uuid=str(pynvml.nvmlDeviceGetUUID(handle)),
        name=str(pynvml.nvmlDeviceGetName(handle)),
        memory_bytes=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
    )
