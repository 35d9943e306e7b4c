"""What one living worker does with jobs: results, retries, cancellations, duplicates, lost leases."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from services.broker.sender import BUILD_ARCHIVE, BUILD_QUEUE
from services.core.states import TERMINAL, ArchiveState, AttemptState, FailureReason, JobState
from services.db import archives, jobs, models
from services.storage import layout
from services.storage.manifest import download_directory
from tests.builders.serving_rows import deployed
from tests.integration.workers.yard import Yard, open_yard, tiny_config, until
from tests.stack.platform import seconds_until_gone
from workers.plan import PROCESS_NAME

LONG = 100_000
"""Steps of a job that a test ends itself."""


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory, scenes_dir: Path) -> Iterator[Yard]:
    with open_yard(tmp_path_factory.mktemp("yard"), scenes_dir, stall_floor="12") as yard:
        yield yard


@pytest.fixture(scope="module")
def worker(yard: Yard) -> subprocess.Popen[bytes]:
    return yard.start_worker(TRAINYARD_WORKER_QUEUES="train.cpu,serve.build")


@pytest.fixture(autouse=True)
def _the_worker_outlives_every_test(yard: Yard, worker: subprocess.Popen[bytes]) -> Iterator[None]:
    yield
    # A job that goes on would hold the only slot, and every later test would wait in vain.
    for job_id in yard.submitted:
        if yard.job(job_id).state not in TERMINAL:
            yard.cancel(job_id)
    assert worker.poll() is None


def end_kinds(yard: Yard, job_id: str) -> list[str]:
    return [kind for kind in yard.kinds(job_id) if kind in TERMINAL]


def ring_until(yard: Yard, job_id: str, *states: JobState) -> None:
    """Do the controller's part: ring again while the job waits for its retry."""

    def is_there() -> bool:
        state = yard.job(job_id).state
        if state is JobState.QUEUED:
            yard.ring(job_id)
        return state in states

    until(is_there, what=f"state {states}", show=yard.log_text)


def start_long_job(yard: Yard, *, at_step: int = 3, **limits: int) -> tuple[str, psutil.Process]:
    job = yard.submit(config=tiny_config(max_steps=LONG, **limits))
    yard.until_step(job.id, at_step)
    return job.id, yard.child(job.id)


def test_a_job_ends_with_a_verified_model_version(yard: Yard, tmp_path: Path) -> None:
    job = yard.submit()

    done = yard.until_state(job.id, JobState.SUCCEEDED, JobState.FAILED)

    assert done.state is JobState.SUCCEEDED, done.failure_log
    with yard.database.read() as session:
        version = models.get(session, "default", job.model_id, done.model_version)
    download_directory(yard.store, version.bundle_prefix, tmp_path / "bundle", version.bundle_sha256)
    assert (tmp_path / "bundle" / "bundle.json").exists()
    assert version.checkpoint_id == yard.checkpoints(job.id)[-1].id
    assert end_kinds(yard, job.id) == ["succeeded"]
    assert yard.attempts(job.id)[0].pid is not None


def test_every_committed_checkpoint_is_whole_in_the_store(yard: Yard, tmp_path: Path) -> None:
    job = yard.submit()
    yard.until_state(job.id, JobState.SUCCEEDED)

    committed = yard.checkpoints(job.id)

    assert committed[-1].step == 12
    for checkpoint in committed:
        directory = tmp_path / str(checkpoint.step)
        download_directory(yard.store, checkpoint.prefix, directory, checkpoint.manifest_sha256)
        assert (directory / "model.safetensors").exists()


def test_nothing_of_a_finished_attempt_is_left_on_disk(yard: Yard) -> None:
    job = yard.submit()
    yard.until_state(job.id, JobState.SUCCEEDED)

    attempts = yard.state_dir / "workers" / "w1" / "attempts"
    until(lambda: not [path for path in attempts.iterdir() if job.id in path.name], what="an empty attempts folder")


