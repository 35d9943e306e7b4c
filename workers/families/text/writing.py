"""Translations in the making: each source is encoded once, each token read once, however many hypotheses go on with it.

Attention to a target looks at keys and values that were found when its tokens were read. So a translation of n tokens
costs one encoding and n steps of the decoder, not n of both over all that was written.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from workers.families.text.transformer_network import KeysAndValues, Transformer, not_padding
from workers.families.text.vocab import PAD


class Writing:
    """A `Writer` for the beam search: a network in evaluation mode, and what it keeps of sources and translations."""

    def __init__(self, network: Transformer, sources: Sequence[Sequence[int]]) -> None:
        self._network = network
        rows = [torch.tensor(source, device=self._device) for source in sources]
        padded = pad_sequence(rows, batch_first=True, padding_value=PAD)
        self._all_sources, self._all_masks = network.look_at_source(padded), not_padding(padded)
        self._sources, self._masks = self._all_sources, self._all_masks
        self._source_of = list(range(len(sources)))
        self._written: list[KeysAndValues | None] = [None for _ in self._all_sources]
        self._length = 0

    def write(self, tokens: Sequence[int], behind: Sequence[int]) -> Tensor:
        self._keep(behind)
        scores, after = self._network.step(
            torch.tensor(tokens, device=self._device),
            self._length,
            before=self._written,
            sources=self._sources,
            mask=self._masks,
        )
        self._written, self._length = [*after], self._length + 1
        return scores

    def _keep(self, rows: Sequence[int]) -> None:
        """Keep these rows of what was written, and the source of each."""
        if list(rows) == list(range(len(self._source_of))):
            return
        which = self._index(rows)
        self._written = [None if one is None else one.rows(which) for one in self._written]
        source_of = [self._source_of[row] for row in rows]
        # Mostly the same hypotheses in another order: sources are many times as large, and stay as they are.
        if source_of != self._source_of:
            places = self._index(source_of)
            self._sources = [one.rows(places) for one in self._all_sources]
            self._masks = self._all_masks[places]
        self._source_of = source_of

    def _index(self, rows: Sequence[int]) -> Tensor:
        return torch.tensor(rows, device=self._device)

    @property
    def _device(self) -> torch.device:
        return self._network.embedding.weight.device
