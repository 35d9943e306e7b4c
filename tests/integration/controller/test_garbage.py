"""What goes and what stays: checkpoints, deleted datasets, and objects that no row owns."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from ulid import ULID

from services.controller.cleanup import Cleanup
from services.controller.effects import Effects
from services.controller.removal import PrefixRemover
from services.controller.retention import DELETE_CHECKPOINT, CheckpointRemover, Retention
from services.controller.sweep import Sweep
from services.core.errors import CheckpointNotFound, PreconditionFailed, StoreUnavailable
from services.core.ids import new_id
from services.core.states import FailureReason, JobState
from services.db import archives, artifacts, checkpoints, datasets, jobs, models, outbox
from services.db.artifacts import NewArtifact
from services.db.database import Database
from services.db.deletion import DELETE_OBJECTS
from services.db.jobs import Failure, Job, Lease
from services.storage import layout
from services.storage.port import ObjectStore
from tests.builders.serving_rows import claimed
from tests.stack.builders import new_checkpoint, new_dataset, new_model_version, queued_job, sha256
from workers.families.catalog import CATALOG

NOW = timedelta(seconds=-60)
OLD_ID = str(ULID.from_timestamp(1_700_000_000.0)).lower()


def running_job(database: Database) -> tuple[Job, Lease]:
    job = queued_job(database)
    with database.write() as session:
        return job, jobs.claim(session, job.id, worker_id="worker-1", ttl_seconds=60)


def commit(database: Database, store: ObjectStore, lease: Lease, step: int, metric: float | None = None) -> str:
    prefix = layout.checkpoint_prefix(lease.project, lease.job_id, step, lease.token)
    store.put(f"{prefix}model.safetensors", b"weights")
    store.put(layout.manifest(prefix), b"{}")
    with database.write() as session:
        jobs.commit_checkpoint(session, lease, new_checkpoint(step, prefix=prefix, metric=metric))
    return prefix


def keys(store: ObjectStore) -> set[str]:
    return {info.key for info in store.list("")}


def test_only_the_last_the_best_and_every_tenth_checkpoint_stay(database: Database, store: ObjectStore) -> None:
    job, lease = running_job(database)
    for step in range(1, 16):
        commit(database, store, lease, step, metric=1.0 if step == 4 else 0.1)

    Retention(database, changed_within_seconds=60).tick()
    Effects(database, {DELETE_CHECKPOINT: CheckpointRemover(database, store)}).tick()

    with database.read() as session:
        rows = checkpoints.list_all(session, job.id)
    assert [row.step for row in rows] == [4, 10, 13, 14, 15]
    assert {key.rpartition("/")[0] + "/" for key in keys(store)} == {row.prefix for row in rows}


def test_of_a_recipe_whose_figure_should_be_small_the_smallest_is_best(
    database: Database, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = replace(CATALOG["detection/yolo_v1"], metric_mode="min")
    monkeypatch.setitem(CATALOG, "gan/distance", entry)
    job = queued_job(database, recipe="gan/distance")
    with database.write() as session:
        lease = jobs.claim(session, job.id, worker_id="worker-1", ttl_seconds=60)
    for step in range(1, 8):
        commit(database, store, lease, step, metric=0.5 if step == 2 else 9.0)

    Retention(database, changed_within_seconds=60).tick()

    with database.read() as session:
        kept = [row.step for row in checkpoints.list_all(session, job.id) if row.state == "committed"]
    assert kept == [2, 5, 6, 7]


def test_a_checkpoint_that_a_person_deletes_goes_with_its_objects(database: Database, store: ObjectStore) -> None:
    job, lease = running_job(database)
    prefixes = [commit(database, store, lease, step) for step in (1, 2)]
    with database.read() as session:
        _, newest = checkpoints.list_all(session, job.id)
    with database.write() as session, pytest.raises(PreconditionFailed, match="has not ended"):
        checkpoints.retire(session, job.id, newest.id)
    with database.write() as session:
        jobs.finish(session, lease, state=JobState.SUCCEEDED, model_version=new_model_version())
    with database.write() as session:
        checkpoints.retire(session, job.id, newest.id)

    Retention(database, changed_within_seconds=60).tick()
    Effects(database, {DELETE_CHECKPOINT: CheckpointRemover(database, store)}).tick()

    assert {key.rpartition("/")[0] + "/" for key in keys(store)} == {prefixes[0]}
    with database.write() as session, pytest.raises(CheckpointNotFound):
        checkpoints.retire(session, job.id, newest.id)


def test_a_checkpoint_is_remembered_until_its_objects_are_gone(database: Database, store: ObjectStore) -> None:
    job, lease = running_job(database)
    for step in range(1, 5):
        commit(database, store, lease, step)
    Retention(database, changed_within_seconds=60).tick()
    items: list[outbox.Item] = []

    def store_is_away(item: outbox.Item) -> None:
        items.append(item)
        raise StoreUnavailable

    Effects(database, {DELETE_CHECKPOINT: store_is_away}).tick()
    with database.read() as session:
        assert [row.state for row in checkpoints.list_all(session, job.id)] == ["deleting"] + ["committed"] * 3

    CheckpointRemover(database, store)(items[0])
    with database.read() as session:
        assert [row.step for row in checkpoints.list_all(session, job.id)] == [2, 3, 4]


def test_objects_of_a_deleted_dataset_go_after_a_while(database: Database, store: ObjectStore) -> None:
    version_id = new_id()
    prefix = layout.dataset_prefix("default", "digits", version_id)
    store.put(layout.manifest(prefix), b"{}")
    with database.write() as session:
        datasets.insert(session, new_dataset(id=version_id, manifest_key=layout.manifest(prefix)))
        datasets.delete(session, "default", "digits")

    Cleanup(database, store).tick_datasets()
    assert keys(store) == {layout.manifest(prefix)}

    Cleanup(database, store, purge_after_seconds=-60).tick_datasets()
    assert keys(store) == set()


def test_what_rows_own_survives_the_sweep(database: Database, store: ObjectStore) -> None:
    job, lease = running_job(database)
    commit(database, store, lease, 5)
    key = layout.artifact("default", job.id, "samples.png")
    store.put(key, b"png")
    version_id = new_id()
    dataset_prefix = layout.dataset_prefix("default", "digits", version_id)
    store.put(layout.manifest(dataset_prefix), b"{}")
    bundle_prefix = layout.bundle_prefix("default", "digits", OLD_ID)
    store.put(f"{bundle_prefix}weights.safetensors", b"w")
    with database.write() as session:
        new = NewArtifact(name="samples.png", kind="picture", key=key, size_bytes=3, sha256=sha256("x"), step=5)
        artifacts.add(session, lease, new)
        datasets.insert(session, new_dataset(id=version_id, manifest_key=layout.manifest(dataset_prefix)))
        version = new_model_version(id=OLD_ID, bundle_prefix=bundle_prefix)
        jobs.finish(session, lease, state=JobState.SUCCEEDED, model_version=version)
    before = keys(store)

    Sweep(database, store, age=NOW).tick()

    assert keys(store) == before


@pytest.mark.parametrize(
    "version_id",
    [
        pytest.param(OLD_ID, id="of a job"),
        # Ids of requests are hashes, which seem to be of any time.
        pytest.param("7" + "z" * 25, id="of a request"),
    ],
)
def test_objects_of_a_deleted_model_go(database: Database, store: ObjectStore, version_id: str) -> None:
    _, lease = running_job(database)
    prefix = layout.bundle_prefix("default", "digits", OLD_ID)
    store.put(f"{prefix}weights.safetensors", b"w")
    archive = layout.archive("default", "digits", version_id, "cpu-t1", sha256=sha256("a"))
    store.put(archive, b"mar")
    with database.write() as session:
        version = new_model_version(id=version_id, bundle_prefix=prefix)
        jobs.finish(session, lease, state=JobState.SUCCEEDED, model_version=version)
    build = claimed(database, version_id)
    with database.write() as session:
        archives.finish_ready(session, build, key=archive, sha256=sha256("a"), size_bytes=3, form="eager", parity={})
    Sweep(database, store, age=NOW).tick()
    assert keys(store) == {f"{prefix}weights.safetensors", archive}

    with database.write() as session:
        found = models.get_by_id(session, version_id)
        models.delete(session, found.project, found.model_id, found.version)
    Sweep(database, store, age=NOW).tick()

    assert keys(store) == set()


def test_objects_of_a_deleted_job_go_and_what_a_late_attempt_writes_too(database: Database, store: ObjectStore) -> None:
    job, lease = running_job(database)
    _, of_another = running_job(database)
    commit(database, store, lease, 5)
    store.put(layout.artifact("default", job.id, "samples.png"), b"png")
    kept = commit(database, store, of_another, 5)
    with database.write() as session:
        jobs.finish(session, lease, state=JobState.FAILED, failure=Failure(FailureReason.SPEC_INVALID, "no"))
        jobs.delete(session, "default", job.id)

    Effects(database, {DELETE_OBJECTS: PrefixRemover(store, "job")}).tick()
    assert {key.rpartition("/")[0] + "/" for key in keys(store)} == {kept}

    late = layout.checkpoint_prefix("default", job.id, 6, lease.token)
    store.put(f"{late}model.safetensors", b"half")
    store.put(layout.artifact("default", job.id, "late.png"), b"png")
    unknown = layout.artifact("default", OLD_ID, "samples.png")
    store.put(unknown, b"png")
    Sweep(database, store, age=NOW).tick()
    # That a job has no row proves nothing: a restore may put the objects first.
    assert {key.rpartition("/")[0] + "/" for key in keys(store) - {unknown}} == {kept}
    assert unknown in keys(store)


def test_what_nobody_can_commit_any_more_is_swept(database: Database, store: ObjectStore) -> None:
    job, lease = running_job(database)
    kept = commit(database, store, lease, 5)
    lost = layout.checkpoint_prefix("default", job.id, 6, lease.token)
    store.put(f"{lost}model.safetensors", b"half")
    store.put(layout.artifact("default", job.id, "lost.png"), b"png")
    store.put(f"{layout.dataset_prefix('default', 'digits', OLD_ID)}images.tar", b"tar")
    store.put(f"{layout.bundle_prefix('default', 'digits', OLD_ID)}weights.safetensors", b"w")
    store.put(layout.archive("default", "digits", OLD_ID, "cpu-t1", sha256=sha256("a")), b"mar")
    with database.write() as session:
        jobs.finish(session, lease, state=JobState.SUCCEEDED, model_version=new_model_version())

    Sweep(database, store, age=NOW).tick()

    assert {key.rpartition("/")[0] + "/" for key in keys(store)} == {kept}


def test_a_running_attempt_keeps_what_it_has_not_committed_yet(database: Database, store: ObjectStore) -> None:
    job, lease = running_job(database)
    prefix = layout.checkpoint_prefix("default", job.id, 6, lease.token)
    store.put(f"{prefix}model.safetensors", b"half")
    store.put(layout.artifact("default", job.id, "soon.png"), b"png")
    store.put(f"{layout.dataset_prefix('default', 'digits', new_id())}images.tar", b"tar")
    before = keys(store)

    Sweep(database, store, age=timedelta(hours=1)).tick()

    assert keys(store) == before
