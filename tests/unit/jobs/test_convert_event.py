from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from trainyard.v1 import job_pb2 as pb

from services.db.jobs import Event
from services.jobs.convert_event import event_to_proto

NAME = "projects/default/jobs/j1"


def convert(kind: str, payload: dict[str, Any]) -> pb.JobEvent:
    return event_to_proto(Event(3, 7, kind, payload, datetime(2026, 1, 1, tzinfo=UTC)), NAME)


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        ("created", pb.JOB_STATE_QUEUED),
        ("claimed", pb.JOB_STATE_RUNNING),
        ("cancel_requested", pb.JOB_STATE_CANCELLING),
        ("cancelled", pb.JOB_STATE_CANCELLED),
        ("pause_requested", pb.JOB_STATE_PAUSING),
        ("paused", pb.JOB_STATE_PAUSED),
        ("succeeded", pb.JOB_STATE_SUCCEEDED),
    ],
)
def test_transitions_are_state_changes(kind: str, state: pb.JobState) -> None:
    event = convert(kind, {})

    assert event.state_change.state == state
    assert (event.seq, event.token, event.create_time.ToDatetime().year) == (3, 7, 2026)


@pytest.mark.parametrize(("state", "shown"), [("queued", pb.JOB_STATE_QUEUED), ("running", pb.JOB_STATE_RUNNING)])
def test_a_resumed_job_shows_where_it_went(state: str, shown: pb.JobState) -> None:
    assert convert("resumed", {"state": state}).state_change.state == shown


def test_a_step_carries_its_figures() -> None:
    payload = {
        "step": 20,
        "total": 100,
        "epoch": 1.5,
        "scalars": {"train/loss": 0.25, "train/odd": "NaN"},
        "step_ms": 125.0,
        "samples_s": 64.0,
        "mem": {"alloc_bytes": 10, "peak_bytes": None, "rss_bytes": 30},
    }

    step = convert("step", payload).step

    assert (step.step, step.total_steps, step.epoch) == (20, 100, 1.5)
    assert step.scalars["train/loss"] == 0.25
    assert math.isnan(step.scalars["train/odd"])
    assert step.step_duration.ToMilliseconds() == 125
    assert (step.memory.alloc_bytes, step.memory.peak_bytes, step.memory.rss_bytes) == (10, 0, 30)


def test_a_phase_without_a_word_on_the_wire_keeps_its_own() -> None:
    assert convert("phase", {"phase": "training"}).phase.phase == pb.PHASE_TRAINING
    assert convert("phase", {"phase": "dreaming"}).phase.detail == "dreaming"


def test_a_lost_worker_is_a_requeue_that_says_so() -> None:
    requeued = convert("reaped", {"worker_id": "w1"}).requeued

    assert requeued.failure.reason == pb.FAILURE_REASON_WORKER_LOST
    assert "w1" in requeued.failure.message


def test_a_charged_requeue_carries_its_failure_and_delay() -> None:
    payload = {"reason": "CRASH", "message": "it crashed", "is_charged": True, "delay_seconds": 12.5}

    requeued = convert("requeued", payload).requeued

    assert (requeued.is_charged, requeued.delay.ToMilliseconds()) == (True, 12_500)
    assert requeued.failure.reason == pb.FAILURE_REASON_CRASH


def test_a_drained_worker_is_no_failure() -> None:
    assert not convert("requeued", {"is_charged": False}).requeued.HasField("failure")


def test_a_failure_of_a_reason_unknown_here_is_internal() -> None:
    assert convert("failed", {"reason": "METEORITE", "message": "m"}).failure.reason == pb.FAILURE_REASON_INTERNAL


@pytest.mark.parametrize("kind", ["phase", "step", "eval", "log", "precision", "requeued", "reaped", "failed"])
def test_an_empty_payload_is_an_event_all_the_same(kind: str) -> None:
    assert convert(kind, {}).WhichOneof("payload") is not None


def test_a_kind_of_a_later_version_comes_without_payload() -> None:
    assert convert("teleported", {"x": 1}).WhichOneof("payload") is None
