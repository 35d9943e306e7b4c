"""Beam search: several translations of each source grow side by side, and the likeliest for its length is taken.

Lengths are forgiven as Wu et al. 2016 (arXiv:1609.08144, section 7) have it, which Vaswani et al. 2017 follow:
a score is the logarithm of the chance over ((5 + length) / 6) to the power of the penalty. A source's search ends once
as many translations as it has beams came to their end, or at its limit of tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from workers.families.text.vocab import BOS, EOS, PAD, UNK

_EXTRA_TOKENS = 50
"""Section 6.1 of Vaswani et al. 2017: how much longer than its source a translation may get."""


class Writer(Protocol):
    """Writes translations on, token by token, and remembers what each of its rows has written."""

    def write(self, tokens: Sequence[int], behind: Sequence[int]) -> Tensor:
        """Put each token behind what a row of the last call has written; return scores (N, V) of what follows it.

        A row may be gone on with several times, or never again. In the first call the rows are the sources.
        """


@dataclass(frozen=True, slots=True)
class Found:
    """A translation without its end, and its score for its length."""

    tokens: tuple[int, ...]
    score: float
    is_whole: bool
    """Whether it came to its end, or was cut at the limit."""


@dataclass(frozen=True, slots=True)
class _Hypothesis:
    tokens: tuple[int, ...]
    total: float
    """The logarithm of its chance."""
    row: int
    """Of the last call of the writer, which it goes on with by its last token."""


@dataclass(slots=True)
class _Search:
    """One source's: what grows, likeliest first, and what came to its end."""

    limit: int
    growing: list[_Hypothesis]
    done: list[Found] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class BeamSearch:
    """How to search for translations of fewer than `max_tokens` tokens."""

    max_tokens: int
    beams: int
    length_penalty: float

    def __call__(self, writer: Writer, lengths: Sequence[int]) -> list[Found]:
        """Return the best translation of each of the writer's sources, whose lengths count their ends."""
        searches = [
            _Search(min(self.max_tokens - 1, length + _EXTRA_TOKENS), [_Hypothesis((), 0.0, source)])
            for source, length in enumerate(lengths)
        ]
        while going := [search for search in searches if search.growing]:
            rows = [one for search in going for one in search.growing]
            last = [one.tokens[-1] if one.tokens else BOS for one in rows]
            shares = writer.write(last, [one.row for one in rows]).double().log_softmax(-1)
            # What no text holds is no part of a translation; the network never saw it as an answer.
            shares[:, [PAD, UNK, BOS]] = -math.inf
            start = 0
            for search in going:
                count = len(search.growing)
                self._grow(search, shares[start : start + count], first_row=start)
                start += count
        return [max(search.done, key=lambda one: one.score) for search in searches]

    def _grow(self, search: _Search, shares: Tensor, *, first_row: int) -> None:
        before = torch.tensor([one.total for one in search.growing], dtype=torch.float64, device=shares.device)
        totals = (shares + before[:, None]).flatten()
        # Twice as many as are followed: at worst every beam's likeliest token is its end.
        best = totals.topk(min(2 * self.beams, len(totals)))
        grown: list[_Hypothesis] = []
        for place, total in zip(best.indices.tolist(), best.values.tolist(), strict=True):
            beam, token = divmod(place, shares.shape[1])
            tokens = search.growing[beam].tokens
            if not math.isfinite(total) or len(grown) == self.beams:
                continue
            if token == EOS:
                search.done.append(self._found(tokens, total, is_whole=True))
            else:
                grown.append(_Hypothesis((*tokens, token), total, first_row + beam))
        if len(search.done) >= self.beams or (self.beams == 1 and search.done):
            grown = []
        if grown and len(grown[0].tokens) == search.limit:
            search.done += [self._found(one.tokens, one.total, is_whole=False) for one in grown if not search.done]
            grown = []
        if not grown and not search.done:
            search.done.append(Found((), -math.inf, is_whole=False))
        search.growing = grown

    def _found(self, tokens: tuple[int, ...], total: float, *, is_whole: bool) -> Found:
        length = len(tokens) + is_whole
        return Found(tokens, total / ((5 + length) / 6) ** self.length_penalty, is_whole)
