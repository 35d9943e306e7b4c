"""Pairs of texts as batches of token ids, padded to the longest of each batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from services.core.errors import DatasetInvalid
from workers.engine.data import ShuffledBatches
from workers.families.base import Placement
from workers.families.text.config import PairsData
from workers.families.text.vocab import BOS, EOS, PAD, Vocabulary
from workers.families.texts import Pair


@dataclass(frozen=True, slots=True)
class PairBatch:
    """Sources (N, S) with their ends, targets (N, T) behind a beginning, and what follows each token of those (N, T)."""

    sources: Tensor
    targets: Tensor
    following: Tensor

    def to(self, placement: Placement) -> PairBatch:
        place = placement.device
        return PairBatch(self.sources.to(place), self.targets.to(place), self.following.to(place))


@dataclass(frozen=True, slots=True)
class Encoded:
    """The pairs of a split that are short enough, and how many are not."""

    pairs: tuple[Pair, ...]
    ids: tuple[tuple[Tensor, Tensor], ...]
    """Of source and target, each with its end."""
    num_left_out: int

    @classmethod
    def of(cls, pairs: Sequence[Pair], vocabulary: Vocabulary, *, max_tokens: int, split: str) -> Encoded:
        """Encode pairs.

        Raises:
            DatasetInvalid: all are too long.
        """
        rows = [(pair, [[*vocabulary.encode(text), EOS] for text in pair]) for pair in pairs]
        kept = [(pair, ids) for pair, ids in rows if max(map(len, ids)) <= max_tokens]
        if not kept:
            kind, remedy = (
                ("letters", ", set vocab.tokeniser to word") if vocabulary.tokeniser == "char" else ("words", "")
            )
            text = f"every pair of the split '{split}' has more than {max_tokens} tokens, which are {kind}"
            raise DatasetInvalid(f"{text}: raise data.max_tokens{remedy} or import shorter texts")
        ids = tuple((torch.tensor(source), torch.tensor(target)) for _, (source, target) in kept)
        return cls(tuple(pair for pair, _ in kept), ids, len(rows) - len(kept))

    def batch(self, places: Sequence[int]) -> PairBatch:
        sources = [self.ids[n][0] for n in places]
        targets = [self.ids[n][1] for n in places]
        beginning = torch.tensor([BOS])
        return PairBatch(
            sources=_padded(sources),
            targets=_padded([torch.cat([beginning, target[:-1]]) for target in targets]),
            following=_padded(targets),
        )


class PairBatches:
    """Shuffled pairs, anew in every epoch."""

    def __init__(self, encoded: Encoded, *, data: PairsData, seed: int) -> None:
        self._encoded = encoded
        self._order = ShuffledBatches(seed=seed, count=len(encoded.ids), batch_size=data.batch_size)
        self.batch_size = data.batch_size
        self.steps_per_epoch = self._order.steps_per_epoch

    def batch(self, step: int) -> PairBatch:
        return self._encoded.batch(self._order.indices(step))


def _padded(rows: Sequence[Tensor]) -> Tensor:
    return pad_sequence(list(rows), batch_first=True, padding_value=PAD)
