"""The composition root of the controller: which loops there are, how often they run and what wakes them."""

from __future__ import annotations

import random
import threading

import structlog

from services.broker.app import make_app
from services.broker.sender import Sender
from services.controller import metrics
from services.controller.cleanup import Cleanup
from services.controller.dispatcher import Dispatcher
from services.controller.effects import Effects
from services.controller.figures import Figures
from services.controller.loop import Loop
from services.controller.reaping import Reaping
from services.controller.removal import PrefixRemover
from services.controller.retention import DELETE_CHECKPOINT, CheckpointRemover, Retention
from services.controller.sweep import Sweep
from services.controller.waker import Waker
from services.core.settings import Settings
from services.db.database import Database
from services.db.deletion import DELETE_OBJECTS
from services.db.galleries import DELETE_IMAGES
from services.storage.port import ObjectStore

log = structlog.get_logger(__name__)

FIGURES_SECONDS = 5.0
RETENTION_SECONDS = 60.0
STOP_SECONDS = 10.0


class Controller:
    """All loops of one controller process, idle until it leads."""

    def __init__(self, settings: Settings, database: Database, store: ObjectStore) -> None:
        timings = settings.timings
        self._sender = Sender(make_app(settings))
        self._leadership = database.leadership("controller")
        self._election_seconds = min(2.0, timings.dispatch_interval)
        reaping = Reaping(database, timings)
        dispatcher = Dispatcher(
            database,
            self._sender,
            redispatch_after_seconds=timings.redispatch_after,
            preempt_after_seconds=timings.preempt_after,
        )
        cleanup = Cleanup(database, store)
        self._figures = Figures(database)
        effects = Effects(
            database,
            {
                DELETE_CHECKPOINT: CheckpointRemover(database, store),
                DELETE_IMAGES: PrefixRemover(store, "images"),
                DELETE_OBJECTS: PrefixRemover(store, "job"),
            },
        )
        retention_seconds = min(RETENTION_SECONDS, timings.collect_interval)
        retention = Retention(database, changed_within_seconds=10 * retention_seconds)
        # Reapers of several controllers, and everything else of one, should not wake in step.
        spread = random.uniform(0.9, 1.1)
        jobs = Loop("dispatch_jobs", dispatcher.tick_jobs, interval_seconds=timings.dispatch_interval)
        archives = Loop("dispatch_archives", dispatcher.tick_archives, interval_seconds=timings.dispatch_interval)
        self._waker = Waker(database, jobs=jobs, archives=archives)
        self._loops = (
            jobs,
            archives,
            Loop("effects", effects.tick, interval_seconds=timings.dispatch_interval),
            Loop("reap", reaping.tick, interval_seconds=timings.reap_interval),
            Loop("figures", self._figures.tick, interval_seconds=FIGURES_SECONDS),
            Loop("deployments", cleanup.tick_deployments, interval_seconds=timings.reconcile_interval),
            Loop("retention", retention.tick, interval_seconds=retention_seconds),
            Loop("datasets", cleanup.tick_datasets, interval_seconds=timings.collect_interval * spread),
            Loop("registry", cleanup.tick_registry, interval_seconds=timings.collect_interval * spread),
            Loop("outbox", effects.forget, interval_seconds=timings.collect_interval * spread),
            Loop("sweep", Sweep(database, store).tick, interval_seconds=timings.collect_interval * spread),
        )

    def run(self, stopping: threading.Event) -> None:
        """Lead whenever possible until `stopping` is set, then end every loop."""
        for loop in self._loops:
            loop.start()
        self._waker.start()
        is_leading = False
        while not stopping.is_set():
            was_leading, is_leading = is_leading, self._leadership.acquire()
            if is_leading != was_leading:
                self._lead(is_leading)
            stopping.wait(self._election_seconds)
        self._waker.stop(timeout_seconds=STOP_SECONDS)
        for loop in self._loops:
            loop.stop(timeout_seconds=STOP_SECONDS)
        self._leadership.release()
        self._sender.close()

    def _lead(self, is_leading: bool) -> None:
        log.info("leadership_changed", is_leading=is_leading)
        metrics.LEADING.set(is_leading)
        self._figures.lead(is_leading)
        for loop in self._loops:
            loop.lead(is_leading)
