from __future__ import annotations

import signal

import pytest

from services.core.states import FailureReason
from workers.outcome import Ending, Outcome, Verdict, decide, limited
from workers.stop import StopReason

COMPLETED = {"reason": "completed", "step": 10, "bundle_dir": "/spool/bundle", "metrics": {}}
STOPPED = {"reason": "stopped", "step": 10}


@pytest.mark.parametrize(
    ("ending", "verdict", "reason", "is_charged"),
    [
        pytest.param(Ending(code=0, final=COMPLETED), Verdict.SUCCEED, None, False, id="a final frame and exit 0"),
        pytest.param(
            Ending(code=0, final=COMPLETED, stop=StopReason.CANCEL),
            Verdict.SUCCEED,
            None,
            False,
            id="work that ended before the cancellation counts",
        ),
        pytest.param(
            Ending(code=0, final=COMPLETED, stop=StopReason.LOST),
            Verdict.ABANDON,
            None,
            False,
            id="a lost lease beats even success",
        ),
        pytest.param(
            Ending(code=0, final=STOPPED, stop=StopReason.NO_CONTACT),
            Verdict.ABANDON,
            None,
            False,
            id="without a database nothing can be written",
        ),
        pytest.param(
            Ending(code=0, final=STOPPED, stop=StopReason.CANCEL), Verdict.CANCEL, None, False, id="cancelled"
        ),
        pytest.param(
            Ending(signal=signal.SIGKILL, stop=StopReason.CANCEL),
            Verdict.CANCEL,
            None,
            False,
            id="a child that had to be killed is still cancelled",
        ),
        pytest.param(Ending(code=0, final=STOPPED, stop=StopReason.DRAIN), Verdict.REQUEUE, None, False, id="drained"),
        pytest.param(
            Ending(signal=signal.SIGKILL, stop=StopReason.DRAIN),
            Verdict.REQUEUE,
            None,
            False,
            id="a drain that ran out of time costs no attempt",
        ),
        pytest.param(
            Ending(code=0, final=STOPPED), Verdict.REQUEUE, None, False, id="a service manager stopped the child itself"
        ),
        pytest.param(
            Ending(code=0, final={"reason": "timeout", "step": 5}),
            Verdict.FAIL,
            FailureReason.TIMEOUT,
            False,
            id="the job's own time limit",
        ),
        pytest.param(
            Ending(code=1, failure={"reason": "NON_FINITE_LOSS", "message": "m"}),
            Verdict.FAIL,
            FailureReason.NON_FINITE_LOSS,
            False,
            id="an exact resume meets the same loss",
        ),
        pytest.param(
            Ending(code=1, failure={"reason": "INVALID_DATASET", "message": "m"}),
            Verdict.FAIL,
            FailureReason.INVALID_DATASET,
            False,
            id="bad data stays bad",
        ),
        pytest.param(
            Ending(code=1, failure={"reason": "OUT_OF_MEMORY", "message": "m"}),
            Verdict.FAIL,
            FailureReason.OUT_OF_MEMORY,
            False,
            id="the same batch needs the same memory",
        ),
        pytest.param(
            Ending(code=1, failure={"reason": "CRASH", "message": "m"}),
            Verdict.REQUEUE,
            FailureReason.CRASH,
            True,
            id="a traceback",
        ),
        pytest.param(
            Ending(code=1, failure={"reason": "no such reason", "message": "m"}),
            Verdict.REQUEUE,
            FailureReason.INTERNAL,
            True,
            id="a reason nobody knows",
        ),
        pytest.param(
            Ending(code=1, failure={"reason": "DISK_FULL", "message": "m"}),
            Verdict.REQUEUE,
            FailureReason.DISK_FULL,
            False,
            id="the worker's disk is not the job's fault",
        ),
        pytest.param(
            Ending(code=1, failure={"reason": "GPU_LOST", "message": "m"}),
            Verdict.REQUEUE,
            FailureReason.GPU_LOST,
            False,
            id="nor is its GPU",
        ),
        pytest.param(
            Ending(signal=signal.SIGSEGV), Verdict.REQUEUE, FailureReason.CRASH, True, id="a segmentation fault"
        ),
        pytest.param(
            Ending(signal=signal.SIGKILL), Verdict.REQUEUE, FailureReason.CRASH, True, id="killed, nobody knows by whom"
        ),
        pytest.param(
            Ending(signal=signal.SIGKILL, is_oom_killed=True),
            Verdict.REQUEUE,
            FailureReason.HOST_OUT_OF_MEMORY,
            True,
            id="killed by the kernel for memory",
        ),
        pytest.param(
            Ending(signal=signal.SIGBUS), Verdict.REQUEUE, FailureReason.SHARED_MEMORY, True, id="shared memory"
        ),
        pytest.param(
            Ending(signal=signal.SIGKILL, is_stalled=True), Verdict.REQUEUE, FailureReason.STALL, True, id="stuck"
        ),
        pytest.param(
            Ending(is_parent_lost=True), Verdict.REQUEUE, FailureReason.WORKER_LOST, False, id="the warm parent died"
        ),
        pytest.param(
            Ending(signal=signal.SIGKILL, is_stream_broken=True),
            Verdict.REQUEUE,
            FailureReason.CRASH,
            True,
            id="frames that cannot be read",
        ),
        pytest.param(Ending(code=0), Verdict.REQUEUE, FailureReason.CRASH, True, id="exit 0 without a final frame"),
        pytest.param(
            Ending(code=1, is_disk_full=True),
            Verdict.REQUEUE,
            FailureReason.DISK_FULL,
            False,
            id="a full disk takes no result",
        ),
        pytest.param(
            Ending(signal=signal.SIGSEGV, is_disk_full=True),
            Verdict.REQUEUE,
            FailureReason.CRASH,
            True,
            id="a signal explains itself on a full disk too",
        ),
        pytest.param(
            Ending(code=1, final=COMPLETED), Verdict.REQUEUE, FailureReason.CRASH, True, id="a result and then a crash"
        ),
    ],
)
def test_outcome(ending: Ending, verdict: Verdict, reason: FailureReason | None, is_charged: bool) -> None:
    outcome = decide(ending)

    assert (outcome.verdict, outcome.reason, outcome.is_charged) == (verdict, reason, is_charged)


