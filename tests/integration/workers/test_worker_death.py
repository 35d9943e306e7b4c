"""How a worker ends, and what is left of it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from services.core.states import FailureReason, JobState
from services.db import jobs, workers
from tests.integration.workers.yard import Yard, open_yard, tiny_config, until
from tests.stack.platform import descendants, seconds_until_gone

LONG = 100_000


@pytest.fixture
def yard(tmp_path: Path, scenes_dir: Path) -> Iterator[Yard]:
    with open_yard(tmp_path / "yard", scenes_dir) as yard:
        yield yard


def start_job(yard: Yard, **limits: int) -> tuple[str, psutil.Process]:
    job = yard.submit(config=tiny_config(**{"max_steps": LONG, "checkpoint_every_steps": 5} | limits))
    until(lambda: yard.job(job.id).checkpoint_step >= 5, what="a checkpoint", show=yard.log_text)
    return job.id, yard.child(job.id)


def test_everything_of_a_killed_worker_is_gone_in_two_seconds(yard: Yard) -> None:
    worker = yard.start_worker()
    _job_id, child = start_job(yard)
    family = descendants(worker.pid)
    assert child in family
    assert len(family) >= 2

    worker.kill()

    assert seconds_until_gone(family, limit_seconds=5) < 5


def test_the_next_worker_of_a_killed_one_cleans_up_and_resumes(yard: Yard) -> None:
    worker = yard.start_worker()
    job_id, _ = start_job(yard, max_steps=60)
    worker.kill()
    worker.wait()
    until(lambda: reap(yard) == [job_id], what="the reaper to take the job")
    left = yard.state_dir / "workers" / "w1" / "attempts" / f"{job_id}-1"
    assert left.exists()

    yard.start_worker()
    yard.ring(job_id)

    yard.until_state(job_id, JobState.SUCCEEDED)
    assert not left.exists()
    assert yard.job(job_id).attempt == 1
    steps = [c.step for c in yard.checkpoints(job_id)]
    assert steps == sorted(set(steps))
    assert steps[-1] == 60


def test_the_job_of_a_killed_worker_does_not_wait_for_the_end_of_its_lease(tmp_path: Path, scenes_dir: Path) -> None:
    with open_yard(tmp_path / "yard", scenes_dir, lease_ttl="600") as yard:
        worker = yard.start_worker()
        job_id, child = start_job(yard)
        worker.kill()
        worker.wait()
        assert reap(yard) == []

        yard.start_worker("w2")

        until(lambda: reap(yard) == [job_id], what="the reaper to take the job", show=yard.log_text)
        assert seconds_until_gone([child], limit_seconds=5) < 5
        job, (attempt,) = yard.job(job_id), yard.attempts(job_id)
        assert (job.state, job.attempt) == (JobState.QUEUED, 0)
        assert attempt.failure_reason is FailureReason.WORKER_LOST


def test_the_leases_of_a_worker_that_lives_are_its_own(tmp_path: Path, scenes_dir: Path) -> None:
    with open_yard(tmp_path / "yard", scenes_dir, lease_ttl="600") as yard:
        yard.start_worker()
        job_id, _ = start_job(yard)

        yard.start_worker("w2")
        until(lambda: listed(yard) == ["w1", "w2"], what="the second worker")

        assert reap(yard) == []
        assert yard.job(job_id).token == 1


def test_a_drained_worker_gives_its_job_back_uncharged_and_loses_no_step(yard: Yard) -> None:
    worker = yard.start_worker()
    job_id, child = start_job(yard)

    worker.send_signal(signal.SIGTERM)

    assert worker.wait(60) == 0
    job = yard.job(job_id)
    assert (job.state, job.attempt) == (JobState.QUEUED, 0)
    last = max(event.payload["step"] for event in yard.events(job_id) if event.kind == "step")
    assert job.checkpoint_step >= last
    assert seconds_until_gone([child], limit_seconds=5) < 5


def test_an_idle_worker_exits_at_once_and_signs_off(yard: Yard) -> None:
    worker = yard.start_worker()
    until(lambda: "warm_parent_ready" in yard.log_text(), what="a ready worker")
    until(lambda: listed(yard) == ["w1"], what="its first heartbeat")

    worker.send_signal(signal.SIGTERM)

    assert worker.wait(30) == 0
    assert listed(yard) == []


def test_two_workers_of_one_name_do_not_share_a_home(yard: Yard) -> None:
    yard.start_worker("twin")
    until(lambda: "worker_started" in yard.log_text(), what="the first worker")

    second = yard.start_worker("twin")

    assert second.wait(60) != 0
    assert "HomeTaken" in yard.log_text()


def test_processes_left_behind_are_killed_at_the_next_start(yard: Yard) -> None:
    stray_dir = yard.state_dir / "workers" / "w1" / "attempts" / "job-1"
    stray_dir.mkdir(parents=True)
    stray = subprocess.Popen(["sleep", "1000"], cwd=stray_dir, start_new_session=True)
    bystander = subprocess.Popen(["sleep", "1000"], cwd=yard.state_dir)
    try:
        yard.start_worker()

        assert stray.wait(60) == -signal.SIGKILL
        until(lambda: not stray_dir.exists(), what="the stray directory to go")
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
        if stray.poll() is None:
            os.kill(stray.pid, signal.SIGKILL)


def reap(yard: Yard) -> list[str]:
    with yard.database.write() as session:
        return [reaped.job_id for reaped in jobs.reap(session, limit=10)]


def listed(yard: Yard) -> list[str]:
    with yard.database.read() as session:
        return [worker.id for worker in workers.list_workers(session)]
