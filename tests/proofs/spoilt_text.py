"""Recipes of text with one part spoilt each: a proof that one of them passes proves nothing."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from workers.families.base import Placement
from workers.families.text.lm_network import LanguageModel
from workers.families.text.rnn_lm import RnnLm
from workers.families.text.transformer import TextTransformer
from workers.families.text.transformer_network import Attention, Transformer
from workers.families.text.word2vec import Word2Vec
from workers.families.text.words_data import Pairs


class _OneByOne(LanguageModel):
    """Reads every token as if nothing had been before it."""

    def forward(self, tokens: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        nothing = self.nothing_read(tokens.numel(), device=tokens.device)
        scores, _ = super().forward(tokens.reshape(-1, 1), nothing)
        return scores.reshape(*tokens.shape, -1), hidden


class LmThatForgets(RnnLm):
    """Tells the next letter from the last alone."""

    def new_network(self) -> LanguageModel:
        return _OneByOne(self.config.model, len(self.vocabulary))


class _Uncovered(Attention):
    def forward(self, x: Tensor, seen: Tensor, mask: Tensor | None, *, is_causal: bool = False) -> Tensor:
        del is_causal
        return super().forward(x, seen, mask)


class TransformerThatLooksAhead(TextTransformer):
    """Learns with the answer in sight: its decoder has no causal mask."""

    def new_network(self) -> Transformer:
        network = super().new_network()
        for layer in network.decoder:
            layer.attention = _Uncovered(self.config.model)
        return network


class WordsAmongStrangers(Word2Vec):
    """Learns neighbours that are those of other words."""

    def losses(self, network: nn.Module, batch: Pairs, placement: Placement) -> dict[str, Tensor]:
        mixed = replace(batch, neighbours=torch.roll(batch.neighbours, 1))
        return super().losses(network, mixed, placement)