def test_ten_rings_run_a_job_once(yard: Yard) -> None:
    job = yard.submit()
    for _ in range(9):
        yard.ring(job.id)
    yard.until_state(job.id, JobState.SUCCEEDED)

    marker = yard.submit()
    yard.until_state(marker.id, JobState.SUCCEEDED)

    assert yard.kinds(job.id).count("claimed") == 1


def test_a_killed_child_is_a_charged_crash_and_the_next_attempt_resumes(
    yard: Yard, worker: subprocess.Popen[bytes]
) -> None:
    job = yard.submit(config=tiny_config(max_steps=60, checkpoint_every_steps=5))
    until(lambda: yard.job(job.id).checkpoint_step >= 5, what="a checkpoint", show=yard.log_text)

    yard.child(job.id).kill()
    until(lambda: "requeued" in yard.kinds(job.id), what="a requeue", show=yard.log_text)
    ring_until(yard, job.id, JobState.SUCCEEDED)

    first, second = yard.attempts(job.id)
    assert (first.state, first.failure_reason, first.signal) == (AttemptState.REQUEUED, FailureReason.CRASH, 9)
    requeued = next(event for event in yard.events(job.id) if event.kind == "requeued")
    assert requeued.payload["is_charged"] is True
    claims = [event.payload for event in yard.events(job.id) if event.kind == "claimed"]
    assert claims[1]["checkpoint_step"] >= 5
    assert yard.job(job.id).attempt == 2
    assert second.state is AttemptState.SUCCEEDED
    assert worker.poll() is None