def test_a_failure_says_at_which_step_and_how_the_process_ended() -> None:
    outcome = decide(Ending(signal=signal.SIGSEGV, last_step=41))

    assert "SIGSEGV" in outcome.message
    assert "step 41" in outcome.message
    assert outcome.signal == signal.SIGSEGV


def test_a_lack_of_memory_is_tried_again_in_parts_without_a_charge() -> None:
    outcome = decide(Ending(code=1, failure={"reason": "OUT_OF_MEMORY", "message": "m", "micro_batches": 4}))

    assert (outcome.verdict, outcome.is_charged) == (Verdict.REQUEUE, False)
    assert "4 parts" in outcome.message


def test_a_lack_of_memory_that_parts_do_not_help_ends_the_job() -> None:
    outcome = decide(Ending(code=1, failure={"reason": "OUT_OF_MEMORY", "message": "m", "micro_batches": None}))

    assert outcome.verdict is Verdict.FAIL


def test_a_loader_the_kernel_killed_for_memory_is_no_crash() -> None:
    died = {"reason": "CRASH", "message": "A loader process was killed: Killed", "is_loader": True}

    assert decide(Ending(code=1, failure=died, is_oom_killed=True)).reason is FailureReason.HOST_OUT_OF_MEMORY
    assert decide(Ending(code=1, failure=died)).reason is FailureReason.CRASH


def test_a_trainer_over_its_memory_is_told_from_one_that_somebody_killed() -> None:
    outcome = decide(Ending(signal=signal.SIGKILL, is_over_memory=True, last_step=7))

    assert outcome.reason is FailureReason.HOST_OUT_OF_MEMORY
    assert "step 7" in outcome.message


@pytest.mark.parametrize(
    ("reason", "times", "verdict"),
    [
        pytest.param(FailureReason.HOST_OUT_OF_MEMORY, 0, Verdict.REQUEUE, id="memory may have been short for others"),
        pytest.param(FailureReason.HOST_OUT_OF_MEMORY, 1, Verdict.FAIL, id="twice short is too little"),
        pytest.param(FailureReason.STALL, 1, Verdict.REQUEUE, id="a second stall"),
        pytest.param(FailureReason.STALL, 2, Verdict.FAIL, id="a third one is a bug"),
        pytest.param(FailureReason.CRASH, 9, Verdict.REQUEUE, id="crashes count against max_attempts"),
    ],
)
def test_some_failures_are_worth_only_so_many_retries(reason: FailureReason, times: int, verdict: Verdict) -> None:
    outcome = limited(Outcome(Verdict.REQUEUE, reason, "m"), [None, *[reason] * times])

    assert outcome.verdict is verdict
    assert ("tried again" in outcome.message) == (verdict is Verdict.FAIL)


def test_a_crash_waits_for_the_usual_back_off() -> None:
    assert decide(Ending(signal=signal.SIGSEGV)).delay_seconds is None
