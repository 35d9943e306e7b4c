"""Events on the wire. Payloads were written by workers of any version, so whatever is missing or odd is left out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from trainyard.v1 import job_pb2 as pb

from services.core import names
from services.core.states import FailureReason, JobState
from services.db.jobs import Event
from services.jobs.convert import timestamp
from services.rpc.enums import enum_value
from services.rpc.structs import to_struct

Payload = Mapping[str, Any]
Fill = Callable[[pb.JobEvent, Payload, str], None]


def event_to_proto(event: Event, job_name: str) -> pb.JobEvent:
    """Return the event; one of a kind this version does not know comes without payload."""
    message = pb.JobEvent(seq=event.seq, token=event.token, create_time=timestamp(event.create_time))
    fill = _FILLS.get(event.kind)
    if fill is not None:
        fill(message, event.payload, job_name)
    return message


def _state(state: pb.JobState) -> Fill:
    def fill(message: pb.JobEvent, payload: Payload, job_name: str) -> None:
        message.state_change.state = state
        # Events of an earlier release have only its number among those that count.
        message.state_change.attempt = int(payload.get("number", payload.get("attempt", 0)))
        message.state_change.worker_id = str(payload.get("worker_id", ""))
        message.state_change.message = str(payload.get("reason") or payload.get("message") or "")

    return fill


def _resumed(message: pb.JobEvent, payload: Payload, job_name: str) -> None:
    is_running = payload.get("state") == JobState.RUNNING.value
    message.state_change.state = pb.JOB_STATE_RUNNING if is_running else pb.JOB_STATE_QUEUED
    message.state_change.message = "resumed"


def _phase(message: pb.JobEvent, payload: Payload, job_name: str) -> None:
    word = str(payload.get("phase", ""))
    message.phase.phase = enum_value(pb.Phase, f"PHASE_{word.upper()}")
    message.phase.detail = str(payload.get("detail") or "") or ("" if message.phase.phase else word)


def _step(message: pb.JobEvent, payload: Payload, job_name: str) -> None:
    step = message.step
    step.step = int(payload.get("step", 0))
    step.total_steps = int(payload.get("total") or 0)
    step.epoch = _number(payload.get("epoch"))
    _fill_numbers(step.scalars, payload.get("scalars"))
    step.step_duration.CopyFrom(_duration(_number(payload.get("step_ms")) / 1000))
    step.samples_per_second = _number(payload.get("samples_s"))
    memory = payload.get("mem") or {}
    for name in ("alloc_bytes", "peak_bytes", "static_estimate_bytes", "rss_bytes"):
        setattr(step.memory, name, int(memory.get(name) or 0))


def _eval(message: pb.JobEvent, payload: Payload, job_name: str) -> None:
    message.evaluation.step = int(payload.get("step", 0))
    _fill_numbers(message.evaluation.metrics, payload.get("metrics"))


def _checkpoint(message: pb.JobEvent, payload: Payload, job_name: str) -> None:
    checkpoint = message.checkpoint
    checkpoint.name = f"{job_name}/checkpoints/{payload['checkpoint_id']}"
    checkpoint.step = int(payload["step"])
    checkpoint.size_bytes = int(payload.get("size_bytes", 0))
    if payload.get("metric") is not None:
        checkpoint.metric = _number(payload["metric"])


def _artifact(message: pb.JobEvent, payload: Payload, job_name: str) -> None:
    artifact = message.artifact
    artifact.name = f"{job_name}/artifacts/{payload['artifact_id']}"
    artifact.file_name = str(payload.get("name", ""))
    artifact.kind = str(payload.get("kind", ""))
    artifact.step = int(payload.get("step") or 0)


def _log(message: pb.JobEvent, payload: Payload, job_name: str) -> None:
    message.log.level = enum_value(pb.LogLevel, f"LOG_LEVEL_{str(payload.get('level', '')).upper()}")
    message.log.text = str(payload.get("text", ""))


def _precision(message: pb.JobEvent, payload: Payload, job_name: str) -> None:
    precision = message.precision
    precision.precision = str(payload.get("precision", ""))
    precision.channels_last = payload.get("channels_last") is True
    precision.is_compiled = payload.get("compile") is True
    known = {"precision", "channels_last", "compile"}
    precision.detail.CopyFrom(to_struct({key: value for key, value in payload.items() if key not in known}))


def _requeued(message: pb.JobEvent, payload: Payload, job_name: str) -> None:
    requeued = message.requeued
    requeued.is_charged = payload.get("is_charged") is True
    requeued.delay.CopyFrom(_duration(_number(payload.get("delay_seconds"))))
    if payload.get("reason"):
        _fill_failure(requeued.failure, payload)


def _reaped(message: pb.JobEvent, payload: Payload, job_name: str) -> None:
    text = f"worker {payload.get('worker_id', '')} stopped renewing its lease"
    _fill_failure(message.requeued.failure, {"reason": FailureReason.WORKER_LOST, "message": text})


def _failed(message: pb.JobEvent, payload: Payload, job_name: str) -> None:
    _fill_failure(message.failure, payload)


def _model(message: pb.JobEvent, payload: Payload, job_name: str) -> None:
    project = names.parse(job_name, "jobs").project
    message.model.model_version = names.model_version(project, payload["model_id"], payload["version"])


_FILLS: dict[str, Fill] = {
    "created": _state(pb.JOB_STATE_QUEUED),
    "queued": _state(pb.JOB_STATE_QUEUED),
    "claimed": _state(pb.JOB_STATE_RUNNING),
    "cancel_requested": _state(pb.JOB_STATE_CANCELLING),
    "succeeded": _state(pb.JOB_STATE_SUCCEEDED),
    "cancelled": _state(pb.JOB_STATE_CANCELLED),
    "pause_requested": _state(pb.JOB_STATE_PAUSING),
    "paused": _state(pb.JOB_STATE_PAUSED),
    "resumed": _resumed,
    "phase": _phase,
    "step": _step,
    "eval": _eval,
    "checkpoint": _checkpoint,
    "artifact": _artifact,
    "log": _log,
    "precision": _precision,
    "requeued": _requeued,
    "reaped": _reaped,
    "failed": _failed,
    "model": _model,
}


def _fill_failure(failure: pb.Failure, payload: Payload) -> None:
    reason = f"FAILURE_REASON_{payload.get('reason', '')}"
    failure.reason = enum_value(pb.FailureReason, reason, default=pb.FAILURE_REASON_INTERNAL)
    failure.message = str(payload.get("message", ""))
    failure.log_tail = str(payload.get("log_tail") or "")
    for name in ("exit_code", "signal"):
        if isinstance(payload.get(name), int):
            setattr(failure, name, payload[name])


def _fill_numbers(target: Any, values: Any) -> None:
    if isinstance(values, Mapping):
        for key, value in values.items():
            target[str(key)] = _number(value)


def _number(value: Any) -> float:
    """Return a figure; the store keeps those that JSON has no form for as the strings `NaN`, `Infinity`."""
    try:
        return float(value or 0)
    except (TypeError, ValueError):
        return math.nan


def _duration(seconds: float) -> Duration:
    message = Duration()
    if math.isfinite(seconds):
        message.FromTimedelta(timedelta(seconds=seconds))
    return message
