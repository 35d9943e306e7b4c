"""Events, states and failures in the words a person reads."""

from __future__ import annotations

from trainyard.v1 import deployment_pb2, job_pb2, model_pb2

from services.client.names import model_label
from services.client.output import human_seconds
from services.core.units import human_bytes


def job_state(state: job_pb2.JobState) -> str:
    return _word(job_pb2.JobState.Name(state), "JOB_STATE_")


def waiting(found: job_pb2.Waiting) -> str:
    """Return why a queued job does not run yet, and the remedy; nothing where it is about to."""
    if not found.workers:
        return (
            f"no worker takes jobs of the queue {found.queue}; "
            "start one whose TRAINYARD_WORKER_QUEUES names it, or cancel the job and submit it for other resources"
        )
    if found.is_at_quota:
        return "its project runs as many jobs as its quota allows"
    if not found.free_slots and found.full_disks:
        return _full_disks(found)
    if not found.free_slots:
        return f"all of {found.queue} is taken ({found.slots} running at most); it starts when its turn has come"
    return ""


def _full_disks(found: job_pb2.Waiting) -> str:
    whose = "the disk of 1 worker is" if found.full_disks == 1 else f"the disks of {found.full_disks} workers are"
    rest = f", and all else of {found.queue} is taken ({found.slots} running at most)" if found.slots else ""
    return f"{whose} full{rest}; free space there, and the job starts by itself"


def attempt_state(state: job_pb2.AttemptState) -> str:
    return _word(job_pb2.AttemptState.Name(state), "ATTEMPT_STATE_")


def attempt_end(found: job_pb2.Attempt, job: job_pb2.Job) -> str:
    """Return why an attempt ended; nothing of one that runs or succeeded."""
    if found.HasField("failure"):
        return failure(found.failure)
    if found.state == job_pb2.ATTEMPT_STATE_CANCELLED:
        return "the job was cancelled"
    if found.state != job_pb2.ATTEMPT_STATE_REQUEUED:
        return ""
    gave_way = ", or it gave way to another" if job.is_preemptible else ""
    return f"given back, counts towards no limit: its worker was stopped, or the job was paused{gave_way}"


def attempts(job: job_pb2.Job) -> str:
    """Return how many attempts began, and how many of them count; nothing while none did."""
    began, counted = num_attempts(job), f"{job.attempt} of {job.max_attempts}"
    if not began:
        return ""
    return counted if began == job.attempt else f"{began} ({counted} counted)"


def num_attempts(job: job_pb2.Job) -> int:
    # A server of an earlier release tells only of those that count.
    return max(job.num_attempts, job.attempt)


def phase(value: job_pb2.Phase) -> str:
    return "" if value == job_pb2.PHASE_UNSPECIFIED else _word(job_pb2.Phase.Name(value), "PHASE_")


def deployment_state(state: deployment_pb2.DeploymentState) -> str:
    return _word(deployment_pb2.DeploymentState.Name(state), "DEPLOYMENT_STATE_")


def model_state(state: model_pb2.ModelVersionState) -> str:
    return _word(model_pb2.ModelVersionState.Name(state), "MODEL_VERSION_STATE_")


def failure(found: job_pb2.Failure) -> str:
    """Return the class and the sentence of a failure, and how the trainer ended where that says more."""
    reason = job_pb2.FailureReason.Name(found.reason).removeprefix("FAILURE_REASON_")
    end = f" (signal {found.signal})" if found.HasField("signal") else ""
    return f"{reason}{end}: {found.message}"


def figures(values: dict[str, float], prefix: str) -> str:
    return "  ".join(f"{name.removeprefix(prefix)} {values[name]:.4g}" for name in sorted(values))


def event(found: job_pb2.JobEvent) -> str:
    """Return one line for an event."""
    match found.WhichOneof("payload"):
        case "state_change":
            return _state_change(found.state_change)
        case "phase":
            detail = f": {found.phase.detail}" if found.phase.detail else ""
            return f"{phase(found.phase.phase) or 'phase'}{detail}"
        case "step":
            return step(found.step)
        case "evaluation":
            return f"evaluation at step {found.evaluation.step}: {figures(dict(found.evaluation.metrics), 'eval/')}"
        case "checkpoint":
            return f"checkpoint at step {found.checkpoint.step} stored ({human_bytes(found.checkpoint.size_bytes)})"
        case "artifact":
            return f"{found.artifact.kind} {found.artifact.file_name} stored"
        case _:
            return _rare_event(found)


def step(found: job_pb2.StepScalars) -> str:
    rate = f"  {found.samples_per_second:.1f} samples/s" if found.samples_per_second else ""
    return f"step {found.step}/{found.total_steps}  {figures(dict(found.scalars), 'train/')}{rate}"


def _state_change(found: job_pb2.StateChange) -> str:
    who = f", attempt {found.attempt}" if found.attempt and found.state == job_pb2.JOB_STATE_RUNNING else ""
    where = f" on {found.worker_id}" if found.worker_id else ""
    why = f": {found.message}" if found.message else ""
    return f"{job_state(found.state)}{who}{where}{why}"


def _rare_event(found: job_pb2.JobEvent) -> str:
    match found.WhichOneof("payload"):
        case "log":
            level = _word(job_pb2.LogLevel.Name(found.log.level), "LOG_LEVEL_")
            return found.log.text if level in ("info", "unspecified") else f"{level}: {found.log.text}"
        case "precision":
            chosen = found.precision
            extras = [
                word for word, on in (("channels last", chosen.channels_last), ("compiled", chosen.is_compiled)) if on
            ]
            return f"computes in {', '.join([chosen.precision, *extras])}"
        case "requeued":
            return _requeued(found.requeued)
        case "failure":
            return f"failed: {failure(found.failure)}"
        case "model":
            return f"model {model_label(found.model.model_version)} stored"
        case _:
            return "something this version of the client has no words for"


def _requeued(found: job_pb2.Requeued) -> str:
    # The sentence goes on here.
    why = f" after {failure(found.failure).removesuffix('.')}" if found.HasField("failure") else ": its worker stops"
    delay = human_seconds(found.delay.seconds)
    return f"queued again{why}" + (f"; next attempt in {delay}" if found.delay.seconds else "")


def _word(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower()
