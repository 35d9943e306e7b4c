"""Beam search against a network that is a table: the scores of the next token by what was written so far."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from workers.families.text.rows import from_digits
from workers.families.text.search import BeamSearch
from workers.families.text.vocab import BOS, EOS, PAD

A, B, C = 4, 5, 6
MAX_TOKENS = 5


class Table:
    """Chances of the next token drawn once for every beginning."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.rows: list[int] = []

    def chances(self, tokens: Sequence[int]) -> Tensor:
        draws = torch.Generator().manual_seed(hash((self._seed, *tokens)) % 2**31)
        scores = 8 * torch.rand(7, generator=draws, dtype=torch.float64)
        # An end that is likely at once would leave nothing to search for.
        scores[EOS] -= 4 if len(tokens) < 2 else 0
        return scores

    def __call__(self, rows: Tensor) -> Tensor:
        self.rows.append(len(rows))
        targets = from_digits(rows)[:, MAX_TOKENS:]
        return torch.stack([self.chances([n for n in row.tolist() if n not in (PAD, BOS)]) for row in targets])

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

    (found,) = search(1)(table, [[A, EOS]])

    assert found.tokens == tuple(wanted)


@pytest.mark.parametrize("penalty", [0.0, 0.6])
def test_enough_beams_find_the_best_of_all_that_can_be_written(penalty: float) -> None:
    table = Table(3)
    all_written = [words for length in range(MAX_TOKENS - 1) for words in itertools.product((A, B, C), repeat=length)]
    scores = {words: penalised(table.total([*words, EOS]), len(words) + 1, penalty) for words in all_written}

    (found,) = search(200, penalty)(table, [[A, EOS]])

    best = max(scores, key=lambda words: scores[words])
    assert len(best) > 1
    assert found.tokens == best
    assert found.score == pytest.approx(scores[best])
    assert found.is_whole


def test_many_sources_are_searched_as_each_alone() -> None:
    class Reading(Table):
        def __call__(self, rows: Tensor) -> Tensor:
            return super().__call__(rows) + from_digits(rows)[:, :1] * torch.tensor([0, 0, 0, 0.01, 0.3, 0, 0.1])

    sources = [[A, EOS], [C, B, EOS], [B, EOS]]

    together = search(3)(Reading(1), sources)

    assert together == [search(3)(Reading(1), [source])[0] for source in sources]


def test_what_never_ends_is_cut_and_told() -> None:
    (found,) = search(2)(lambda rows: torch.tensor([[0.0, 0, 0, -1e9, 1, 0, 0]]).repeat(len(rows), 1), [[A, EOS]])

    assert not found.is_whole
    assert found.tokens == (A,) * (MAX_TOKENS - 1)


def test_scores_that_are_not_numbers_end_the_search() -> None:
    (found,) = search(2)(lambda rows: torch.full((len(rows), 7), math.nan), [[A, EOS]])

    assert found.score == -math.inf
