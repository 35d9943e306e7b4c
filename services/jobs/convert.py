"""Jobs, checkpoints and artifacts on the wire, and requests into the domain."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import lru_cache

from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from trainyard.v1 import common_pb2
from trainyard.v1 import job_pb2 as pb

from services.core import names
from services.core.errors import RequestInvalid, Violation
from services.core.states import FailureReason, JobState
from services.db.artifacts import Artifact
from services.db.checkpoints import Checkpoint
from services.db.jobs import Attempt, Job
from services.jobs.request import DEFAULT_MAX_ATTEMPTS, DEFAULT_PRESET, JobRequest
from services.jobs.waiting import Waiting
from services.recipes.convert import recipe_id
from services.rpc.enums import enum_value
from services.rpc.structs import to_dict, to_struct

STATES: dict[JobState, pb.JobState] = {state: enum_value(pb.JobState, f"JOB_STATE_{state.name}") for state in JobState}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STATES_BACK = {value: state for state, value in STATES.items()}
_CLASSES = {pb.RESOURCE_CLASS_UNSPECIFIED: "cpu", pb.RESOURCE_CLASS_CPU: "cpu", pb.RESOURCE_CLASS_GPU: "gpu"}
_CLASSES_BACK = {"cpu": pb.RESOURCE_CLASS_CPU, "gpu": pb.RESOURCE_CLASS_GPU}


def job_request(request: pb.CreateJobRequest) -> JobRequest:
    recipe = recipe_id(request.recipe)
    return JobRequest(
        project=names.parse_project(request.parent),
        recipe=recipe,
        preset=request.preset or DEFAULT_PRESET,
        config=to_dict(request.config),
        dataset=request.dataset,
        dataset_version=request.dataset_version,
        resource_class=_CLASSES.get(request.resources.resource_class, ""),
        processes=request.resources.processes or 1,
        display_name=request.display_name,
        labels=dict(request.labels),
        model_id=request.model_id or _model_id(recipe),
        priority=request.priority,
        is_preemptible=request.is_preemptible,
        max_attempts=request.max_attempts or DEFAULT_MAX_ATTEMPTS,
        request_id=request.request_id,
        init_from=request.init_from,
    )


def job_id(name: str, *, field: str = "name") -> tuple[str, str]:
    """Return (project, job id) of a job's name."""
    parsed = names.parse(name, "jobs", field=field)
    return parsed.project, parsed.ids[0]


def checkpoint_id(name: str) -> tuple[str, str, str]:
    """Return (project, job id, checkpoint id) of a checkpoint's name."""
    parsed = names.parse(name, "jobs", "checkpoints")
    job, checkpoint = parsed.ids
    return parsed.project, job, checkpoint


def states(values: list[pb.JobState]) -> list[JobState]:
    """Return the wanted states; none where all are.

    Raises:
        RequestInvalid: one is not known here; answering with other jobs would hide that.
    """
    if unknown := [value for value in values if value not in _STATES_BACK]:
        text = f"has no state {unknown[0]}; ask for {', '.join(pb.JobState.Name(value) for value in _STATES_BACK)}"
        raise RequestInvalid(violations=[Violation("states", text)])
    return [_STATES_BACK[value] for value in values]


