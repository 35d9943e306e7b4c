from __future__ import annotations

import pytest

from workers.families.config import preset_limits


@pytest.mark.parametrize(("steps", "evaluations", "often"), [(600, 3, 200), (400, 2, 200), (2, 3, 1)])
def test_a_preset_stores_evaluates_and_draws_so_many_times(steps: int, evaluations: int, often: int) -> None:
    limits = preset_limits(steps, evaluations=evaluations)

    assert limits.pop("max_steps") == steps
    assert limits == {
        "checkpoint_every_steps": often,
        "evaluate_every_steps": often,
        "sample_every_steps": often,
    }
