"""What differs with PostgreSQL: several writers at once, and notifications instead of a file's counter."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from trainyard.v1 import job_pb2

from services.core.ids import new_id
from services.core.settings import Settings
from services.core.states import JobState
from services.db import jobs
from services.db.database import Database
from tests.integration.api.conftest import TIMEOUT, Running, job_request, serving
from tests.integration.api.failures import refused
from tests.stack.builders import make_dataset, new_model_version
from tests.stack.postgres import PostgresMissing, PostgresServer, postgres_process


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[PostgresServer]:
    try:
        with postgres_process(tmp_path / "postgres", in_memory=True) as server:
            yield server
    except PostgresMissing as err:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(err))


@pytest.fixture
def api(postgres: PostgresServer, tmp_path: Path) -> Iterator[Running]:
    database = Database(postgres.url)
    database.migrate()
    with database.write() as session:
        make_dataset(session)
    database.dispose()
    with serving(Settings(state_dir=tmp_path, database_url=postgres.url)) as (running, _):
        yield running


def test_creates_and_streams_work_under_concurrency(api: Running) -> None:
    request = job_request(request_id=new_id())
    with ThreadPoolExecutor(16) as threads:
        same = set(threads.map(lambda _: api.jobs.CreateJob(request, timeout=TIMEOUT).job.name, range(32)))
        different = set(threads.map(lambda _: api.create().name, range(64)))
    assert (len(same), len(different)) == (1, 64)

    (name,) = same
    stream = api.jobs.WatchJob(job_pb2.WatchJobRequest(name=name), timeout=TIMEOUT)
    seen = [next(stream).event.seq]
    with api.database.write() as session:
        lease = jobs.claim(session, name.rpartition("/")[2], worker_id="worker-1", ttl_seconds=60)
    begin = time.monotonic()
    seen.append(next(stream).event.seq)
    waited = time.monotonic() - begin
    with api.database.write() as session:
        jobs.append_events(session, lease, [("log", {"text": str(i)}) for i in range(50)])
        jobs.finish(session, lease, state=JobState.SUCCEEDED, model_version=new_model_version())
    seen += [response.event.seq for response in stream]

    assert seen == list(range(1, 55))
    assert waited < 0.9  # a lost notification would cost the hub's whole wait


def test_a_database_that_is_away_is_unavailable_and_comes_back(api: Running, postgres: PostgresServer) -> None:
    job = api.create()

    postgres.stop()
    refusal = refused(api.create)
    postgres.start()
    stream = api.jobs.WatchJob(job_pb2.WatchJobRequest(name=job.name, after_seq=1), timeout=TIMEOUT)

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
    assert "postgres" not in refusal.message
    with api.database.write() as session:
        jobs.cancel(session, "default", job.name.rpartition("/")[2], "done")
    assert [response.event.seq for response in stream] == [2]
