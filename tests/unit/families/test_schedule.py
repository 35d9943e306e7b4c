from __future__ import annotations

import pytest

from workers.families.schedule import learning_rate
from workers.families.sections import Schedule


def rates(schedule: Schedule, *, max_steps: int) -> list[float]:
    return [learning_rate(step, peak=1.0, schedule=schedule, max_steps=max_steps) for step in range(max_steps)]


def test_cosine_climbs_to_the_peak_and_falls_to_nearly_nothing():
    curve = rates(Schedule(name="cosine", warmup_steps=10), max_steps=100)

    assert curve[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert curve[10] == 1.0
    assert curve[10:] == sorted(curve[10:], reverse=True)
    assert curve[-1] < 0.001


def test_milestones_multiply():
    curve = rates(Schedule(name="milestones", milestones=((2, 2.0), (4, 0.1))), max_steps=6)

    assert curve == pytest.approx([1, 1, 2, 2, 0.2, 0.2])


def test_a_short_training_warms_up_for_a_fifth_of_it():
    curve = rates(Schedule(name="cosine", warmup_steps=50), max_steps=20)

    assert curve[3] == max(curve) == 1.0


def test_a_single_step_has_a_rate():
    assert rates(Schedule(name="cosine", warmup_steps=50), max_steps=1) == [1.0]
