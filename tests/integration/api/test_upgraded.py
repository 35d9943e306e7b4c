"""Everything that the first release stored, read over the API after the migration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from trainyard.v1 import dataset_pb2, deployment_pb2, job_pb2, model_pb2

from services.core.settings import Settings
from services.db import migrations
from services.db.database import Database
from tests.integration.api.conftest import TIMEOUT, Running, serving
from tests.stack import first_release as old
from tests.stack.install import PartMissing, required_parts
from tests.stack.postgres import PostgresMissing, postgres_process

PARENT = "projects/default"


@pytest.fixture(params=["sqlite", "postgres"])
def upgraded_api(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Running]:
    with ExitStack() as closing:
        url = f"sqlite:///{tmp_path / 'metadata.sqlite3'}"
        if request.param == "postgres":
            with required_parts():
                try:
                    url = closing.enter_context(postgres_process(tmp_path / "postgres", in_memory=True)).url
                except PostgresMissing as err:
                    raise PartMissing(str(err)) from err
        database = Database(url)
        with database._engine.connect() as connection:
            migrations.upgrade(connection, revision=old.REVISION)
        with database._engine.connect() as connection:
            old.write(connection)
        database.migrate()
        database.dispose()
        yield closing.enter_context(serving(Settings(state_dir=tmp_path, database_url=url)))[0]


def test_every_resource_is_listed_and_got(upgraded_api: Running) -> None:
    api = upgraded_api
    jobs = api.jobs.ListJobs(job_pb2.ListJobsRequest(parent=PARENT), timeout=TIMEOUT).jobs
    done = api.jobs.GetJob(job_pb2.GetJobRequest(name=f"{PARENT}/jobs/{old.SUCCEEDED}"), timeout=TIMEOUT).job
    kept = api.jobs.ListCheckpoints(job_pb2.ListCheckpointsRequest(parent=done.name), timeout=TIMEOUT).checkpoints
    sets = api.datasets.ListDatasets(dataset_pb2.ListDatasetsRequest(parent=PARENT), timeout=TIMEOUT).datasets
    found = api.models.ListModelVersions(
        model_pb2.ListModelVersionsRequest(parent=f"{PARENT}/models/digits"), timeout=TIMEOUT
    ).model_versions
    request = deployment_pb2.ListDeploymentsRequest(parent=PARENT)
    deployed = api.deployments.ListDeployments(request, timeout=TIMEOUT).deployments

    assert {
        job.name.rpartition("/")[2]: job_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_") for job in jobs
    } == {
        old.QUEUED: "QUEUED",
        old.RUNNING: "RUNNING",
        old.SUCCEEDED: "SUCCEEDED",
        old.FAILED: "FAILED",
        old.CANCELLED: "CANCELLED",
    }
    assert (done.checkpoint_step, done.config["optim"]["lr"], done.resources.processes) == (720, 0.005, 1)
    assert old.CHECKPOINT in {checkpoint.name.rpartition("/")[2] for checkpoint in kept}
    assert {one.version for one in sets} == {2}
    assert [dict(one.metrics) for one in found] == [{"eval/ap50": 0.8125}]
    assert [one.name for one in deployed] == [f"{PARENT}/deployments/digits"]


def test_the_history_of_an_old_job_is_watched_to_its_end(upgraded_api: Running) -> None:
    name = f"{PARENT}/jobs/{old.SUCCEEDED}"

    events = [reply.event for reply in upgraded_api.jobs.WatchJob(job_pb2.WatchJobRequest(name=name), timeout=TIMEOUT)]

    assert [event.seq for event in events] == list(range(1, 7))
    assert events[-1].state_change.state == job_pb2.JOB_STATE_SUCCEEDED