def catches(child: psutil.Process, number: signal.Signals) -> bool:
    status = Path(f"/proc/{child.pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.partition(":")[2], 16) >> (number - 1) & 1)


def test_a_job_whose_every_attempt_crashes_fails_with_its_log(yard: Yard) -> None:
    job = yard.submit(config=tiny_config(max_steps=LONG), max_attempts=2)

    for attempt in (1, 2):
        until(lambda n=attempt: len(yard.attempts(job.id)) == n, what=f"attempt {attempt}")
        child = yard.child(job.id)
        # One that was forked this moment has no log yet.
        until(lambda one=child: catches(one, signal.SIGSEGV), what="a child that tells where it crashed")
        child.send_signal(signal.SIGSEGV)
        ring_until(yard, job.id, JobState.RUNNING, JobState.FAILED)
        until(lambda n=attempt: yard.attempts(job.id)[n - 1].state is not AttemptState.RUNNING, what="its end")
        ring_until(yard, job.id, JobState.RUNNING, JobState.FAILED)

    done = yard.until_state(job.id, JobState.FAILED)
    assert done.failure_reason is FailureReason.CRASH
    assert "SIGSEGV" in (done.failure_message or "")
    assert "Segmentation fault" in (done.failure_log or "")
    assert end_kinds(yard, job.id) == ["failed"]


def test_a_bad_config_fails_at_once_and_says_which_field(yard: Yard) -> None:
    config = tiny_config()
    config["data"]["batch_size"] = -1

    job = yard.submit(config=config)

    done = yard.until_state(job.id, JobState.FAILED)
    assert done.failure_reason is FailureReason.SPEC_INVALID
    assert "data.batch_size" in (done.failure_message or "")
    assert done.attempt == 1


def test_a_cancelled_job_keeps_the_checkpoint_it_stopped_at(yard: Yard) -> None:
    job_id, child = start_long_job(yard, checkpoint_every_steps=LONG)

    yard.cancel(job_id)

    yard.until_state(job_id, JobState.CANCELLED)
    assert end_kinds(yard, job_id) == ["cancelled"]
    assert yard.checkpoints(job_id)[-1].step >= 3
    assert seconds_until_gone([child], limit_seconds=10) < 10


def test_a_paused_job_saves_leaves_its_worker_and_goes_on_from_there(yard: Yard) -> None:
    job_id, child = start_long_job(yard, checkpoint_every_steps=LONG)

    with yard.database.write() as session:
        jobs.pause(session, "default", job_id, "test")
    resting = yard.until_state(job_id, JobState.PAUSED)
    saved = yard.checkpoints(job_id)[-1].step
    assert seconds_until_gone([child], limit_seconds=10) < 10
    yard.ring(job_id)
    with yard.database.write() as session:
        jobs.resume(session, "default", job_id)
    yard.ring(job_id)
    yard.until_step(job_id, saved + 2)

    assert (resting.attempt, resting.checkpoint_step) == (0, saved)
    assert saved >= 3
    again = [event.payload["step"] for event in yard.events(job_id) if event.kind == "step" and event.token > 1]
    assert again[0] == saved + 1
    assert yard.job(job_id).attempt == 1


def test_a_frozen_child_is_found_and_its_job_goes_back(yard: Yard) -> None:
    job_id, child = start_long_job(yard, checkpoint_every_steps=5)
    until(lambda: yard.job(job_id).checkpoint_step >= 5, what="a checkpoint")

    child.suspend()

    until(lambda: "requeued" in yard.kinds(job_id), what="a requeue", show=yard.log_text)
    assert yard.attempts(job_id)[0].failure_reason is FailureReason.STALL
    assert seconds_until_gone([child], limit_seconds=10) < 10


def test_a_worker_that_slept_through_its_lease_writes_nothing_more(yard: Yard, worker: subprocess.Popen[bytes]) -> None:
    job_id, child = start_long_job(yard, checkpoint_every_steps=5)
    token = yard.job(job_id).token

    freeze(yard, worker)
    try:
        until(lambda: reap(yard) == [job_id], what="the reaper to take the job")
    finally:
        os.kill(worker.pid, signal.SIGCONT)

    assert seconds_until_gone([child], limit_seconds=10) < 10
    after = next(event for event in yard.events(job_id) if event.kind == "reaped").seq
    attempts = yard.state_dir / "workers" / "w1" / "attempts"
    until(lambda: not (attempts / f"{job_id}-{token}").exists(), what="the spool to go")
    assert [event.kind for event in yard.events(job_id) if event.seq > after and event.token <= token] == []


def test_a_dead_warm_parent_costs_no_attempt_and_is_replaced(yard: Yard, worker: subprocess.Popen[bytes]) -> None:
    job_id, child = start_long_job(yard)
    warm = child.parent()
    assert warm is not None

    warm.kill()

    until(lambda: len(yard.attempts(job_id)) == 2, what="a second attempt", show=yard.log_text)
    assert yard.attempts(job_id)[0].failure_reason is FailureReason.WORKER_LOST
    assert yard.job(job_id).attempt == 1
    assert seconds_until_gone([child], limit_seconds=10) < 10


def test_a_damaged_checkpoint_is_retired_and_the_one_before_is_used(yard: Yard) -> None:
    job_id, child = start_long_job(yard, checkpoint_every_steps=5)
    until(lambda: len(yard.checkpoints(job_id)) >= 2, what="two checkpoints")
    child.kill()
    until(lambda: "requeued" in yard.kinds(job_id), what="a requeue")
    # What the dead trainer had written and not told yet would be taken before anything stored.
    shutil.rmtree(yard.state_dir / "salvage", ignore_errors=True)
    good, bad = [c for c in yard.checkpoints(job_id) if c.state == "committed"][-2:]
    yard.store.put(f"{bad.prefix}model.safetensors", b"\0" * 100)

    ring_until(yard, job_id, JobState.RUNNING)

    until(
        lambda: any(c.id == bad.id and c.state == "corrupt" for c in yard.checkpoints(job_id)),
        what="the damaged checkpoint to be retired",
        show=yard.log_text,
    )
    until(lambda: yard.job(job_id).checkpoint_step >= bad.step, what="its step to be reached again")
    warnings = [e.payload["text"] for e in yard.events(job_id) if e.kind == "log" and e.payload["level"] == "warning"]
    assert any(f"falling back to step {good.step}" in text for text in warnings)


def test_a_dataset_damaged_in_the_store_fails_the_job_before_it_trains(
    yard: Yard, scenes_dir: Path, tmp_path: Path
) -> None:
    another = shutil.copytree(scenes_dir, tmp_path / "another")
    # A worker keeps equal datasets once: this one must be fetched.
    (another / "note").write_text("not the same")
    version = yard.add_dataset(another, dataset_id="damaged")
    prefix = layout.dataset_prefix(version.project, version.dataset_id, version.id)
    yard.store.put(f"{prefix}images-00000.tar", b"other bytes")

    job = yard.submit(dataset_version_id=version.id)

    done = yard.until_state(job.id, JobState.FAILED)
    assert done.failure_reason is FailureReason.INVALID_DATASET
    assert "import it again" in (done.failure_message or "")
    assert "images-00000.tar" in (done.failure_message or "")
    assert done.attempt == 1
    assert "step" not in yard.kinds(job.id)


def test_an_archive_of_a_damaged_bundle_fails_with_a_sentence(yard: Yard) -> None:
    job = yard.submit()
    done = yard.until_state(job.id, JobState.SUCCEEDED)
    with yard.database.write() as session:
        version = models.get(session, "default", job.model_id, done.model_version)
    archive = deployed(yard.database, version.id, deployment_id="damaged").archive
    yard.store.put(f"{version.bundle_prefix}weights.safetensors", b"\0" * 100)

    yard.sender.send(BUILD_ARCHIVE, BUILD_QUEUE, archive.id)

    def built() -> archives.Archive:
        with yard.database.read() as session:
            return archives.get(session, archive.id)

    until(lambda: built().state is ArchiveState.FAILED, what="the build to fail", show=yard.log_text)
    assert "bundle is damaged" in built().message


def test_an_archive_whose_build_was_killed_is_built_again(yard: Yard) -> None:
    job = yard.submit()
    done = yard.until_state(job.id, JobState.SUCCEEDED)
    with yard.database.write() as session:
        version = models.get(session, "default", job.model_id, done.model_version)
    archive = deployed(yard.database, version.id, deployment_id="killed").archive
    yard.sender.send(BUILD_ARCHIVE, BUILD_QUEUE, archive.id)

    def built() -> archives.Archive:
        with yard.database.read() as session:
            return archives.get(session, archive.id)

    attempts = yard.state_dir / "workers" / "w1" / "attempts"

    def noted() -> list[int]:
        texts = [path.read_text() for path in attempts.glob(f"{archive.id}-*/{PROCESS_NAME}")]
        # It may be half written.
        return [json.loads(text)["pid"] for text in texts if text.endswith("}")]

    until(noted, what="the build's process", show=yard.log_text)
    os.kill(noted()[0], signal.SIGKILL)

    until(lambda: built().state is not ArchiveState.BUILDING, what="the build's end", show=yard.log_text)
    assert built().state is ArchiveState.QUEUED
    assert built().message == "The build was killed by SIGKILL; the worker's log may say why."


def freeze(yard: Yard, worker: subprocess.Popen[bytes]) -> None:
    """Stop the worker between two of its transactions: SQLite's lock is the whole database's."""

    def is_frozen_without_a_lock() -> bool:
        os.kill(worker.pid, signal.SIGSTOP)
        # One thread takes the signal and tells the others: till then those go on and may take the lock.
        until(lambda: is_stopped(worker.pid), what="every thread of the worker to stop")
        connection = sqlite3.connect(yard.database.url.database or "", timeout=0.1, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        except sqlite3.OperationalError:
            os.kill(worker.pid, signal.SIGCONT)
            return False
        finally:
            connection.close()
        return True

    until(is_frozen_without_a_lock, what="a moment without a lock")


def is_stopped(pid: int) -> bool:
    stats = [(thread / "stat").read_text() for thread in Path(f"/proc/{pid}/task").iterdir()]
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)


def reap(yard: Yard) -> list[str]:
    with yard.database.write() as session:
        return [reaped.job_id for reaped in jobs.reap(session, limit=10)]
