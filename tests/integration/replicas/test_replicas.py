"""Two API servers and two controllers at once on one PostgreSQL, with the timings that people get."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from trainyard.v1 import job_pb2

from services.client.sdk import Trainyard
from services.core.ids import new_id
from services.core.states import JobState
from services.db import jobs, workers
from services.db.workers import WorkerInfo
from tests.integration.replicas.cluster import Cluster, cluster
from tests.stack.builders import new_model_version
from tests.stack.door import door
from tests.stack.install import PartMissing, required_parts
from tests.stack.platform import wait_until
from tests.stack.postgres import PostgresMissing, postgres_process

JOBS = 100
TAKEOVER_SECONDS = 10.0
PATIENCE_SECONDS = 60.0


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp("replicas")
    # Long enough that every second message for a job is a doubled one.
    environ = {"TRAINYARD_TIMINGS__REDISPATCH_AFTER": "600"}
    with ExitStack() as closing:
        with required_parts():
            try:
                server = closing.enter_context(postgres_process(directory / "postgres", in_memory=True))
            except PostgresMissing as err:
                raise PartMissing(str(err)) from err
        found = closing.enter_context(cluster(directory / "state", server.url, environ))
        found.add_api("api-2")
        found.dataset()
        yield found


def create(client: Trainyard, **fields: Any) -> job_pb2.Job:
    return client.create_job("detection/yolo_v1", dataset="digits", preset="tiny", **fields)


def create_many(running: Cluster) -> set[str]:
    """Create jobs through both API servers at the same time and return their ids."""
    with running.client("api-1") as first, running.client("api-2") as second, ThreadPoolExecutor(8) as threads:
        made = threads.map(lambda number: create((first, second)[number % 2]), range(JOBS))
        return {job.name.rpartition("/")[2] for job in made}


def test_both_api_servers_show_one_truth(running: Cluster) -> None:
    with running.client("api-1") as first, running.client("api-2") as second:
        request_id = new_id()
        made = create(first, request_id=request_id, display_name="one")
        assert second.get_job(made.name) == made
        assert create(second, request_id=request_id, display_name="one").name == made.name

        second.cancel_job(made.name, reason="enough")
        assert first.get_job(made.name).state == job_pb2.JOB_STATE_CANCELLED

        names = {create(client).name for client in (first, second) for _ in range(3)}
        assert names <= {job.name for job in first.list_jobs()} == {job.name for job in second.list_jobs()}
        for name in names:
            first.cancel_job(name)


def test_a_watch_goes_on_at_the_other_server_without_gap_or_double(running: Cluster) -> None:
    with running.client("api-2") as writer, ExitStack() as closing:
        job = create(writer)
        targets = [("127.0.0.1", running.api_ports[name]) for name in ("api-1", "api-2")]
        front = closing.enter_context(door(*targets))
        reader = closing.enter_context(Trainyard(f"127.0.0.1:{front.port}", token=running.stack.token))
        stream, seen = reader.watch(job.name), []
        with running.database.write() as session:
            lease = jobs.claim(session, job.name.rpartition("/")[2], worker_id="w", ttl_seconds=600)

        def append(count: int) -> None:
            with running.database.write() as session:
                jobs.append_events(session, lease, [("log", {"text": str(n)}) for n in range(count)])

        append(20)
        seen += [next(stream).seq for _ in range(15)]
        running.kill("api-1")
        writing = threading.Thread(target=lambda: [append(5) for _ in range(8)])
        writing.start()
        seen += [next(stream).seq for _ in range(30)]
        writing.join()
        with running.database.write() as session:
            jobs.finish(session, lease, state=JobState.SUCCEEDED, model_version=new_model_version())
        seen += [event.seq for event in stream]
        last = writer.get_job(job.name)

    assert seen == list(range(1, len(seen) + 1))
    assert last.state == job_pb2.JOB_STATE_SUCCEEDED
    assert len(seen) >= 2 + 20 + 40 + 1
    running.add_api("api-1")


def test_no_job_is_dispatched_twice_and_another_controller_takes_over(
    running: Cluster, record_property: Callable[[str, object], None]
) -> None:
    for name in ("controller-1", "controller-2"):
        running.add_controller(name)
    info = WorkerInfo(id="many", host="h", boot_id="b", pid=1, slots=2 * JOBS, queues=["train.cpu"])
    with running.database.write() as session:
        workers.heartbeat(session, info)

    first = create_many(running)
    wait_until(lambda: len(running.messages()) >= JOBS, what="all messages", limit_seconds=PATIENCE_SECONDS)
    (leader,) = running.leaders()
    assert sorted(running.messages()) == sorted(first)

    running.kill(leader)
    killed = time.monotonic()
    del running.metrics_ports[leader]
    with running.client("api-1") as client:
        second = {create(client).name.rpartition("/")[2]}
    wait_until(lambda: len(running.messages()) > JOBS, what="a new leader's message", limit_seconds=PATIENCE_SECONDS)
    seconds = time.monotonic() - killed
    with running.database.write() as session:
        workers.heartbeat(session, info)
    second |= create_many(running)
    wait_until(lambda: len(running.messages()) >= 2 * JOBS + 1, what="all messages", limit_seconds=PATIENCE_SECONDS)
    running.add_controller(leader)

    record_property("takeover_seconds", round(seconds, 3))
    assert seconds < TAKEOVER_SECONDS
    assert len(running.leaders()) == 1
    assert running.leaders() != [leader]
    assert sorted(running.messages()) == sorted(first | second)
