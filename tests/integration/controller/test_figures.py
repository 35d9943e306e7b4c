"""The controller's gauges, as a scrape finds them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY

from services.controller.figures import Figures
from services.db import jobs, workers
from services.db.database import Database
from services.db.workers import WorkerInfo
from tests.stack.builders import queued_job


@pytest.fixture
def figures(database: Database) -> Iterator[Figures]:
    made = Figures(database)
    made.lead(True)
    yield made
    made.lead(False)


def shown(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def heartbeat(database: Database, *queues: str) -> None:
    with database.write() as session:
        workers.heartbeat(session, WorkerInfo(id="w", host="h", boot_id="b", pid=1, slots=2, queues=queues))


def test_a_worker_that_ended_in_order_is_in_no_state(figures: Figures, database: Database) -> None:
    heartbeat(database, "train.cpu")
    figures.tick()
    assert shown("trainyard_workers", state="active") == 1

    with database.write() as session:
        workers.leave(session, worker_id="w", boot_id="b", pid=1)
    figures.tick()

    assert [shown("trainyard_workers", state=state) for state in ("active", "draining", "lost")] == [0, 0, 0]


def test_a_queue_that_is_no_more_is_dropped_and_the_others_stay(figures: Figures, database: Database) -> None:
    queued_job(database)
    heartbeat(database, "train.gpu")
    figures.tick()
    assert shown("trainyard_worker_slots", queue="train.gpu") == 2

    heartbeat(database, "train.cpu")
    figures.tick()

    assert shown("trainyard_worker_slots", queue="train.gpu") is None
    assert shown("trainyard_worker_slots", queue="train.cpu") == 2
    assert shown("trainyard_queued_jobs", queue="train.cpu") == 1


def test_a_running_job_is_as_old_as_its_last_word(figures: Figures, database: Database) -> None:
    job = queued_job(database)
    with database.write() as session:
        jobs.claim(session, job.id, worker_id="w", ttl_seconds=60)

    figures.tick()

    silence = shown("trainyard_job_silence_seconds", queue="train.cpu")
    assert shown("trainyard_running_jobs", queue="train.cpu") == 1
    assert silence is not None
    assert 0 <= silence < 60


def test_who_does_not_lead_any_more_reports_nothing(figures: Figures, database: Database) -> None:
    queued_job(database)
    figures.tick()
    assert shown("trainyard_jobs", state="queued") == 1

    figures.lead(False)
    figures.tick()

    assert shown("trainyard_jobs", state="queued") is None
    assert shown("trainyard_deployment_unready_seconds") == 0
