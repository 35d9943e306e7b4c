"""How an attempt ended, decided from what its child said and how its process ended. Pure.

The order matters: a lost lease beats everything, a finished training beats a stop that came too late, a failure the
child itself explained beats one guessed from its exit.
"""

from __future__ import annotations

import enum
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from services.core.states import FailureReason
from workers.stop import StopReason


class Verdict(enum.Enum):
    """What the worker does with the job."""

    SUCCEED = "succeed"
    FAIL = "fail"
    CANCEL = "cancel"
    REQUEUE = "requeue"
    ABANDON = "abandon"
    """Write nothing: the job is another attempt's, or nobody could be asked for too long."""


@dataclass(frozen=True, slots=True)
class Ending:
    """Everything known about a child that ended."""

    code: int | None = None
    signal: int | None = None
    is_parent_lost: bool = False
    """The warm parent died, and the child with it."""
    is_stream_broken: bool = False
    is_stalled: bool = False
    is_oom_killed: bool = False
    """The kernel killed a process of this control group for memory while the child ran."""
    is_disk_full: bool = False
    """So little is free where the child or its worker writes that the worker would begin no attempt."""
    is_over_memory: bool = False
    """The worker killed the child, whose processes held more memory than one trainer may."""
    stop: StopReason | None = None
    final: Mapping[str, Any] | None = None
    failure: Mapping[str, Any] | None = None
    last_step: int = -1


@dataclass(frozen=True, slots=True)
class Outcome:
    """The verdict and, where something failed, why. A charged requeue uses up one of the job's attempts."""

    verdict: Verdict
    reason: FailureReason | None = None
    message: str = ""
    is_charged: bool = False
    delay_seconds: float | None = 0.0
    """None: what this reason usually waits."""
    final: Mapping[str, Any] = field(default_factory=dict)
    code: int | None = None
    signal: int | None = None


def decide(ending: Ending) -> Outcome:
    """Return what an ending means for the job."""
    return replace(_judge(ending), code=ending.code, signal=ending.signal)


def failed(reason: FailureReason, message: str) -> Outcome:
    """Return what a failure of this reason leads to."""
    plain = _RETRIES.get(reason, Outcome(Verdict.FAIL))
    return replace(plain, reason=reason, message=message)


def limited(outcome: Outcome, earlier: Sequence[FailureReason | None]) -> Outcome:
    """Return what an outcome means after these earlier attempts: some failures are worth only so many retries."""
    limit = _RETRY_LIMITS.get(outcome.reason) if outcome.reason is not None else None
    if outcome.verdict is not Verdict.REQUEUE or limit is None or earlier.count(outcome.reason) < limit:
        return outcome
    times = "once" if limit == 1 else f"{limit} times"
    return replace(outcome, verdict=Verdict.FAIL, message=f"{outcome.message} It was tried again {times} before.")


def _judge(ending: Ending) -> Outcome:
    if ending.stop in (StopReason.LOST, StopReason.NO_CONTACT):
        return Outcome(Verdict.ABANDON)
    said = (ending.final or {}).get("reason")
    if said == "completed" and ending.code == 0:
        return Outcome(Verdict.SUCCEED, final=ending.final or {})
    if ending.stop is StopReason.CANCEL:
        return Outcome(Verdict.CANCEL)
    if said == "timeout":
        message = f"Training reached limits.max_seconds at step {ending.last_step}; the last checkpoint is kept."
        return Outcome(Verdict.FAIL, FailureReason.TIMEOUT, message)
    if ending.failure is not None:
        return _of_failure(ending.failure, is_oom_killed=ending.is_oom_killed)
    if said == "stopped" or ending.stop in (StopReason.DRAIN, StopReason.YIELD):
        # Also a child that somebody else signalled: a service manager stops all processes of a unit at once.
        return Outcome(Verdict.REQUEUE)
    return _of_exit(ending)


