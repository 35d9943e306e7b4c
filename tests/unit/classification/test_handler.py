"""What the parity gate makes of two answers of a classifier."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest

from workers.families.base import ServingSpec
from workers.families.classification.handler import ClassificationHandler

HANDLER = ClassificationHandler(
    ServingSpec((3, 8, 8), {"classes": ["a", "b", "c"], "stored_size": 8, "scores": "softmax"})
)


def answer(*scores: float, embedding: list[float] | None = None) -> Mapping[str, Any]:
    """Return an answer that names classes 0, 1, ... with these scores."""
    labels = [{"label": "abc"[number], "label_id": number, "score": score} for number, score in enumerate(scores)]
    return {"labels": labels} if embedding is None else {"labels": labels, "embedding": embedding}


@pytest.mark.parametrize(
    ("actual", "passed"),
    [
        pytest.param(answer(0.61, 0.29, 0.1), True, id="a little surer"),
        pytest.param(answer(0.65, 0.25, 0.1), False, id="much surer"),
        pytest.param(answer(0.6, 0.3), True, id="without the last"),
        pytest.param(answer(0.6), False, id="without the second"),
    ],
)
def test_scores_may_differ_a_little(actual: Mapping[str, Any], passed: bool) -> None:
    assert HANDLER.compare(answer(0.6, 0.3, 0.1), actual).passed is passed


@pytest.mark.parametrize(
    ("embedding", "passed"),
    [
        pytest.param([3.0, 4.0], True, id="the same"),
        pytest.param([3.1, 4.0], True, id="near"),
        pytest.param([6.0, 8.0], True, id="longer"),
        pytest.param([4.0, 3.0], False, id="turned"),
        pytest.param([3.0, 4.0, 0.0], False, id="of more values"),
        pytest.param([0.0, 0.0], False, id="nothing"),
        pytest.param(None, False, id="none"),
    ],
)
def test_an_embedding_that_was_asked_for_points_where_the_trainer_s_does(
    embedding: list[float] | None, passed: bool
) -> None:
    report = HANDLER.compare(answer(0.6, 0.3, embedding=[3.0, 4.0]), answer(0.6, 0.3, embedding=embedding))

    assert report.passed is passed


def test_embeddings_without_length_are_alike() -> None:
    nothing = answer(0.6, 0.3, embedding=[0.0, 0.0])

    assert HANDLER.compare(nothing, nothing).passed
    assert HANDLER.compare(nothing, answer(0.6, 0.3, embedding=[0.0, 1.0])).differences["embedding"] == math.inf
