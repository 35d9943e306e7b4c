"""What becomes of an archive's build, decided from how its child ended. Pure, as `outcome` is for training."""

from __future__ import annotations

import signal
from dataclasses import replace

from services.core.states import FailureReason
from workers.outcome import Ending, Outcome, Verdict, decide

_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def decide_build(ending: Ending) -> Outcome:
    """Return what an ending means for the archive.

    An export is a function of its bundle: a crash repeats itself, so a person should see it. What somebody outside
    ended says nothing of the bundle, and is begun again; so is what the kernel ended for memory, which others may fill.
    """
    outcome = decide(ending)
    if outcome.reason is None:
        return outcome
    if ending.failure is not None:
        return replace(outcome, verdict=Verdict.FAIL) if outcome.is_charged else outcome
    reason, message = _of_exit(ending)
    # What the worker itself kills has that signal, too.
    is_ours = ending.is_stalled or ending.is_stream_broken or ending.is_over_memory
    is_outside = ending.is_parent_lost or (ending.signal in _FROM_OUTSIDE and not is_ours)
    verdict = Verdict.REQUEUE if is_outside else Verdict.FAIL
    return replace(outcome, verdict=verdict, reason=reason, message=message, is_charged=False)


def _of_exit(ending: Ending) -> tuple[FailureReason, str]:
    if ending.is_stalled:
        return FailureReason.STALL, "The build stood still; the worker's log ends with the stacks of its threads."
    if ending.is_parent_lost:
        return FailureReason.WORKER_LOST, "The process that starts builds ended; it is started again."
    if ending.is_stream_broken:
        return FailureReason.CRASH, "The build sent unreadable messages; the worker's log may say why."
    if ending.is_over_memory or (ending.is_oom_killed and ending.signal == signal.SIGKILL):
        who = "worker" if ending.is_over_memory else "kernel"
        return FailureReason.HOST_OUT_OF_MEMORY, f"The {who} ended the build for its memory: give the worker more."
    if ending.signal is not None:
        name = signal.Signals(ending.signal).name
        return FailureReason.CRASH, f"The build was killed by {name}; the worker's log may say why."
    return FailureReason.CRASH, f"The build exited with code {ending.code} without a result; the worker's log says why."
