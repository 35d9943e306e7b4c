"""Tiny networks for text with fresh weights of a fixed seed, and their handlers, as they are served."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from workers.families.base import Handler, Instance, InstanceInvalid, Network, ServingSpec
from workers.families.text.config import (
    LmModel,
    RnnLmConfig,
    TransformerConfig,
    TransformerModel,
    VocabConfig,
    Word2VecConfig,
    Word2VecModel,
)
from workers.families.text.lm_handler import LmHandler
from workers.families.text.lm_network import row_size as lm_row_size
from workers.families.text.rnn_lm import RnnLm
from workers.families.text.transformer import TextTransformer
from workers.families.text.transformer_handler import TransformerHandler
from workers.families.text.translator import row_size
from workers.families.text.vocab import Vocabulary
from workers.families.text.word2vec import Word2Vec
from workers.families.text.words_handler import WordsHandler
from workers.families.text.words_network import ROW_SIZE

WORDS = "king queen man woman boy girl"
MAX_TOKENS = 8


class Yard:
    """A served network, asked as a server asks it."""

    def __init__(self, network: nn.Module, handler: Handler) -> None:
        self.module, self.handler = network.eval(), handler
        self.network: Network = network

    def ask(self, *wishes: Any, **params: Any) -> list[Any]:
        return self.handler.predict([Instance(None, wish, params) for wish in wishes], self.network)

    def one(self, **wish: Any) -> dict[str, Any]:
        (answer,) = self.ask(wish)
        assert not isinstance(answer, InstanceInvalid), answer
        return dict(answer)

    def refusal(self, **wish: Any) -> str:
        (answer,) = self.ask(wish)
        assert isinstance(answer, InstanceInvalid), answer
        return str(answer)


def language_model(cell: str = "lstm", *, text: str = "the cat sat\non the mat\n", **model: Any) -> Yard:
    config = RnnLmConfig(model=LmModel.model_validate({"cell": cell, "embedding": 8, "hidden": 12, **model}))
    vocabulary = Vocabulary.of([text], VocabConfig(tokeniser="char"))
    spec = ServingSpec((lm_row_size(config.model),), {"vocabulary": vocabulary.to_json()})
    torch.manual_seed(0)
    return Yard(RnnLm.load_serving_module(config, spec), LmHandler(spec))


def transformer() -> Yard:
    model = TransformerModel(width=16, heads=2, feed_forward=32, encoder_layers=1, decoder_layers=1)
    vocabulary = Vocabulary.of(["abcdef"], VocabConfig(tokeniser="char"))
    constants = {
        "vocabulary": vocabulary.to_json(),
        "max_tokens": MAX_TOKENS,
        "beams": 4,
        "length_penalty": 0.6,
    }
    spec = ServingSpec((row_size(MAX_TOKENS),), constants)
    torch.manual_seed(0)
    return Yard(TextTransformer.load_serving_module(TransformerConfig(model=model), spec), TransformerHandler(spec))


def word_vectors(vectors: list[list[float]]) -> Yard:
    """Return the vectors of `WORDS`, in their order, as they are served."""
    vocabulary = Vocabulary("word", True, ("<pad>", "<unk>", "<bos>", "<eos>", *WORDS.split()))
    spec = ServingSpec((ROW_SIZE,), {"vocabulary": vocabulary.to_json()})
    width = len(vectors[0])
    module = Word2Vec.load_serving_module(Word2VecConfig(model=Word2VecModel(width=width)), spec)
    table = torch.cat([torch.randn(4, width), torch.tensor(vectors)])
    module.load_state_dict({"words.weight": table})
    return Yard(module, WordsHandler(spec))
