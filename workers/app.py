"""Composes a worker from its settings and runs it: home, warm parent, Celery consumer, registry, metrics."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import structlog
from celery import Celery, signals
from prometheus_client import start_http_server

from services.broker.app import make_app, select_queues
from services.broker.sender import BUILD_QUEUE
from services.core.disk import register_disk
from services.core.errors import DatabaseUnavailable, SettingsInvalid
from services.core.log import configure_logging
from services.core.queues import names_of
from services.core.settings import Settings
from services.db import jobs
from services.db.database import Database
from services.storage.open import open_store
from workers import devices, host, metrics, tasks
from workers.cache import DatasetCache
from workers.devices import list_gpus
from workers.environment import child_environment
from workers.families.catalog import CATALOG, family_of
from workers.registry import Registry
from workers.runtime import Identity, Runtime, Slot, Slots, devices_of
from workers.salvage import Salvage
from workers.sweep import Orphan, sweep, take_home
from workers.warm_link import WarmLink

log = structlog.get_logger(__name__)


HOME_SECONDS = 2.0


class NoGpu(SettingsInvalid):
    """TRAINYARD_WORKER_DEVICE is cuda, but this machine shows no NVIDIA device; install the driver or say auto."""

    def __init__(self) -> None:
        super().__init__(inspect.getdoc(type(self)))


class SlotTooSmall(SettingsInvalid):
    """A queue's jobs need more GPUs than a slot has."""

    def __init__(self, wanted: int) -> None:
        super().__init__(f"TRAINYARD_WORKER_QUEUES names train.gpu.x{wanted}: set TRAINYARD_WORKER_SLOT_GPUS={wanted}")


def run(settings: Settings) -> int:
    """Consume until told to stop, then drain; return the exit code of the process."""
    configure_logging(level=settings.log_level, as_json=settings.log_json)
    logging.basicConfig(level=logging.WARNING)
    with composed(settings) as runtime:
        app = make_app(settings)
        select_queues(app, runtime.queues)
        tasks.register(app, runtime)
        return _consume(app, runtime)


@contextmanager
def composed(settings: Settings) -> Iterator[Runtime]:
    """Build the parts of a worker, start its background threads, and end them all on the way out."""
    homes = settings.state_dir / "workers"
    worker_id = settings.worker_id or f"{host.host_name()}-{os.getpid()}"
    home = homes / worker_id
    with ExitStack() as closing:
        # Other workers of this host hold the home of a dead one for a moment, to look what it left.
        closing.enter_context(take_home(home, patience_seconds=HOME_SECONDS))
        orphans = sweep(homes, home, Salvage(settings.state_dir / "salvage"))
        database = Database(settings.resolved_database_url)
        closing.callback(database.dispose)
        _let_leases_run_out(database, orphans)
        warm = WarmLink(child_environment(os.environ))
        warm.start()
        closing.callback(warm.close)
        identity = Identity(worker_id=worker_id, host=host.host_name(), boot_id=host.boot_id())
        runtime = _runtime(settings, identity, database, warm)
        runtime.cache.sweep()
        registry = Registry(runtime)
        registry.start()
        closing.callback(registry.close)
        if settings.metrics_port:
            register_disk(settings.state_dir)
            metrics.register_machine()
            metrics.expect_work({family_of(recipe) for recipe in CATALOG})
            metrics.INFO.labels(worker_id).set(1)
            server, _ = start_http_server(settings.metrics_port, settings.host)
            closing.callback(server.shutdown)
        log.info("worker_started", worker=worker_id, queues=runtime.queues, threads=runtime.threads)
        yield runtime


def _let_leases_run_out(database: Database, orphans: Sequence[Orphan]) -> None:
    """Spare jobs of dead workers the rest of their leases: whoever could have used one is known to be gone."""
    try:
        for orphan in orphans:
            with database.write() as session:
                is_held = jobs.let_run_out(session, orphan.job_id, token=orphan.token, worker_id=orphan.worker_id)
            if is_held:
                log.warning(
                    "lease_of_dead_worker_ended", job=orphan.job_id, token=orphan.token, worker=orphan.worker_id
                )
    except DatabaseUnavailable as err:
        # They run out by themselves.
        log.warning("leases_of_dead_workers_left", error=str(err))


def _runtime(settings: Settings, identity: Identity, database: Database, warm: WarmLink) -> Runtime:
    store = open_store(settings)
    return Runtime(
        settings=settings,
        identity=identity,
        database=database,
        store=store,
        cache=DatasetCache(settings.state_dir / "cache" / "datasets", store, limit_bytes=settings.cache_limit_bytes),
        warm=warm,
        slots=Slots(_slots(settings, identity, database)),
        home=settings.state_dir / "workers" / identity.worker_id,
    )


def _slots(settings: Settings, identity: Identity, database: Database) -> list[Slot]:
    """Return one slot a usable GPU, up to the number asked for; CPU slots where there is none or none is wanted."""
    gpus = [] if settings.worker_device == "cpu" else list_gpus()
    if not gpus:
        if settings.worker_device == "cuda":
            raise NoGpu
        return [Slot() for _ in range(settings.worker_slots)]
    usable = devices.register(database, gpus, host=identity.host)
    size = settings.worker_slot_gpus
    wanted = max(map(devices_of, names_of(settings.worker_queues)))
    if wanted > size:
        raise SlotTooSmall(wanted)
    whole = usable[: min(settings.worker_slots, len(usable) // size) * size]
    return [Slot(tuple(whole[start : start + size])) for start in range(0, len(whole), size)]


def _consume(app: Celery, runtime: Runtime) -> int:
    def drain(**_: Any) -> None:
        runtime.drain.set()

    # Sent by the handler of SIGTERM in the main thread, while the pool still waits for what it runs.
    signals.worker_shutting_down.connect(drain, weak=False)
    worker = app.Worker(
        hostname=f"worker@{runtime.identity.worker_id}",
        concurrency=_pool_size(runtime),
        loglevel="WARNING",
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    worker.start()
    return int(worker.exitcode or 0)


def _pool_size(runtime: Runtime) -> int:
    """Return one thread a slot, and one more where archives are built beside attempts: a deployment must not wait
    until training ends.
    """
    has_both = BUILD_QUEUE in runtime.queues and bool(runtime.train_queues)
    return runtime.settings.worker_slots + has_both
