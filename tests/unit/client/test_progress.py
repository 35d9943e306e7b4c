"""What a watcher shows is a pure function of the events seen."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from trainyard.v1 import job_pb2

from services.client.live import figures
from services.client.progress import JobProgress, reduce


def state(value: job_pb2.JobState, attempt: int = 0) -> job_pb2.JobEvent:
    return job_pb2.JobEvent(state_change=job_pb2.StateChange(state=value, attempt=attempt))


def running(attempt: int = 1) -> job_pb2.JobEvent:
    return state(job_pb2.JOB_STATE_RUNNING, attempt)


def step(
    number: int, *, total: int = 100, seconds: float = 0.5, loss: float = 1.0, rate: float = 32.0
) -> job_pb2.JobEvent:
    return job_pb2.JobEvent(
        step=job_pb2.StepScalars(
            step=number,
            total_steps=total,
            scalars={"train/loss": loss},
            step_duration=Duration(nanos=int(seconds * 1e9)),
            samples_per_second=rate,
        )
    )


def checkpoint(number: int) -> job_pb2.JobEvent:
    return job_pb2.JobEvent(checkpoint=job_pb2.CheckpointCommitted(step=number))


def after(*events: job_pb2.JobEvent) -> JobProgress:
    progress = JobProgress()
    for event in events:
        progress = reduce(progress, event)
    return progress


def test_the_newest_figures_are_kept() -> None:
    progress = after(running(), step(10, loss=2.0), step(20, loss=1.5, rate=64.0))

    assert (progress.step, progress.total_steps, progress.loss) == (20, 100, 1.5)
    assert progress.samples_per_second == 64.0


def test_a_paused_job_is_at_rest_and_a_pause_taken_back_changes_nothing() -> None:
    before = (running(), step(10), state(job_pb2.JOB_STATE_PAUSING))

    rests = after(*before, state(job_pb2.JOB_STATE_PAUSED))
    goes_on = after(*before, state(job_pb2.JOB_STATE_RUNNING))

    assert (rests.state, rests.step, rests.eta_seconds) == (job_pb2.JOB_STATE_PAUSED, 10, None)
    assert (goes_on.state, goes_on.step, goes_on.attempt) == (job_pb2.JOB_STATE_RUNNING, 10, 1)
    assert goes_on.eta_seconds is not None


def test_the_time_left_is_the_steps_left_at_the_present_speed() -> None:
    assert after(running(), step(60, seconds=0.5)).eta_seconds == pytest.approx(20.0)


def test_one_slow_step_does_not_upset_the_time_left() -> None:
    steady = after(running(), *(step(number, seconds=0.1) for number in range(1, 10)))

    assert reduce(steady, step(10, seconds=1.0)).eta_seconds == pytest.approx(90 * 0.55)


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([], id="nothing known"),
        pytest.param([running()], id="no step yet"),
        pytest.param([running(), step(5), state(job_pb2.JOB_STATE_CANCELLING)], id="asked to stop"),
        pytest.param([running(), step(100), state(job_pb2.JOB_STATE_SUCCEEDED)], id="over"),
    ],
)
def test_there_is_no_time_left_to_tell(events: list[job_pb2.JobEvent]) -> None:
    assert after(*events).eta_seconds is None


def test_another_attempt_begins_at_the_last_checkpoint_with_no_speed() -> None:
    progress = after(running(1), checkpoint(40), step(55), job_pb2.JobEvent(requeued=job_pb2.Requeued()), running(2))

    assert (progress.attempt, progress.step, progress.total_steps) == (2, 40, 100)
    assert progress.step_seconds is None


def test_a_requeued_job_is_queued_and_in_no_phase() -> None:
    training = job_pb2.JobEvent(phase=job_pb2.PhaseChange(phase=job_pb2.PHASE_TRAINING))

    progress = after(running(), training, job_pb2.JobEvent(requeued=job_pb2.Requeued()))

    assert progress.state == job_pb2.JOB_STATE_QUEUED
    assert progress.phase == job_pb2.PHASE_UNSPECIFIED


def test_a_failure_ends_the_job_and_keeps_its_reason() -> None:
    failure = job_pb2.Failure(reason=job_pb2.FAILURE_REASON_NON_FINITE_LOSS, message="step 7: the loss is not a number")

    progress = after(running(), job_pb2.JobEvent(failure=failure))

    assert progress.is_over
    assert progress.failure == failure


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        pytest.param({"eval/loss": 1.0, "eval/ap50": 0.4, "eval/ap": 0.2}, ("ap50", 0.4), id="average precision first"),
        pytest.param({"eval/z": 1.0, "eval/accuracy": 0.9}, ("accuracy", 0.9), id="else the first by name"),
        pytest.param({}, None, id="none yet"),
    ],
)
def test_the_headline_metric(metrics: dict[str, float], expected: Any) -> None:
    evaluation = job_pb2.JobEvent(evaluation=job_pb2.Evaluation(step=1, metrics=metrics))

    headline = after(evaluation).headline_metric

    assert headline == expected


def test_an_unknown_event_changes_nothing() -> None:
    assert reduce(after(running()), job_pb2.JobEvent()) == after(running())


def test_the_figures_line_shows_only_what_is_known() -> None:
    assert figures(after(running())) == []
    assert figures(after(running(), checkpoint(40), step(60))) == [
        "loss 1",
        "32.0 samples/s",
        "20s left",
        "checkpoint at 40",
    ]
