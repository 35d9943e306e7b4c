"""Which checkpoint of a job is meant: by its id, by its step, or the best."""

from __future__ import annotations

from collections.abc import Sequence

from trainyard.v1 import job_pb2

from services.client.errors import ApiError
from services.client.names import short

BEST = "best"


def choose(job: str, found: Sequence[job_pb2.Checkpoint], wanted: str) -> job_pb2.Checkpoint:
    """Return the one checkpoint of all of a job's that has this id or full name, this step, or did `best`.

    Raises:
        ApiError: none has, or several have.
    """
    if wanted == BEST:
        return choose_best(job, found)
    named = [each for each in found if wanted in (each.name, short(each.name))]
    matches = named or [each for each in found if wanted == str(each.step)]
    if not matches:
        raise ApiError("NOT_FOUND", "NOT_FOUND", f"job {short(job)!r} has no checkpoint {short(wanted)!r}")
    if len(matches) > 1:
        ids = ", ".join(short(each.name) for each in matches)
        raise ApiError("FAILED_PRECONDITION", "AMBIGUOUS", f"step {wanted} of job {short(job)!r} has several: {ids}")
    return matches[0]


def choose_best(job: str, found: Sequence[job_pb2.Checkpoint]) -> job_pb2.Checkpoint:
    """Return the checkpoint of the best figure.

    Raises:
        ApiError: there is no checkpoint, or none was evaluated.
    """
    if not found:
        text = f"job {short(job)!r} has no checkpoint: it stored none yet, or they were deleted"
        raise ApiError("FAILED_PRECONDITION", "NO_CHECKPOINT", text)
    best = next((each for each in found if each.is_best), None)
    if best is None:
        text = f"no checkpoint of job {short(job)!r} was evaluated yet"
        raise ApiError("FAILED_PRECONDITION", "NOT_EVALUATED", text)
    return best
