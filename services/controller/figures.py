"""Keeps the gauges of jobs, queues, deployments and workers up to date."""

from __future__ import annotations

from services.controller import metrics
from services.core.states import DeploymentState, JobState
from services.db import jobs, workers
from services.db.database import Database
from services.db.figures import deployments_by_state

WORKER_STATES = ("active", "draining", "lost")


class Figures:
    """Reads counts and sets gauges; only the leader reports, so that sums over controllers are right."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def tick(self) -> None:
        with self._database.read() as session:
            queues = jobs.queue_figures(session)
            deployments = deployments_by_state(session)
            known = workers.list_workers(session)
        slots: dict[str, int] = {}
        states = dict.fromkeys(WORKER_STATES, 0)
        for worker in known:
            states[("draining" if worker.is_draining else "active") if worker.is_alive else "lost"] += 1
            for queue in worker.queues if worker.is_alive else ():
                slots[queue] = slots.get(queue, 0) + worker.slots
        self.clear()
        for state in JobState:
            metrics.JOBS.labels(state.value).set(queues.jobs.get(state, 0))
        for deployment_state in DeploymentState:
            metrics.DEPLOYMENTS.labels(deployment_state.value).set(deployments.get(deployment_state, 0))
        for word, count in states.items():
            metrics.WORKERS.labels(word).set(count)
        for queue in queues.queued.keys() | queues.running.keys() | slots.keys():
            metrics.QUEUED.labels(queue).set(queues.queued.get(queue, 0))
            metrics.RUNNING.labels(queue).set(queues.running.get(queue, 0))
            metrics.QUEUE_AGE.labels(queue).set(queues.oldest_age_seconds.get(queue, 0.0))
            metrics.SLOTS.labels(queue).set(slots.get(queue, 0))

    @staticmethod
    def clear() -> None:
        """Forget all figures, as a controller that does not lead must."""
        for gauge in metrics.FIGURES:
            gauge.clear()
