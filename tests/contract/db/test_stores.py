"""Checkpoints, artifacts, archives, deployments, workers and the outbox, on both databases."""

from __future__ import annotations

from typing import Any

import pytest

from services.core.errors import (
    AlreadyExists,
    ArtifactNotFound,
    CheckpointNotFound,
    DeploymentNotFound,
    IdempotencyConflict,
    JobNotRunnable,
    LeaseHeld,
    LeaseLost,
    ModelNotFound,
    PreconditionFailed,
)
from services.core.states import ArchiveState, DeploymentState
from services.db import archives, artifacts, checkpoints, deployments, jobs, models, outbox, waiting, workers
from services.db.database import Database
from services.db.deployments import Observed
from tests.builders.serving_rows import built, claimed, current, deployed, new_deployment, running, trained
from tests.stack.builders import (
    new_checkpoint,
    sha256,
)


def test_retention_keeps_the_last_the_best_and_every_tenth(database: Database) -> None:
    lease = running(database)
    metrics = {4: 0.9}
    with database.write() as session:
        made = [
            jobs.commit_checkpoint(session, lease, new_checkpoint(step, metric=metrics.get(step, 0.1)))
            for step in range(1, 15)
        ]

    with database.write() as session:
        doomed = checkpoints.retention(session, lease.job_id)
        marked = checkpoints.mark_deleting(session, [row.id for row in doomed])
    with database.read() as session:
        kept = checkpoints.page(session, lease.job_id, page_size=50)
        again = checkpoints.retention(session, lease.job_id)

    assert [row.step for row in kept] == [14, 13, 12, 10, 4]
    assert sorted(row.step for row in marked) == [1, 2, 3, 5, 6, 7, 8, 9, 11]
    assert {row.id for row in again} == {row.id for row in marked}
    with database.write() as session:
        checkpoints.delete(session, made[0].id)
        checkpoints.delete(session, made[13].id)
        assert checkpoints.list_all(session, lease.job_id)[0].step == 2
        assert checkpoints.get(session, lease.job_id, made[13].id).step == 14


def test_retention_keeps_the_lowest_figure_where_lower_is_better(database: Database) -> None:
    lease = running(database)
    with database.write() as session:
        for step in range(1, 7):
            jobs.commit_checkpoint(session, lease, new_checkpoint(step, metric=0.0 if step == 2 else 1.0))
        doomed = checkpoints.retention(session, lease.job_id, metric_mode="min")

    assert [row.step for row in doomed] == [1, 3]


@pytest.mark.parametrize(("mode", "step"), [("max", 4), ("min", 2)])
def test_the_best_checkpoint_is_the_latest_of_equal_figures(database: Database, mode: str, step: int) -> None:
    lease = running(database)
    with database.write() as session:
        assert checkpoints.best_id(session, lease.job_id, metric_mode=mode) == ""
        figures = {1: 0.1, 2: 0.1, 3: 0.9, 4: 0.9, 5: 0.5, 6: None}
        made = {
            each: jobs.commit_checkpoint(session, lease, new_checkpoint(each, metric=figure))
            for each, figure in figures.items()
        }

        assert checkpoints.best_id(session, lease.job_id, metric_mode=mode) == made[step].id
        checkpoints.mark_deleting(session, [made[step].id])
        assert checkpoints.best_id(session, lease.job_id, metric_mode=mode) == made[step - 1].id


def test_newest_checkpoint_is_never_marked_for_deletion(database: Database) -> None:
    lease = running(database)
    with database.write() as session:
        kept = jobs.commit_checkpoint(session, lease, new_checkpoint(1))
        assert checkpoints.mark_deleting(session, [kept.id]) == []

    with pytest.raises(CheckpointNotFound), database.read() as session:
        checkpoints.get(session, "other", kept.id)


def test_artifact_of_one_key_is_recorded_once_with_an_event_each_time(database: Database) -> None:
    lease = running(database)
    new = artifacts.NewArtifact(name="samples", kind="image", key="k", size_bytes=3, sha256="x", step=5)
    with database.write() as session:
        first = artifacts.add(session, lease, new)
    with database.write() as session:
        again = artifacts.add(session, lease, new)

    assert first == again
    with database.read() as session:
        assert artifacts.page(session, lease.job_id, page_size=5, kind="image") == [first]
        assert artifacts.page(session, lease.job_id, page_size=5, after=(first.create_time, first.id)) == []
        assert artifacts.get(session, lease.job_id, first.id) == first
    with pytest.raises(ArtifactNotFound), database.read() as session:
        artifacts.get(session, lease.job_id, "none")


