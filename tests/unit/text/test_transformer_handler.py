from __future__ import annotations

import math
from typing import Any

import pytest

from tests.builders.text_networks import MAX_TOKENS, transformer


def test_a_text_gets_the_same_answer_alone_and_beside_others() -> None:
    yard = transformer()
    alone = yard.one(text="abc")

    beside = yard.ask({"text": "fed"}, {"text": "abc"}, {"text": 3})[1]

    assert beside == alone
    assert set(alone) == {"text", "tokens", "score", "is_whole"}
    assert alone["tokens"] == len(alone["text"])
    assert math.isfinite(alone["score"])


def test_more_beams_never_find_what_is_less_likely() -> None:
    yard = transformer()

    narrow, wide = (yard.one(text="abc", beams=beams, length_penalty=0)["score"] for beams in (1, 16))

    assert wide >= narrow - 1e-6


def test_letters_that_were_never_seen_are_read_as_unknown() -> None:
    assert transformer().one(text="a?\u00e9")["tokens"] >= 0


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({}, "text is missing"),
        ({"text": " "}, "text is empty"),
        ({"text": ["a"]}, "text must be a text"),
        ({"text": "a" * MAX_TOKENS}, "text has 8 tokens; this model reads at most 7"),
        ({"text": "a", "beams": 17}, "beams must be a whole number from 1 to 16"),
        ({"text": "a", "beams": True}, "beams must be"),
        ({"text": "a", "length_penalty": -1}, "length_penalty must be a number from 0 to 5"),
        ({"text": "a", "seed": 1}, "unknown parameter 'seed'"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_its_field(wish: dict[str, Any], said: str) -> None:
    assert said in transformer().refusal(**wish)


def test_scores_that_are_not_finite_are_no_answer() -> None:
    yard = transformer()
    yard.module.network.embedding.weight.data[5] = math.nan

    assert "not finite" in yard.refusal(text="abc")


def test_the_gate_lets_rounding_pass_and_another_text_not() -> None:
    handler = transformer().handler
    answer = {"text": "cba", "tokens": 3, "score": -0.5, "is_whole": True}

    assert handler.compare(answer, {**answer, "score": -0.51}).passed
    assert not handler.compare(answer, {**answer, "score": -0.6}).passed
    assert not handler.compare(answer, {**answer, "text": "cbb"}).passed
