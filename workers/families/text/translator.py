"""What the Transformer serves: a source in, its translation out, the whole search within one call.

A search asks the network as often as a translation has tokens, with keys and values that grow. Between a handler and a
stored form, which knows one shape, that would take the longest rows each time, and copies of all that was kept. Within
the network it takes neither; the price is that no stored form of it can be built (`Handler.is_any_size`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from workers.families.text.search import BeamSearch, Found
from workers.families.text.transformer_network import Transformer
from workers.families.text.vocab import PAD
from workers.families.text.writing import Writing

_WISHES = 2


class Translator(nn.Module):
    """Rows of wishes and a source in, as `to_row` has them; tokens (N, T), scores (N,) and whether whole (N,) out.

    Translations end before their padding. A score is minus infinity where those of the network are not finite.
    """

    def __init__(self, network: Transformer, *, max_tokens: int) -> None:
        super().__init__()
        self.network = network
        self.max_tokens = max_tokens

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = [self._translate(row) for row in rows.tolist()]
        tokens = torch.full((len(found), self.max_tokens), PAD)
        for row, one in zip(tokens, found, strict=True):
            row[: len(one.tokens)] = torch.tensor(one.tokens)
        scores = torch.tensor([one.score for one in found], dtype=torch.float64)
        return tokens, scores, torch.tensor([one.is_whole for one in found])

    def _translate(self, row: Sequence[float]) -> Found:
        beams, length_penalty = row[:_WISHES]
        source = [int(token) for token in row[_WISHES:] if token != PAD]
        search = BeamSearch(self.max_tokens, beams=int(beams), length_penalty=length_penalty)
        return search(Writing(self.network, [source]), [len(source)])[0]


def to_row(source: Sequence[int], *, beams: int, length_penalty: float) -> Tensor:
    """Return a row (L,) of a source with its end; in double precision, which the penalty is reckoned in."""
    return torch.tensor([beams, length_penalty, *source], dtype=torch.float64)


def row_size(max_tokens: int) -> int:
    """Return how many numbers the longest row has."""
    return _WISHES + max_tokens