def test_model_versions_page_newest_first(database: Database) -> None:
    made = [trained(database) for _ in range(3)]

    with database.read() as session:
        first = models.page(session, "default", page_size=2, model_id="digits-yolo")
        rest = models.page(session, "default", page_size=2, after=(first[-1].create_time, first[-1].id))

    assert first + rest == made[::-1]
    with pytest.raises(ModelNotFound), database.read() as session:
        models.get(session, "default", "digits-yolo", 9)


def test_archive_is_one_per_version_and_target(database: Database) -> None:
    version = trained(database)
    with database.write() as session:
        first = archives.ensure(session, version.id, "cpu-t1")
        again = archives.ensure(session, version.id, "cpu-t1")
        other = archives.ensure(session, version.id, "cpu-t2")

    assert first == again
    assert other.id != first.id


def test_archive_lease_that_ran_out_is_sent_again_and_fences_the_old_worker(database: Database) -> None:
    archive = deployed(database, trained(database).id).archive
    with database.write() as session:
        assert archives.due_for_dispatch(session, limit=5, redispatch_after_seconds=60) == [archive.id]
        assert archives.due_for_dispatch(session, limit=5, redispatch_after_seconds=60) == []
    with database.write() as session:
        stale = archives.claim(session, archive.id, worker_id="zombie", ttl_seconds=-1)
    with pytest.raises(LeaseHeld), database.write() as session:
        archives.claim(session, archive.id, worker_id="b", ttl_seconds=60)

    with database.write() as session:
        assert archives.reap(session) == [archive.id]
        assert archives.reap(session) == []
    with database.write() as session:
        assert archives.due_for_dispatch(session, limit=5, redispatch_after_seconds=60) == [archive.id]
    built(database, archive.id)

    for write in (
        lambda s: archives.renew(s, stale, ttl_seconds=1),
        lambda s: archives.finish_failed(s, stale, "x"),
        lambda s: archives.requeue(s, stale),
        lambda s: archives.finish_ready(s, stale, key="z", sha256="z", size_bytes=1, form="eager", parity={}),
    ):
        with pytest.raises(LeaseLost), database.write() as session:
            write(session)
    with database.read() as session:
        found = archives.get(session, archive.id)
    assert (found.state, found.key, found.parity) == (ArchiveState.READY, "archive", {"boxes": 0.0})


def test_archive_finished_twice_is_acknowledged_and_no_longer_claimable(database: Database) -> None:
    archive = deployed(database, trained(database).id).archive
    with database.write() as session:
        lease = archives.claim(session, archive.id, worker_id="b", ttl_seconds=60)
    for _ in range(2):
        with database.write() as session:
            archives.finish_failed(session, lease, "parity: boxes differ by 3 pixels")

    with pytest.raises(JobNotRunnable), database.write() as session:
        archives.claim(session, archive.id, worker_id="b", ttl_seconds=60)


def test_archive_build_given_back_too_often_fails(database: Database) -> None:
    archive = deployed(database, trained(database).id).archive
    for _ in range(archives.MAX_ATTEMPTS):
        with database.write() as session:
            lease = archives.claim(session, archive.id, worker_id="b", ttl_seconds=60)
            archives.requeue(session, lease, message="drained")

    with database.read() as session:
        found = archives.get(session, archive.id)
    assert found.state is ArchiveState.FAILED
    assert "drained" in found.message


def due(database: Database) -> list[str]:
    with database.write() as session:
        return archives.due_for_dispatch(session, limit=5, redispatch_after_seconds=60)


def test_a_queued_build_that_no_deployment_wants_any_more_is_neither_sent_for_nor_begun(database: Database) -> None:
    version = trained(database)
    archive = deployed(database, version.id).archive
    with database.write() as session:
        deployments.delete(session, "default", "reader")

    assert due(database) == []
    with database.read() as session:
        assert not waiting.has_unsent_archives(session)
    with pytest.raises(JobNotRunnable), database.write() as session:
        archives.claim(session, archive.id, worker_id="b", ttl_seconds=60)

    assert deployed(database, version.id).archive.id == archive.id
    assert due(database) == [archive.id]
    built(database, archive.id)


