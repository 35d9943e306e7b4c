from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch

from workers.families.base import InstanceInvalid
from workers.families.text.sampling import Sampling

SCORES = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()


def drawn(scores: torch.Tensor = SCORES, count: int = 2000, **fields: Any) -> Counter[int]:
    generator = torch.Generator().manual_seed(0)
    sampling = Sampling.of(fields)
    return Counter(sampling.draw(scores, generator) for _ in range(count))


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    found = drawn()

    assert [found[n] / 2000 for n in range(4)] == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.03)


def test_no_temperature_takes_the_likeliest() -> None:
    assert set(drawn(temperature=0, count=20)) == {0}


def test_a_temperature_changes_the_odds_by_its_power() -> None:
    found = drawn(temperature=0.5)

    assert found[0] / found[1] == pytest.approx((0.5 / 0.3) ** 2, rel=0.2)


def test_top_k_keeps_the_likeliest_k() -> None:
    assert set(drawn(top_k=2)) == {0, 1}
    assert set(drawn(top_k=9)) == {0, 1, 2, 3}


@pytest.mark.parametrize(("share", "kept"), [(0.4, {0}), (0.6, {0, 1}), (0.94, {0, 1, 2}), (1.0, {0, 1, 2, 3})])
def test_top_p_keeps_the_fewest_that_hold_the_share(share: float, kept: set[int]) -> None:
    assert set(drawn(top_p=share)) == kept


def test_the_order_of_the_tokens_does_not_matter_to_what_is_kept() -> None:
    assert set(drawn(SCORES[[3, 0, 2, 1]], top_p=0.6)) == {1, 3}


def test_what_is_barred_is_never_drawn() -> None:
    scores = SCORES.clone()
    scores[0] = -math.inf

    assert set(drawn(scores)) == {1, 2, 3}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"temperature": -1}, "temperature must be a number from 0 to 10"),
        ({"temperature": True}, "temperature must be"),
        ({"temperature": math.nan}, "temperature must be"),
        ({"top_k": 2.5}, "top_k must be a whole number"),
        ({"top_k": -1}, "top_k must be a whole number"),
        ({"top_p": 1.5}, "top_p must be a number from 0 to 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InstanceInvalid, match=said):
        Sampling.of(fields)
