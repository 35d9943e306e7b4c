"""What becomes of a job of several processes when one of them fails, stands still or is asked to stop."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import torch

from services.core.states import AttemptState, FailureReason, JobState
from services.db import jobs
from tests.integration.parallel.conftest import Trials
from tests.integration.workers.yard import Yard, open_yard, tiny_config, until
from tests.stack.platform import descendants, seconds_until_gone
from workers.engine.data import ShuffledBatches

LONG = 100_000


def ring_until(yard: Yard, job_id: str, *states: JobState) -> None:
    """Do the controller's part: ring again while the job waits for its retry."""

    def is_there() -> bool:
        state = yard.job(job_id).state
        if state is JobState.QUEUED:
            yard.ring(job_id)
        return state in states

    until(is_there, what=f"state {states}", show=yard.log_text)


def until_checkpoint(yard: Yard, job_id: str, step: int) -> None:
    until(lambda: yard.job(job_id).checkpoint_step >= step, what=f"a checkpoint at {step}", show=yard.log_text)


def test_a_job_that_lost_each_of_its_processes_once_ends_in_the_same_bits(trials: Trials) -> None:
    yard, config = trials.yard, tiny_config(max_steps=60, checkpoint_every_steps=5)
    unharmed = trials.run(processes=2, config=config)
    job = trials.submit(processes=2, config=config)

    for attempt, rank in ((1, 1), (2, 0)):
        until_checkpoint(yard, job.id, yard.job(job.id).checkpoint_step + 10)
        victims = trials.trainers(job.id, 2)
        os.kill(victims[rank].pid, signal.SIGKILL)
        until(lambda n=attempt: yard.kinds(job.id).count("requeued") == n, what="a requeue", show=yard.log_text)
        assert seconds_until_gone(victims, limit_seconds=10) < 10
        ring_until(yard, job.id, JobState.RUNNING, JobState.SUCCEEDED)
    trials.finished(job.id)

    lost = yard.attempts(job.id)[:2]
    assert [(one.state, one.failure_reason, one.signal) for one in lost] == [
        (AttemptState.REQUEUED, FailureReason.CRASH, signal.SIGKILL)
    ] * 2
    claims = [event.payload["checkpoint_step"] for event in yard.events(job.id) if event.kind == "claimed"]
    assert claims[0] == -1
    assert 10 <= claims[1] < claims[2]
    expected, found = trials.weights(unharmed.id), trials.weights(job.id)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_cancelled_job_stops_all_its_processes_at_one_step_and_keeps_it(trials: Trials) -> None:
    yard = trials.yard
    job = trials.submit(processes=2, config=tiny_config(max_steps=LONG, checkpoint_every_steps=LONG))
    yard.until_step(job.id, 3)
    family = [trials.launcher(job.id), *trials.trainers(job.id, 2)]

    with yard.database.write() as session:
        jobs.cancel(session, "default", job.id, "test")

    yard.until_state(job.id, JobState.CANCELLED)
    assert yard.checkpoints(job.id)[-1].step >= 3
    assert seconds_until_gone(family, limit_seconds=10) < 10
    assert yard.attempts(job.id)[0].failure_reason is None


def test_a_loss_that_explodes_fails_the_job_with_its_reason(trials: Trials) -> None:
    config = tiny_config(max_steps=LONG)
    config["optim"] |= {"name": "sgd", "lr": 10.0}

    job = trials.submit(processes=2, config=config)

    done = trials.yard.until_state(job.id, JobState.FAILED)
    assert done.failure_reason is FailureReason.NON_FINITE_LOSS
    assert done.attempt == 1


def test_a_process_that_stands_still_is_found_and_its_job_goes_back(trials: Trials) -> None:
    yard = trials.yard
    job = trials.submit(processes=2, config=tiny_config(max_steps=LONG, checkpoint_every_steps=5))
    until_checkpoint(yard, job.id, 5)
    trainers = trials.trainers(job.id, 2)

    trainers[1].suspend()

    until(lambda: "requeued" in yard.kinds(job.id), what="a requeue", show=yard.log_text)
    failed = next(event.payload for event in yard.events(job.id) if event.kind == "requeued")
    assert failed["reason"] == FailureReason.STALL
    assert "engine/loop.py" in failed["log_tail"]  # the stack of the leader, which waits for the other's gradients
    assert seconds_until_gone(trainers, limit_seconds=10) < 10
    with yard.database.write() as session:
        jobs.cancel(session, "default", job.id, "test")


def test_the_failure_of_any_process_is_told_once_with_its_reason(trials: Trials, tmp_path: Path) -> None:
    """One image is broken, which the second of two processes is the first to meet."""
    yard, config = trials.yard, tiny_config()
    scenes = shutil.copytree(yard.dataset_dir, tmp_path / "scenes")
    entries = [json.loads(line) for line in (scenes / "annotations.jsonl").read_text().splitlines()]
    train = [entry for entry in entries if entry["split"] == "train"]
    order = ShuffledBatches(seed=config["runtime"]["seed"], count=len(train), batch_size=config["data"]["batch_size"])
    broken = train[order.indices(0)[-1]]
    with (scenes / broken["shard"]).open("r+b") as shard:
        shard.seek(broken["offset"])
        shard.write(b"\0" * broken["size"])
    spoilt = yard.add_dataset(scenes, dataset_id="spoilt")

    job = yard.submit(processes=2, config=config, dataset_version_id=spoilt.id)

    done = yard.until_state(job.id, JobState.FAILED)
    assert done.failure_reason is FailureReason.INVALID_DATASET
    assert broken["member"] in (done.failure_message or "")
    assert done.attempt == 1


def test_a_service_manager_that_stops_every_process_costs_no_attempt_and_no_step(trials: Trials) -> None:
    yard = trials.yard
    job = trials.submit(processes=2, config=tiny_config(max_steps=LONG, checkpoint_every_steps=LONG))
    yard.until_step(job.id, 3)
    family = [trials.launcher(job.id), *trials.trainers(job.id, 2)]

    os.killpg(family[0].pid, signal.SIGTERM)

    until(lambda: "requeued" in yard.kinds(job.id), what="a requeue", show=yard.log_text)
    requeued = next(event.payload for event in yard.events(job.id) if event.kind == "requeued")
    last = max(event.payload["step"] for event in yard.events(job.id) if event.kind == "step")
    assert requeued["is_charged"] is False
    assert yard.checkpoints(job.id)[-1].step >= last
    assert seconds_until_gone(family, limit_seconds=10) < 10
    with yard.database.write() as session:
        jobs.cancel(session, "default", job.id, "test")


def test_a_killed_worker_leaves_no_process(tmp_path: Path, trials: Trials) -> None:
    with open_yard(tmp_path / "yard", trials.yard.dataset_dir) as yard:
        worker = yard.start_worker()
        job = yard.submit(processes=2, config=tiny_config(max_steps=LONG, checkpoint_every_steps=5))
        until_checkpoint(yard, job.id, 5)
        family = descendants(worker.pid)
        assert len(family) >= 4

        worker.kill()

        assert seconds_until_gone(family, limit_seconds=5) < 5