def test_a_build_that_is_wanted_again_is_sent_for_at_once(database: Database) -> None:
    version = trained(database)
    archive = deployed(database, version.id).archive
    assert due(database) == [archive.id]
    with database.write() as session:
        deployments.delete(session, "default", "reader")

    deployed(database, version.id)

    assert due(database) == [archive.id]


def test_a_queued_build_that_an_update_leaves_behind_is_not_begun(database: Database) -> None:
    first, second = trained(database), trained(database)
    left = deployed(database, first.id).archive
    update = {"target": "cpu-t1", "workers": 1, "model_version_id": second.id}
    with database.write() as session:
        wanted = deployments.update(session, "default", "reader", **update).archive

    assert due(database) == [wanted.id]
    with pytest.raises(JobNotRunnable), database.write() as session:
        archives.claim(session, left.id, worker_id="b", ttl_seconds=60)


def test_a_build_that_runs_may_end_though_nobody_wants_it_any_more(database: Database) -> None:
    archive_id = claimed(database, trained(database).id).archive_id
    with database.write() as session:
        lease = archives.ArchiveLease(archive_id, "", "cpu-t1", token=1, attempt=1, worker_id="b")
        archives.finish_ready(session, lease, key="k", sha256=sha256("k"), size_bytes=1, form="aoti", parity={})

    with database.read() as session:
        assert archives.get(session, archive_id).state is ArchiveState.READY


def test_a_pending_deployment_says_how_many_builds_are_before_it_and_a_building_one_what_is_done(
    database: Database,
) -> None:
    names = ("first", "second", "unwanted", "third")
    for name in names:
        deployed(database, trained(database).id, deployment_id=name)
    with database.write() as session:
        deployments.delete(session, "default", "unwanted")
    waits = [current(database, name).message for name in ("first", "second", "third")]
    with database.write() as session:
        first = deployments.get(session, "default", "first").archive.id
        lease = archives.claim(session, first, worker_id="b", ttl_seconds=60)
    with database.write() as session:
        archives.renew(session, lease, ttl_seconds=60, message="exporting aoti")

    assert waits == [
        "its build is next",
        "its build waits for 1 before it",
        "its build waits for 2 before it",
    ]
    with database.read() as session:
        listed = {one.deployment_id: one.message for one in deployments.page(session, "default", page_size=5)}
    assert listed == {
        "first": "exporting aoti",
        "second": "its build waits for 1 before it",
        "third": "its build waits for 2 before it",
    }


def test_a_build_that_is_tried_again_says_why_and_where_it_stands(database: Database) -> None:
    archive = deployed(database, trained(database).id).archive
    with database.write() as session:
        lease = archives.claim(session, archive.id, worker_id="b", ttl_seconds=60)
        archives.requeue(session, lease, message="The object store did not answer.")

    assert current(database).message == "The object store did not answer; its build is next"


def report(database: Database, agent_id: str, *observed: Observed) -> None:
    with database.write() as session:
        deployments.report_replica(
            session,
            agent_id,
            inference_url="http://127.0.0.1:7080",
            grpc_address="127.0.0.1:7083",
            token="secret",
            token_expire_time=None,
            observed=observed,
        )


def test_deployment_state_follows_its_archive_and_its_replicas(database: Database) -> None:
    deployment = deployed(database, trained(database).id)
    states = [deployment.state]
    archive = sha256("archive")

    with database.write() as session:
        lease = archives.claim(session, deployment.archive.id, worker_id="b", ttl_seconds=60)
    states.append(current(database).state)
    with database.write() as session:
        archives.finish_ready(session, lease, key="k", sha256=archive, size_bytes=1, form="aoti", parity={})
    states.append(current(database).state)
    report(database, "agent", Observed(deployment.id, archive, False, "loading"))
    states.append(current(database).state)
    assert current(database).message == "loading"
    report(database, "agent", Observed(deployment.id, archive, False, "no memory", is_failed=True, generation=1))
    states.append(current(database).state)
    report(database, "agent", Observed(deployment.id, archive, True))
    states.append(current(database).state)

    assert states == [
        DeploymentState.PENDING,
        DeploymentState.BUILDING,
        DeploymentState.STARTING,
        DeploymentState.STARTING,
        DeploymentState.FAILED,
        DeploymentState.READY,
    ]
    assert [(replica.agent_id, replica.token) for replica in current(database).replicas] == [("agent", "secret")]


