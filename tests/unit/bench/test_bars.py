"""A model passes where it clears every bar, and what it misses is said with the figures."""

from __future__ import annotations

from typing import Any

import pytest

from tests.bench.bars import serving_lines, serving_verdict

GOOD: dict[str, Any] = {
    "ratio": 3.0,
    "p99_ours": 80.0,
    "p99_stock": 80.0,
    "loss_beside_busy_process": 0.29,
    "form": "aoti_int8",
    "largest_differences": {"score": 0.5},
}


@pytest.mark.parametrize(
    ("changes", "is_equal", "missed", "said"),
    [
        pytest.param({}, True, set(), "passed", id="all bars"),
        pytest.param({"ratio": 2.99}, True, {"ratio"}, "2.99 times", id="too slow"),
        pytest.param({"p99_ours": 80.1}, True, {"p99"}, "p99 80.1 ms", id="a worse tail"),
        pytest.param(
            {"loss_beside_busy_process": 0.3}, True, {"loss_beside_busy_process"}, "30.0% lost", id="a neighbour hurts"
        ),
        pytest.param({}, False, {"answers"}, "{'score': 0.5}", id="other answers"),
        pytest.param({"ratio": 1.0, "p99_ours": 99.0}, False, {"ratio", "p99", "answers"}, "; p99 99.0", id="several"),
    ],
)
def test_a_model_is_judged_by_every_bar(changes: dict[str, Any], is_equal: bool, missed: set[str], said: str) -> None:
    figures = {**GOOD, **changes}

    passed = serving_verdict(figures, has_equal_answers=is_equal)
    (line,) = serving_lines({"resnet18": {**figures, "passed": passed}})

    assert {bar for bar, is_cleared in passed.items() if not is_cleared} == missed
    assert line.startswith("serving resnet18 as aoti_int8: ")
    assert said in line
    assert ("MISSED" in line) == bool(missed)
