from __future__ import annotations

from typing import Any

import pytest

from workers.engine.frames import Frame, FrameKind
from workers.supervisor import STALL_STEPS, StallWatch


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def frame(kind: FrameKind, **fields: Any) -> Frame:
    return Frame(kind, fields)


TRAINING = frame(FrameKind.PHASE, phase="training", detail="")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(clock: Clock) -> StallWatch:
    watch = StallWatch(10.0, clock)
    watch.observe(TRAINING)
    return watch


def test_no_step_for_longer_than_the_floor_is_a_stall(watch: StallWatch, clock: Clock) -> None:
    watch.observe(frame(FrameKind.STEP, step=1, step_ms=10))

    clock.now += 10.1

    assert watch.is_stalled


def test_a_new_step_is_progress(watch: StallWatch, clock: Clock) -> None:
    clock.now += 9
    watch.observe(frame(FrameKind.ALIVE, step=1))
    clock.now += 9

    assert not watch.is_stalled


def test_the_same_step_again_is_no_progress(watch: StallWatch, clock: Clock) -> None:
    watch.observe(frame(FrameKind.ALIVE, step=1))
    clock.now += 9
    watch.observe(frame(FrameKind.ALIVE, step=1))
    clock.now += 2

    assert watch.is_stalled


def test_slow_steps_get_twenty_times_their_median(watch: StallWatch, clock: Clock) -> None:
    for step in range(5):
        watch.observe(frame(FrameKind.STEP, step=step, step_ms=4000))

    clock.now += STALL_STEPS * 4 - 1
    assert not watch.is_stalled
    clock.now += 2
    assert watch.is_stalled


def test_outside_training_any_word_is_a_sign_of_life(watch: StallWatch, clock: Clock) -> None:
    watch.observe(frame(FrameKind.PHASE, phase="evaluating", detail=""))
    clock.now += 9
    watch.observe(frame(FrameKind.ALIVE, step=1))
    clock.now += 9

    assert not watch.is_stalled
