from __future__ import annotations

import torch

from workers.families.text.config import VocabConfig
from workers.families.text.rows import from_digits, to_digits
from workers.families.text.vocab import SPECIALS, UNK, Vocabulary


def vocabulary(text: str, **config: object) -> Vocabulary:
    return Vocabulary.of([text], VocabConfig.model_validate({"tokeniser": "word", **config}))


def test_tokens_are_ranked_by_frequency_and_then_by_their_letters() -> None:
    made = vocabulary("b a c b a b d")

    assert made.tokens == (*SPECIALS, "b", "a", "c", "d")
    assert made.encode("a zebra b") == [5, UNK, 4]


def test_rare_tokens_and_those_beyond_the_size_are_unknown() -> None:
    text = " ".join(letter * 2 for letter in "aaaabbbccd")

    assert vocabulary(text, min_count=2).tokens[4:] == ("aa", "bb", "cc")
    assert len(vocabulary(" ".join(map(str, range(100))), size=10)) == 10


def test_words_keep_their_apostrophes_and_marks_stand_alone() -> None:
    made = vocabulary("x")

    assert made.cut("Don't stop, na\u00efve (one)!\nTwo\u2026") == [
        *("Don't", "stop", ",", "na\u00efve", "(", "one", ")", "!", "\n", "Two", "\u2026")
    ]


def test_words_come_back_with_the_spaces_that_are_usual_around_them() -> None:
    text = "One (of them), not two.\nAnd so on!"
    made = vocabulary(text)

    assert made.decode(made.encode(text)) == text


def test_letters_come_back_as_they_were() -> None:
    made = vocabulary("a\tb\n  c", tokeniser="char")

    assert made.decode(made.encode("c  b\n\ta")) == "c  b\n\ta"


def test_a_text_that_names_a_special_token_is_not_that_token() -> None:
    made = vocabulary("<pad> <eos>", tokeniser="word")

    assert not {0, 2, 3} & set(made.encode("<pad> <bos> <eos> pad"))


def test_case_is_dropped_where_that_is_wished() -> None:
    assert vocabulary("The the THE", lowercase=True).tokens[4:] == ("the",)


def test_a_vocabulary_travels_as_json() -> None:
    made = vocabulary("one two two", lowercase=True)

    assert Vocabulary.from_json(made.to_json()) == made


def test_ids_survive_a_row_that_is_rounded_to_bf16() -> None:
    ids = [0, 1, 255, 256, 257, 4_099, 30_001, 65_535]

    row = to_digits(ids)[None].to(torch.bfloat16)

    assert from_digits(row).tolist() == [ids]
