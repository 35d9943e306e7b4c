"""Keeps the gauges of jobs, queues, deployments and workers up to date."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from prometheus_client import Gauge

from services.controller import metrics
from services.core.states import DeploymentState, JobState
from services.db import jobs, workers
from services.db.database import Database
from services.db.figures import deployment_figures
from services.db.job_records import QueueFigures
from services.db.workers import Worker

WORKER_STATES = ("active", "draining", "lost")
LOST_SECONDS = 3600.0
"""A worker that has been silent for longer is not coming back, and no longer news."""

Values = Mapping[str, float]


class Figures:
    """Reads counts and sets gauges; only the leader reports, so that sums over controllers are right."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # A tick that began before leadership was lost must not report after it.
        self._lock = threading.Lock()
        self._is_leading = False
        self._shown: dict[Gauge, Values] = {}

    def lead(self, is_leading: bool) -> None:
        """Report from now on, or forget all figures; a tick under way reports nothing any more."""
        with self._lock:
            self._is_leading = is_leading
            if not is_leading:
                for gauge in metrics.FIGURES:
                    gauge.clear()
                metrics.UNREADY_AGE.set(0)
                self._shown.clear()

    def tick(self) -> None:
        with self._database.read() as session:
            queues = jobs.queue_figures(session)
            deployments = deployment_figures(session)
            known = workers.list_workers(session, known_seconds=LOST_SECONDS)
        figures = {
            metrics.JOBS: {state.value: queues.jobs.get(state, 0) for state in JobState},
            metrics.DEPLOYMENTS: {state.value: deployments.by_state.get(state, 0) for state in DeploymentState},
            metrics.WORKERS: _workers_by_state(known),
            **_by_queue(queues, _slots_by_queue(known)),
        }
        with self._lock:
            if self._is_leading:
                metrics.UNREADY_AGE.set(deployments.unready_seconds)
                for gauge, values in figures.items():
                    self._show(gauge, values)

    def _show(self, gauge: Gauge, values: Values) -> None:
        """Set what is and drop what is no more: a scrape meanwhile must not find a gauge empty."""
        for label, value in values.items():
            gauge.labels(label).set(value)
        for label in self._shown.get(gauge, {}).keys() - values.keys():
            gauge.remove(label)
        self._shown[gauge] = values


def _workers_by_state(known: Sequence[Worker]) -> Values:
    states = dict.fromkeys(WORKER_STATES, 0.0)
    for worker in known:
        states[("draining" if worker.is_draining else "active") if worker.is_alive else "lost"] += 1
    return states


def _slots_by_queue(known: Sequence[Worker]) -> Values:
    slots: dict[str, float] = {}
    for worker in known:
        for queue in worker.queues if worker.is_alive else ():
            slots[queue] = slots.get(queue, 0) + worker.slots
    return slots


def _by_queue(queues: QueueFigures, slots: Values) -> dict[Gauge, Values]:
    sources: dict[Gauge, Values] = {
        metrics.QUEUED: queues.queued,
        metrics.RUNNING: queues.running,
        metrics.QUEUE_AGE: queues.oldest_age_seconds,
        metrics.SILENCE: queues.longest_silence_seconds,
        metrics.SLOTS: slots,
    }
    names = queues.queued.keys() | queues.running.keys() | slots.keys()
    return {gauge: {name: values.get(name, 0.0) for name in names} for gauge, values in sources.items()}
