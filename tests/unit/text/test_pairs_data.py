from __future__ import annotations

import pytest

from services.core.errors import DatasetInvalid
from workers.families.text.config import VocabConfig
from workers.families.text.pairs_data import Encoded
from workers.families.text.vocab import Vocabulary

PAIR = ("the king sees the house", "der Mann sieht das Haus")


@pytest.mark.parametrize(
    ("tokeniser", "remedy"),
    [
        (
            "char",
            "tokens, which are letters: raise data.max_tokens, set vocab.tokeniser to word or import shorter texts",
        ),
        ("word", "tokens, which are words: raise data.max_tokens or import shorter texts"),
    ],
)
def test_pairs_that_are_all_too_long_are_refused_with_what_is_counted(tokeniser: str, remedy: str) -> None:
    vocabulary = Vocabulary.of(PAIR, VocabConfig.model_validate({"tokeniser": tokeniser}))

    with pytest.raises(DatasetInvalid, match=f"'train' has more than 5 {remedy}"):
        Encoded.of([PAIR], vocabulary, max_tokens=5, split="train")


def test_pairs_that_are_too_long_are_counted() -> None:
    short = ("the king", "der Mann")
    vocabulary = Vocabulary.of(PAIR, VocabConfig.model_validate({"tokeniser": "word"}))

    encoded = Encoded.of([PAIR, short], vocabulary, max_tokens=5, split="train")

    assert (encoded.pairs, encoded.num_left_out) == ((short,), 1)