def test_a_failed_replica_has_not_failed_yet_once_the_deployment_was_asked_for_again(database: Database) -> None:
    version = trained(database)
    deployment = deployed(database, version.id)
    built(database, deployment.archive.id)
    failure = Observed(deployment.id, sha256("archive"), False, "no memory", is_failed=True, generation=1)
    report(database, "agent", failure)
    states = [current(database).state]

    with database.write() as session:
        deployments.update(session, "default", "reader", model_version_id=version.id, target="cpu-t1", workers=1)
    states.append(current(database).state)
    report(database, "agent", failure)
    states.append(current(database).state)
    report(database, "agent", failure._replace(generation=2))
    states.append(current(database).state)

    assert states == [
        DeploymentState.FAILED,
        DeploymentState.STARTING,
        DeploymentState.STARTING,
        DeploymentState.FAILED,
    ]
    assert current(database).message == "no memory"


def test_a_failure_of_an_agent_that_does_not_know_generations_counts(database: Database) -> None:
    deployment = deployed(database, trained(database).id)
    built(database, deployment.archive.id)

    report(database, "agent", Observed(deployment.id, sha256("archive"), False, "no memory", is_failed=True))

    assert (current(database).state, current(database).message) == (DeploymentState.FAILED, "no memory")


def test_replica_of_a_silent_agent_does_not_count(database: Database) -> None:
    deployment = deployed(database, trained(database).id)
    built(database, deployment.archive.id)
    report(database, "agent", Observed(deployment.id, sha256("archive"), True))

    silent = current(database, alive_seconds=-1)

    assert (silent.state, silent.replicas) == (DeploymentState.STARTING, ())


def test_agents_serve_the_old_archive_until_the_new_one_is_ready(database: Database) -> None:
    first, second = trained(database), trained(database)
    deployment = deployed(database, first.id)
    with database.read() as session:
        assert deployments.desired(session) == []
    built(database, deployment.archive.id, name="old")

    with database.write() as session:
        updated = deployments.update(
            session, "default", "reader", model_version_id=second.id, target="cpu-t1", workers=2
        )
    with database.read() as session:
        before = deployments.desired(session)
    built(database, updated.archive.id, name="new")
    with database.read() as session:
        after = deployments.desired(session)

    assert [(item.archive_key, item.workers, item.model_version_id) for item in before] == [("old", 2, first.id)]
    assert [(item.archive_key, item.model_name) for item in after] == [("new", "default--reader")]
    assert updated.generation == 2


def test_deployment_replays_and_refuses_what_collides(database: Database) -> None:
    version = trained(database)
    new = new_deployment(version.id, request_id="r1")
    with database.write() as session:
        first, is_new = deployments.insert(session, new)
    with database.write() as session:
        again, is_again_new = deployments.insert(session, new)

    assert (first, is_new, is_again_new) == (again, True, False)
    with pytest.raises(IdempotencyConflict), database.write() as session:
        deployments.insert(session, new_deployment(version.id, request_id="r1", request_sha256=sha256("x")))
    with pytest.raises(AlreadyExists), database.write() as session:
        deployments.insert(session, new_deployment(version.id))
    with pytest.raises(ModelNotFound), database.write() as session:
        deployments.insert(session, new_deployment(version.id, project="other"))


def test_failed_build_is_tried_again_by_a_fresh_deployment(database: Database) -> None:
    version = trained(database)
    lease = claimed(database, version.id)
    with database.write() as session:
        archives.finish_failed(session, lease, "out of disk")

    assert deployed(database, version.id).state is DeploymentState.PENDING


def test_deleted_deployment_goes_when_no_agent_reports_it(database: Database) -> None:
    deployment = deployed(database, trained(database).id)
    built(database, deployment.archive.id)
    report(database, "agent", Observed(deployment.id, sha256("archive"), True))

    with database.write() as session:
        assert deployments.delete(session, "default", "reader").state is DeploymentState.DELETING
    assert current(database).state is DeploymentState.DELETING
    with database.read() as session:
        assert deployments.desired(session) == []
    with pytest.raises(PreconditionFailed), database.write() as session:
        deployments.update(
            session, "default", "reader", model_version_id=deployment.model_version_id, target="cpu-t1", workers=1
        )
    report(database, "agent")

    with pytest.raises(DeploymentNotFound):
        current(database)
    report(database, "agent", Observed(deployment.id, sha256("archive"), True))