_RETRIES: dict[FailureReason, Outcome] = {
    FailureReason.HOST_OUT_OF_MEMORY: Outcome(Verdict.REQUEUE, is_charged=True, delay_seconds=None),
    FailureReason.SHARED_MEMORY: Outcome(Verdict.REQUEUE, is_charged=True, delay_seconds=None),
    FailureReason.CRASH: Outcome(Verdict.REQUEUE, is_charged=True, delay_seconds=None),
    FailureReason.STALL: Outcome(Verdict.REQUEUE, is_charged=True, delay_seconds=None),
    FailureReason.INTERNAL: Outcome(Verdict.REQUEUE, is_charged=True, delay_seconds=None),
    FailureReason.GPU_LOST: Outcome(Verdict.REQUEUE, is_charged=False, delay_seconds=None),
    FailureReason.STORAGE_UNAVAILABLE: Outcome(Verdict.REQUEUE, is_charged=False, delay_seconds=None),
    FailureReason.WORKER_LOST: Outcome(Verdict.REQUEUE, is_charged=False, delay_seconds=0.0),
    FailureReason.DISK_FULL: Outcome(Verdict.REQUEUE, is_charged=False, delay_seconds=None),
}
"""Failures worth another attempt. The rest repeat themselves: an exact resume meets the same loss, batch and limit."""

_RETRY_LIMITS = {
    FailureReason.OUT_OF_MEMORY: 3,
    FailureReason.HOST_OUT_OF_MEMORY: 1,
    FailureReason.SHARED_MEMORY: 1,
    FailureReason.STALL: 2,
}
"""How often one job is tried again after these; the others only count against max_attempts."""


def _of_failure(failure: Mapping[str, Any], *, is_oom_killed: bool) -> Outcome:
    try:
        reason = FailureReason(str(failure.get("reason")))
    except ValueError:
        reason = FailureReason.INTERNAL
    message = str(failure.get("message") or "The trainer failed without saying why.")
    if is_oom_killed and failure.get("is_loader"):
        text = f"The kernel killed a loader process for memory: lower runtime.loader_workers. ({message})"
        return failed(FailureReason.HOST_OUT_OF_MEMORY, text)
    if reason is FailureReason.OUT_OF_MEMORY and failure.get("micro_batches"):
        text = f"{message}; the next attempt trains each batch in {failure['micro_batches']} parts."
        return Outcome(Verdict.REQUEUE, reason, text)
    return failed(reason, message)


def _of_exit(ending: Ending) -> Outcome:
    at = f"at step {ending.last_step}" if ending.last_step >= 0 else "before its first step"
    if ending.is_stalled:
        return failed(
            FailureReason.STALL, f"The trainer stood still {at}; the log ends with the stacks of its threads."
        )
    if ending.is_parent_lost:
        return failed(FailureReason.WORKER_LOST, f"The process that starts trainers ended {at}; it is started again.")
    if ending.is_stream_broken:
        return failed(FailureReason.CRASH, f"The trainer sent unreadable messages {at}; the log may say why.")
    if ending.is_over_memory or (ending.is_oom_killed and ending.signal == signal.SIGKILL):
        who = "worker" if ending.is_over_memory else "kernel"
        message = f"The {who} ended the trainer {at} for its memory: lower data.batch_size or give the worker more."
        return failed(FailureReason.HOST_OUT_OF_MEMORY, message)
    if ending.signal == signal.SIGBUS:
        message = f"The trainer got SIGBUS {at}, most often too little shared memory: set runtime.loader_workers to 0."
        return failed(FailureReason.SHARED_MEMORY, message)
    if ending.signal is not None:
        name = signal.Signals(ending.signal).name
        return failed(FailureReason.CRASH, f"The trainer was killed by {name} {at}; the log's last lines may say why.")
    if ending.is_disk_full:
        # One that finds no room for its words says nothing, or only half of it.
        message = f"The worker's disk is full, and the trainer ended {at} without a result: free space there."
        return failed(FailureReason.DISK_FULL, message)
    return failed(FailureReason.CRASH, f"The trainer exited with code {ending.code} {at} without a result.")
