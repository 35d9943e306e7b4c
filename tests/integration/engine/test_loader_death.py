"""A loader process that is killed is told with its signal, also where DataLoader did not see it."""

from __future__ import annotations

import os
import signal
import time

import pytest

from services.core.states import FailureReason
from workers.engine.data import open_batches
from workers.failure import diagnose


class DyingBatches:
    """Batches whose third one kills the process that makes it."""

    steps_per_epoch = 10
    batch_size = 1

    def __init__(self, number: signal.Signals) -> None:
        self._number = number

    def batch(self, step: int) -> int:
        if step == 2:
            os.kill(os.getpid(), self._number)
            time.sleep(60)
        return step


def read_all(number: signal.Signals, *, is_seen: bool) -> None:
    with open_batches(DyingBatches(number), first_step=0, total_steps=10, num_workers=1) as batches:
        handler = signal.getsignal(signal.SIGCHLD)
        if not is_seen:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        try:
            list(batches)
        finally:
            signal.signal(signal.SIGCHLD, handler)


@pytest.mark.parametrize("is_seen", [True, False], ids=["seen by DataLoader", "not seen"])
@pytest.mark.parametrize(
    ("number", "reason", "word"),
    [
        (signal.SIGBUS, FailureReason.SHARED_MEMORY, "loader_workers"),
        (signal.SIGKILL, FailureReason.CRASH, "was killed: Killed"),
    ],
)
def test_the_signal_of_a_dead_loader_is_known(
    number: signal.Signals, reason: FailureReason, word: str, is_seen: bool
) -> None:
    with pytest.raises(RuntimeError, match="DataLoader worker") as caught:
        read_all(number, is_seen=is_seen)

    found = diagnose(caught.value)

    assert (found.reason, found.is_loader) == (reason, True)
    assert word in found.message


def die_at_hand_over(error: Exception) -> None:
    """Kill the loader unseen by DataLoader, and fail as the end that received from it does."""
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        with open_batches(DyingBatches(signal.SIGKILL), first_step=0, total_steps=2, num_workers=1) as batches:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.kill(batches._workers[0].pid, signal.SIGKILL)  # type: ignore[attr-defined]
            raise error
    finally:
        signal.signal(signal.SIGCHLD, handler)


@pytest.mark.parametrize("error", [ConnectionResetError(104, "Connection reset by peer"), EOFError()])
def test_a_loader_that_dies_while_it_hands_over_is_known_too(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        die_at_hand_over(error)

    found = diagnose(caught.value)

    assert (found.reason, found.is_loader) == (FailureReason.CRASH, True)
    assert "was killed: Killed" in found.message