def test_deployment_nobody_serves_goes_at_once(database: Database) -> None:
    deployed(database, trained(database).id)
    with database.write() as session:
        deployments.delete(session, "default", "reader")

    with pytest.raises(DeploymentNotFound):
        current(database)


def test_deployments_page_with_their_replicas(database: Database) -> None:
    version = trained(database)
    made = [deployed(database, version.id, deployment_id=name) for name in ("a", "b", "c")]
    report(database, "agent", *(Observed(item.id, "x", False) for item in made))

    with database.read() as session:
        first = deployments.page(session, "default", page_size=2)
        rest = deployments.page(session, "default", page_size=2, after=(first[-1].create_time, first[-1].id))

    assert [item.deployment_id for item in first + rest] == ["c", "b", "a"]
    assert all(len(item.replicas) == 1 for item in first + rest)


def worker(worker_id: str, **changes: Any) -> workers.WorkerInfo:
    values: dict[str, Any] = {"host": "h", "boot_id": "b", "pid": 1, "slots": 2, "queues": ["train.cpu"]}
    return workers.WorkerInfo(id=worker_id, **{**values, **changes})


def test_free_slots_are_those_of_live_workers_less_what_runs(database: Database) -> None:
    running(database)
    with database.write() as session:
        for info in (worker("a"), worker("b"), worker("c", queues=["train.gpu"]), worker("d", is_draining=True)):
            workers.heartbeat(session, info)
        workers.heartbeat(session, worker("a", slots=3))

    with database.read() as session:
        assert workers.capacity(session, "train.cpu") == workers.Capacity(workers=2, slots=5, free_slots=4)
        assert workers.capacity(session, "train.cpu", alive_seconds=-1).free_slots == 0
        assert [item.id for item in workers.list_workers(session)] == ["a", "b", "c", "d"]
    with database.write() as session:
        assert workers.forget(session, older_than_seconds=3600) == 0
        assert workers.forget(session, older_than_seconds=-1) == 4


def test_a_worker_whose_disk_is_full_offers_no_slots_until_it_has_room_again(database: Database) -> None:
    def capacity(*infos: workers.WorkerInfo) -> workers.Capacity:
        with database.write() as session:
            for info in infos:
                workers.heartbeat(session, info)
            return workers.capacity(session, "train.cpu")

    full = capacity(worker("a", is_disk_full=True), worker("b"))

    assert full == workers.Capacity(workers=2, slots=2, free_slots=2, full_disks=1)
    assert capacity(worker("a")) == workers.Capacity(workers=2, slots=4, free_slots=4, full_disks=0)


def test_quarantine_of_a_device_survives_its_worker(database: Database) -> None:
    with database.write() as session:
        workers.register_device(session, uuid="gpu-1", host="h", name="H", memory_bytes=2**37)
        workers.quarantine(session, "gpu-1", "Xid 79")
        device = workers.register_device(session, uuid="gpu-1", host="h", name="H", memory_bytes=2**37)

    assert (device.is_quarantined, device.reason) == (True, "Xid 79")
    with database.write() as session:
        workers.release(session, "gpu-1")
        assert [item.is_quarantined for item in workers.list_devices(session, host="h")] == [False]


def test_outbox_item_comes_again_until_it_is_done(database: Database) -> None:
    with database.write() as session:
        outbox.put(session, "webhook", "job-1", {"url": "x"})
        outbox.put(session, "webhook", "job-1", {"url": "y"})

    with database.write() as session:
        assert [item.tries for item in outbox.take(session, limit=5, retry_after_seconds=-1)] == [1]
    with database.write() as session:
        (item,) = outbox.take(session, limit=5, retry_after_seconds=60)
        assert (item.tries, item.payload) == (2, {"url": "x"})
        assert outbox.take(session, limit=5, retry_after_seconds=60) == []
        outbox.done(session, item.id)
        assert outbox.forget(session, older_than_seconds=-1) == 1
