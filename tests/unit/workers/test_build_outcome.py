from __future__ import annotations

import signal

import pytest

from services.core.states import FailureReason
from workers.build_outcome import decide_build
from workers.failure import diagnose
from workers.outcome import Ending, Verdict
from workers.stop import StopReason

COMPLETED = {"reason": "completed", "sha256": "a"}


@pytest.mark.parametrize(
    ("ending", "verdict", "words"),
    [
        pytest.param(Ending(code=0, final=COMPLETED), Verdict.SUCCEED, "", id="built"),
        pytest.param(Ending(signal=signal.SIGKILL, stop=StopReason.DRAIN), Verdict.REQUEUE, "", id="drained"),
        pytest.param(Ending(signal=signal.SIGKILL, stop=StopReason.LOST), Verdict.ABANDON, "", id="lease lost"),
        pytest.param(Ending(signal=signal.SIGKILL), Verdict.REQUEUE, "killed by SIGKILL", id="somebody killed it"),
        pytest.param(Ending(signal=signal.SIGTERM), Verdict.REQUEUE, "killed by SIGTERM", id="or ended it"),
        pytest.param(
            Ending(signal=signal.SIGKILL, is_oom_killed=True),
            Verdict.REQUEUE,
            "kernel ended the build for its memory",
            id="others may have filled the memory",
        ),
        pytest.param(
            Ending(signal=signal.SIGKILL, is_over_memory=True),
            Verdict.FAIL,
            "worker ended the build for its memory",
            id="more memory than one build may have, each time",
        ),
        pytest.param(Ending(is_parent_lost=True), Verdict.REQUEUE, "starts builds ended", id="the warm parent died"),
        pytest.param(Ending(signal=signal.SIGSEGV), Verdict.FAIL, "killed by SIGSEGV", id="a crash repeats itself"),
        pytest.param(
            Ending(signal=signal.SIGKILL, is_stalled=True), Verdict.FAIL, "stood still", id="and so does a stall"
        ),
        pytest.param(Ending(code=3), Verdict.FAIL, "exited with code 3", id="no result"),
        pytest.param(
            Ending(signal=signal.SIGKILL, is_stream_broken=True), Verdict.FAIL, "unreadable", id="nonsense on the pipe"
        ),
        pytest.param(
            Ending(code=1, failure={"reason": "CRASH", "message": "The build crashed with KeyError"}),
            Verdict.FAIL,
            "crashed with KeyError",
            id="it said why",
        ),
        pytest.param(
            Ending(code=1, failure={"reason": "STORAGE_UNAVAILABLE", "message": "no store"}),
            Verdict.REQUEUE,
            "no store",
            id="what passes is tried again",
        ),
    ],
)
def test_what_becomes_of_a_build(ending: Ending, verdict: Verdict, words: str) -> None:
    outcome = decide_build(ending)

    assert outcome.verdict is verdict
    assert words in outcome.message
    assert "trainer" not in outcome.message
    assert outcome.signal == ending.signal


def test_what_a_build_raises_is_told_in_words_of_a_build() -> None:
    crash, memory = diagnose(KeyError("weights"), who="build"), diagnose(MemoryError(), who="build")

    assert crash.reason is FailureReason.CRASH
    assert crash.message.startswith("The build crashed with KeyError")
    assert memory.reason is FailureReason.OUT_OF_MEMORY
    assert "give the worker more" in memory.message
    assert "batch_size" not in memory.message
