"""Beam search: several translations of each source grow side by side, and the likeliest for its length is taken.

Lengths are forgiven as Wu et al. 2016 (arXiv:1609.08144, section 7) have it, which Vaswani et al. 2017 follow:
a score is the logarithm of the chance over ((5 + length) / 6) to the power of the penalty. A source's search ends once
as many translations as it has beams came to their end, or at its limit of tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from workers.families.base import Network
from workers.families.text.rows import to_digits
from workers.families.text.vocab import BOS, EOS, PAD, UNK

_EXTRA_TOKENS = 50
"""Section 6.1 of Vaswani et al. 2017: how much longer than its source a translation may get."""


@dataclass(frozen=True, slots=True)
class Found:
    """A translation without its end, and its score for its length."""

    tokens: tuple[int, ...]
    score: float
    is_whole: bool
    """Whether it came to its end, or was cut at the limit."""


@dataclass(slots=True)
class _Search:
    """One source's: what grows, likeliest first, and what came to its end."""

    source: Tensor
    limit: int
    growing: list[tuple[tuple[int, ...], float]] = field(default_factory=lambda: [((), 0.0)])
    done: list[Found] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        return not self.growing


@dataclass(frozen=True, slots=True)
class BeamSearch:
    """How to search with a network whose rows hold `max_tokens` ids of the source and as many of the target."""

    max_tokens: int
    beams: int
    length_penalty: float

    def __call__(self, network: Network, sources: Sequence[Sequence[int]]) -> list[Found]:
        """Return the best translation of each source, given with its end."""
        searches = [
            _Search(self._padded(source), min(self.max_tokens - 1, len(source) + _EXTRA_TOKENS)) for source in sources
        ]
        while going := [search for search in searches if not search.is_over]:
            rows = torch.stack([self._row(search.source, tokens) for search in going for tokens, _ in search.growing])
            scores = network(rows)
            assert isinstance(scores, Tensor)
            shares = scores.double().log_softmax(-1)
            # What no text holds is no part of a translation; the network never saw it as an answer.
            shares[:, [PAD, UNK, BOS]] = -math.inf
            parts = torch.split(shares, [len(search.growing) for search in going])
            for search, part in zip(going, parts, strict=True):
                self._grow(search, part)
        return [max(search.done, key=lambda one: one.score) for search in searches]

    def _grow(self, search: _Search, shares: Tensor) -> None:
        before = torch.tensor([total for _, total in search.growing], dtype=torch.float64)
        totals = (shares + before[:, None]).flatten()
        # Twice as many as are followed: at worst every beam's likeliest token is its end.
        best = totals.topk(min(2 * self.beams, len(totals)))
        grown: list[tuple[tuple[int, ...], float]] = []
        for place, total in zip(best.indices.tolist(), best.values.tolist(), strict=True):
            beam, token = divmod(place, shares.shape[1])
            tokens = search.growing[beam][0]
            if not math.isfinite(total) or len(grown) == self.beams:
                continue
            if token == EOS:
                search.done.append(self._found(tokens, total, is_whole=True))
            else:
                grown.append(((*tokens, token), total))
        if len(search.done) >= self.beams or (self.beams == 1 and search.done):
            grown = []
        if grown and len(grown[0][0]) == search.limit:
            search.done += [self._found(*one, is_whole=False) for one in grown if not search.done]
            grown = []
        if not grown and not search.done:
            search.done.append(Found((), -math.inf, is_whole=False))
        search.growing = grown

    def _found(self, tokens: tuple[int, ...], total: float, *, is_whole: bool) -> Found:
        length = len(tokens) + is_whole
        return Found(tokens, total / ((5 + length) / 6) ** self.length_penalty, is_whole)

    def _row(self, source: Tensor, tokens: tuple[int, ...]) -> Tensor:
        return torch.cat([source, self._padded([BOS, *tokens])])

    def _padded(self, ids: Sequence[int]) -> Tensor:
        return to_digits([*ids, *[PAD] * (self.max_tokens - len(ids))])
