"""Beam search against a writer that is a table: the scores of the next token by what was written so far."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from workers.families.text.search import BeamSearch
from workers.families.text.vocab import BOS, EOS

A, B, C = 4, 5, 6
MAX_TOKENS = 5


class Table:
    """Chances of the next token drawn once for every beginning; sources may lean to one or another."""

    def __init__(self, seed: int, *, leanings: Sequence[float] = (0.0,)) -> None:
        self._seed = seed
        self._rows: list[tuple[float, tuple[int, ...]]] = [(leaning, ()) for leaning in leanings]

    def write(self, tokens: Sequence[int], behind: Sequence[int]) -> Tensor:
        self._rows = [
            (self._rows[row][0], (*self._rows[row][1], token)) for token, row in zip(tokens, behind, strict=True)
        ]
        assert {written[0] for _, written in self._rows} == {BOS}
        leaning_to = torch.tensor([0.0, 0, 0, -1, 1, -1, 0])
        return torch.stack([self.chances(written[1:]) + leaning * leaning_to for leaning, written in self._rows])

    def chances(self, tokens: Sequence[int]) -> Tensor:
        draws = torch.Generator().manual_seed(hash((self._seed, *tokens)) % 2**31)
        scores = 8 * torch.rand(7, generator=draws, dtype=torch.float64)
        # An end that is likely at once would leave nothing to search for.
        scores[EOS] -= 4 if len(tokens) < 2 else 0
        return scores

    def total(self, tokens: Sequence[int]) -> float:
        return sum(float(self.chances(tokens[:n]).log_softmax(0)[token]) for n, token in enumerate(tokens))


def search(beams: int, penalty: float = 0.0) -> BeamSearch:
    return BeamSearch(MAX_TOKENS, beams=beams, length_penalty=penalty)


def penalised(total: float, length: int, penalty: float) -> float:
    return total / ((5 + length) / 6) ** penalty


@pytest.mark.parametrize("seed", range(5))
def test_one_beam_takes_the_best_token_each_time(seed: int) -> None:
    table = Table(seed)
    wanted: list[int] = []
    while len(wanted) < MAX_TOKENS - 1:
        chances = table.chances(wanted)
        chances[[0, 1, 2]] = -math.inf
        if (token := int(chances.argmax())) == EOS:
            break
        wanted.append(token)

    (found,) = search(1)(table, [2])

    assert found.tokens == tuple(wanted)


@pytest.mark.parametrize("penalty", [0.0, 0.6])
def test_enough_beams_find_the_best_of_all_that_can_be_written(penalty: float) -> None:
    table = Table(3)
    all_written = [words for length in range(MAX_TOKENS - 1) for words in itertools.product((A, B, C), repeat=length)]
    scores = {words: penalised(table.total([*words, EOS]), len(words) + 1, penalty) for words in all_written}

    (found,) = search(200, penalty)(table, [2])

    best = max(scores, key=lambda words: scores[words])
    assert len(best) > 1
    assert found.tokens == best
    assert found.score == pytest.approx(scores[best])
    assert found.is_whole


def test_many_sources_are_searched_as_each_alone() -> None:
    leanings, lengths = (0.0, 2.0, -4.0), [2, 3, 2]

    together = search(3)(Table(3, leanings=leanings), lengths)

    alone = [
        search(3)(Table(3, leanings=[leaning]), [length])[0] for leaning, length in zip(leanings, lengths, strict=True)
    ]
    assert together == alone
    assert len({one.tokens for one in alone}) == 3


class Constant:
    """The same scores, whatever was written."""

    def __init__(self, scores: Sequence[float]) -> None:
        self._scores = torch.tensor(scores)

    def write(self, tokens: Sequence[int], behind: Sequence[int]) -> Tensor:
        del behind
        return self._scores.repeat(len(tokens), 1)


def test_what_never_ends_is_cut_and_told() -> None:
    (found,) = search(2)(Constant([0.0, 0, 0, -1e9, 1, 0, 0]), [2])

    assert not found.is_whole
    assert found.tokens == (A,) * (MAX_TOKENS - 1)


def test_scores_that_are_not_numbers_end_the_search() -> None:
    (found,) = search(2)(Constant([math.nan] * 7), [2])

    assert found.score == -math.inf
