"""What the controller counts for Prometheus."""

from __future__ import annotations

import sqlalchemy as sa

from services.core.states import DeploymentState, JobState
from services.db import archives, deployments, jobs, workers
from services.db import tables as t
from services.db.database import Database
from services.db.deployments import Deployment, NewDeployment
from services.db.events import append_event
from services.db.figures import deployment_figures
from services.db.types import now
from services.db.workers import WorkerInfo
from tests.stack.builders import new_model_version, queued_job, sha256

HOUR = 3600.0


def info(worker_id: str, *, pid: int = 7) -> WorkerInfo:
    return WorkerInfo(id=worker_id, host="h", boot_id="boot", pid=pid, slots=1, queues=["train.cpu"])


def deploy(database: Database, name: str) -> Deployment:
    job = queued_job(database, model_id=name)
    with database.write() as session:
        lease = jobs.claim(session, job.id, worker_id="w", ttl_seconds=60)
        version = new_model_version()
        jobs.finish(session, lease, state=JobState.SUCCEEDED, model_version=version)
        new = NewDeployment(
            project="default",
            deployment_id=name,
            request_id=name,
            request_sha256=sha256(name),
            model_version_id=version.id,
            target="cpu-t1",
        )
        return deployments.insert(session, new)[0]


def age(database: Database, table: sa.Table, seconds: float) -> None:
    """Let every row of a table have last changed so long ago."""
    with database.write() as session:
        session.execute(sa.update(table).values(update_time=now(-seconds)))


def test_a_worker_that_ends_in_order_is_known_no_more(database: Database) -> None:
    with database.write() as session:
        for name in ("leaves", "stays"):
            workers.heartbeat(session, info(name))

        assert workers.leave(session, worker_id="leaves", boot_id="boot", pid=7)
        assert not workers.leave(session, worker_id="leaves", boot_id="boot", pid=7)

        assert [one.id for one in workers.list_workers(session)] == ["stays"]


def test_the_end_of_a_worker_leaves_the_next_one_of_its_name(database: Database) -> None:
    with database.write() as session:
        workers.heartbeat(session, info("w", pid=8))

        assert not workers.leave(session, worker_id="w", boot_id="boot", pid=7)
        assert not workers.leave(session, worker_id="w", boot_id="another boot", pid=8)

        assert [one.pid for one in workers.list_workers(session)] == [8]


def test_workers_silent_for_long_can_be_left_out(database: Database) -> None:
    with database.write() as session:
        workers.heartbeat(session, info("long"))
        session.execute(sa.update(t.workers).values(heartbeat_time=now(-2 * HOUR)))
        workers.heartbeat(session, info("now"))

        assert [one.id for one in workers.list_workers(session, known_seconds=HOUR)] == ["now"]
        assert [(one.id, one.is_alive) for one in workers.list_workers(session)] == [("long", False), ("now", True)]


def test_silence_is_that_of_the_quietest_running_job_and_ends_with_an_event(database: Database) -> None:
    quiet, waiting = queued_job(database), queued_job(database, project="other")
    with database.write() as session:
        lease = jobs.claim(session, quiet.id, worker_id="w", ttl_seconds=60)
    age(database, t.jobs, HOUR)

    with database.write() as session:
        jobs.renew(session, lease, ttl_seconds=60)
    with database.read() as session:
        before = jobs.queue_figures(session)
    with database.write() as session:
        append_event(session, lease, "step", {"step": 1})
    with database.read() as session:
        after = jobs.queue_figures(session)

    assert waiting.queue == quiet.queue
    assert HOUR <= before.longest_silence_seconds["train.cpu"] < HOUR + 60
    assert after.longest_silence_seconds["train.cpu"] < 60


def test_only_deployments_on_their_way_wait(database: Database) -> None:
    ready, going, building = (deploy(database, name) for name in ("ready", "going", "building"))
    with database.write() as session:
        lease = archives.claim(session, ready.archive.id, worker_id="w", ttl_seconds=60)
        archives.finish_ready(
            session, lease, key="a.mar", sha256=sha256("a"), size_bytes=1, form="eager", parity={"boxes": 0.0}
        )
        seen = [(ready.id, sha256("a"), True, ""), (going.id, sha256("b"), True, "")]
        deployments.report_replica(
            session,
            "agent",
            inference_url="http://h",
            grpc_address="h:1",
            token="",
            token_expire_time=None,
            observed=seen,
        )
        deployments.delete(session, "default", "going")
    age(database, t.deployments, HOUR)

    with database.read() as session:
        found = deployment_figures(session)
    with database.write() as session:
        lease = archives.claim(session, building.archive.id, worker_id="w", ttl_seconds=60)
        archives.finish_failed(session, lease, "no parity")
    with database.read() as session:
        later = deployment_figures(session)

    states = DeploymentState
    assert dict(found.by_state) == {states.READY: 1, states.DELETING: 1, states.PENDING: 1}
    assert HOUR <= found.unready_seconds < HOUR + 60
    assert dict(later.by_state) == {states.READY: 1, states.DELETING: 1, states.FAILED: 1}
    assert later.unready_seconds == 0
