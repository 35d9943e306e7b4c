"""Two vectors for each word: one for the word itself, one for it as a neighbour (Mikolov et al. 2013, section 2.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from workers.families.text.rows import DIGITS, from_digits

TERMS = 3
"""Words that a question may add up."""


class WordVectors(nn.Module):
    """Words (N,) and candidates (N, K) in; how well each fits as a neighbour out (N, K)."""

    def __init__(self, num_tokens: int, width: int) -> None:
        super().__init__()
        self.words = nn.Embedding(num_tokens, width)
        self.neighbours = nn.Embedding(num_tokens, width)
        # As in the authors' code: words start small and apart, neighbours at nothing.
        nn.init.uniform_(self.words.weight, -0.5 / width, 0.5 / width)
        nn.init.zeros_(self.neighbours.weight)

    def forward(self, words: Tensor, candidates: Tensor) -> Tensor:
        return torch.einsum("nd,nkd->nk", self.words(words), self.neighbours(candidates))


class Sums(nn.Module):
    """What serves: a row of three words and a factor for each in.

    Out come the sum of their vectors (N, D), and the cosine of the sum of their directions with every word (N, V).
    """

    def __init__(self, num_tokens: int, width: int) -> None:
        super().__init__()
        self.words = nn.Embedding(num_tokens, width)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        vectors = self.words(from_digits(rows[:, : TERMS * DIGITS]))
        factors = rows[:, TERMS * DIGITS :, None].to(vectors.dtype)
        total = (vectors * factors).sum(1)
        direction = (functional.normalize(vectors, dim=-1) * factors).sum(1)
        table = functional.normalize(self.words.weight, dim=-1)
        return total, functional.linear(functional.normalize(direction, dim=-1), table)


ROW_SIZE = TERMS * (DIGITS + 1)