def job_to_proto(job: Job) -> pb.Job:
    spec = job.spec
    message = pb.Job(
        name=names.job(job.project, job.id),
        display_name=job.display_name,
        labels=job.labels,
        recipe=job.recipe,
        preset=job.preset,
        config=_config_struct(json.dumps(spec["config"])),
        dataset=names.dataset(job.project, job.dataset_id),
        dataset_version_id=job.dataset_version_id,
        model_id=job.model_id,
        priority=job.priority,
        is_preemptible=job.is_preemptible,
        max_attempts=job.max_attempts,
        state=STATES[job.state],
        attempt=job.attempt,
        num_attempts=job.num_attempts,
        progress=pb.Progress(step=job.progress_step, total_steps=job.progress_total),
        event_seq=job.event_seq,
        create_time=timestamp(job.create_time),
        update_time=timestamp(job.update_time),
        etag=job.etag,
        init_from=(spec.get("init_from") or {}).get("name", ""),
    )
    resources = spec.get("resources", {})
    message.resources.resource_class = _CLASSES_BACK.get(resources.get("class"), pb.RESOURCE_CLASS_UNSPECIFIED)
    message.resources.processes = resources.get("processes", 1)
    if job.checkpoint_step >= 0:
        message.checkpoint_step = job.checkpoint_step
    if job.model_version is not None:
        message.model_version = names.model_version(job.project, job.model_id, job.model_version)
    if job.failure_reason is not None:
        message.failure.CopyFrom(failure_to_proto(job.failure_reason, job.failure_message or ""))
        message.failure.log_tail = job.failure_log or ""
    if job.start_time is not None:
        message.start_time.CopyFrom(timestamp(job.start_time))
    if job.end_time is not None:
        message.end_time.CopyFrom(timestamp(job.end_time))
    return message


def failure_to_proto(reason: FailureReason, message: str) -> pb.Failure:
    return pb.Failure(reason=enum_value(pb.FailureReason, f"FAILURE_REASON_{reason.name}"), message=message)


def waiting_to_proto(waiting: Waiting) -> pb.Waiting:
    capacity = waiting.capacity
    return pb.Waiting(
        queue=waiting.queue,
        workers=capacity.workers,
        slots=capacity.slots,
        free_slots=capacity.free_slots,
        is_at_quota=waiting.is_at_quota,
        full_disks=capacity.full_disks,
    )


def attempt_to_proto(attempt: Attempt) -> pb.Attempt:
    message = pb.Attempt(
        token=attempt.token,
        attempt=attempt.attempt,
        worker_id=attempt.worker_id,
        device=attempt.device or "",
        state=enum_value(pb.AttemptState, f"ATTEMPT_STATE_{attempt.state.name}"),
        start_time=timestamp(attempt.start_time),
    )
    if attempt.failure_reason is not None:
        message.failure.CopyFrom(failure_to_proto(attempt.failure_reason, attempt.failure_message or ""))
        if attempt.exit_code is not None:
            message.failure.exit_code = attempt.exit_code
        if attempt.signal is not None:
            message.failure.signal = attempt.signal
    if attempt.end_time is not None:
        message.end_time.CopyFrom(timestamp(attempt.end_time))
    return message


def checkpoint_to_proto(project: str, checkpoint: Checkpoint, *, best_id: str) -> pb.Checkpoint:
    return pb.Checkpoint(
        name=names.checkpoint(project, checkpoint.job_id, checkpoint.id),
        step=checkpoint.step,
        size_bytes=checkpoint.size_bytes,
        manifest_sha256=checkpoint.manifest_sha256,
        metric=checkpoint.metric,
        files=[
            common_pb2.StoredFile(name=file["name"], size_bytes=file["size_bytes"], sha256=file["sha256"])
            for file in checkpoint.files
        ],
        create_time=timestamp(checkpoint.create_time),
        is_best=checkpoint.id == best_id,
    )


def artifact_to_proto(project: str, artifact: Artifact) -> pb.Artifact:
    return pb.Artifact(
        name=names.artifact(project, artifact.job_id, artifact.id),
        file_name=artifact.name,
        kind=artifact.kind,
        size_bytes=artifact.size_bytes,
        sha256=artifact.sha256,
        step=artifact.step,
        create_time=timestamp(artifact.create_time),
        content_type=artifact.content_type,
    )


def timestamp(moment: datetime) -> Timestamp:
    since = moment - _EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1000)


@lru_cache(maxsize=256)
def _config_struct(text: str) -> Struct:
    """Return a config on the wire. Filling a Struct takes longest in an answer, and jobs share their configs."""
    return to_struct(json.loads(text))


def _model_id(recipe: str) -> str:
    """Return the model's id where none is asked for; empty for what cannot be a recipe."""
    return recipe.replace("/", "-").replace("_", "-")
