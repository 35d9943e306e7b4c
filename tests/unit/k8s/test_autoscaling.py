"""Workers are as many as there is work, and none of them is taken away from a job."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from services.core.states import ArchiveState, JobState
from services.db import tables as t
from services.db.database import Database
from tests.stack.manifests import Overlay, load

SCALED = ("staging", "prod")


@pytest.fixture(params=SCALED)
def scaled(request: pytest.FixtureRequest) -> Overlay:
    return load(request.param)


def test_every_worker_is_scaled_by_the_database(scaled: Overlay) -> None:
    targets = {one["spec"]["scaleTargetRef"]["name"] for one in scaled.of("ScaledObject").values()}

    assert targets == {name for name in scaled.pods if name.startswith("worker")}


def test_nothing_but_the_autoscaler_says_how_many_workers_there_are(scaled: Overlay) -> None:
    assert {name for name, pod in scaled.pods.items() if pod.kind == "Deployment" and pod.replicas is None} == {
        one["spec"]["scaleTargetRef"]["name"] for one in scaled.of("ScaledObject").values()
    }


def test_workers_go_only_when_nothing_waits_and_nothing_runs(scaled: Overlay) -> None:
    for one in scaled.of("ScaledObject").values():
        behavior = one["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        assert behavior["scaleDown"] == {"selectPolicy": "Disabled"}
        assert one["spec"]["minReplicaCount"] == 0


def test_the_database_is_the_one_of_the_secret(scaled: Overlay) -> None:
    (authentication,) = scaled.of("TriggerAuthentication").values()
    (reference,) = authentication["spec"]["secretTargetRef"]

    assert reference["name"] in scaled.pods["worker"].secrets
    assert reference["key"] == "TRAINYARD_DATABASE_URL"
    for one in scaled.of("ScaledObject").values():
        (trigger,) = one["spec"]["triggers"]
        assert trigger["authenticationRef"]["name"] == authentication["metadata"]["name"]


def test_queries_read_the_tables_and_count_what_the_queues_of_each_worker_hold(tmp_path: Path) -> None:
    prod = load("prod")
    database = Database(f"sqlite:///{tmp_path / 'metadata.sqlite3'}")
    database.migrate()

    with database.read() as session:
        counts = {name: session.execute(sa.text(_query(prod, name))).scalar_one() for name in prod.of("ScaledObject")}
    database.dispose()

    assert counts == {"worker": 0, "worker-gpu": 0}


def test_queries_name_states_and_queues_that_exist() -> None:
    prod = load("prod")

    for name in prod.of("ScaledObject"):
        query = _query(prod, name)
        queues = prod.pods[name].env["TRAINYARD_WORKER_QUEUES"].split(",")
        assert [queue for queue in queues if queue.startswith("train.") and f"queue = '{queue}'" in query]
        assert f"state IN ('{JobState.QUEUED}', '{JobState.RUNNING}')" in query
        builds = f"FROM {t.archives.name} WHERE state IN ('{ArchiveState.QUEUED}', '{ArchiveState.BUILDING}')"
        assert (builds in query) == ("serve.build" in queues)


def _query(overlay: Overlay, name: str) -> str:
    (trigger,) = overlay.of("ScaledObject")[name]["spec"]["triggers"]
    query: str = trigger["metadata"]["query"]
    return query
