"""Skip-gram with negative sampling: vectors from which a word tells its neighbours from noise.

Mikolov et al. 2013 (arXiv:1310.4546): section 2.2 the loss, 2.3 subsampling of frequent words; noise is drawn by the
frequency to the power of 3/4. Adam takes the place of SGD with a rate that falls to zero, as in d2l.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from workers.families.base import (
    Golden,
    Instance,
    InstanceInvalid,
    Network,
    Picture,
    Placement,
    ServingSpec,
    Table,
    TrainState,
)
from workers.families.supervised import SupervisedRecipe, served_network
from workers.families.text.config import Word2VecConfig
from workers.families.text.draw import Run, page
from workers.families.text.vocab import SPECIALS, Vocabulary
from workers.families.text.words_data import PairDraws, Pairs, WordStream, frequencies_of
from workers.families.text.words_handler import WordsHandler
from workers.families.text.words_network import ROW_SIZE, Sums, WordVectors
from workers.families.texts import read_text

_SHOWN_NEAREST = 6
_HELD_OUT_SEED = 1


class Word2Vec(SupervisedRecipe[Word2VecConfig, Pairs]):
    """Vectors of words."""

    metric = "eval/loss"
    metric_mode: ClassVar[str] = "min"

    def __init__(self, config: Word2VecConfig, dataset_dir: Path) -> None:
        super().__init__(config, dataset_dir)
        train, held_out = (read_text(dataset_dir, split) for split in ("train", "val"))
        self.vocabulary = Vocabulary.of([train], config.vocab)
        self._train = WordStream(train, self.vocabulary, split="train")
        self._held_out = WordStream(held_out, self.vocabulary, split="val")
        self._frequencies = frequencies_of(self._train, len(self.vocabulary))

    def new_network(self) -> WordVectors:
        return WordVectors(len(self.vocabulary), self.config.model.width)

    def train_batches(self) -> PairDraws:
        return self._draws(self._train, self.config.data.batch_size, seed=self.config.runtime.seed)

    def to_device(self, batch: Pairs, placement: Placement) -> Pairs:
        return batch.to(placement)

    def losses(self, network: nn.Module, batch: Pairs, placement: Placement) -> dict[str, Tensor]:
        return {"pairs": _loss(network, batch, placement)}

    def evaluate(self, state: TrainState, placement: Placement) -> dict[str, float]:
        """Return the loss of held-out pairs, always the same ones, and how many analogies are solved."""
        pairs = self._draws(self._held_out, self.config.eval.batch_size, seed=_HELD_OUT_SEED).batch(0)
        with torch.inference_mode():
            loss = _loss(served_network(state), pairs.to(placement), placement)
        return {"eval/loss": float(loss), **self._analogies(state, placement)}

    def _analogies(self, state: TrainState, placement: Placement) -> dict[str, float]:
        questions = self.config.eval.analogies
        if not questions:
            return {}
        wishes = [{"op": "analogy", "a": a, "b": b, "c": c, "n": 1} for a, b, c, _ in questions]
        answers = self._ask(state, placement, wishes)
        is_known = [not isinstance(one, InstanceInvalid) for one in answers]
        # A question about a word that is not known is one that is not solved.
        is_right = [
            not isinstance(one, InstanceInvalid) and self.vocabulary.cut(wanted) == [one["nearest"][0]["word"]]
            for one, (*_, wanted) in zip(answers, questions, strict=True)
        ]
        return {
            "eval/analogy_accuracy": sum(is_right) / len(questions),
            "eval/analogies_known": sum(is_known) / len(questions),
        }

    def sample(self, state: TrainState, placement: Placement) -> list[Picture]:
        """Draw frequent words with those nearest to them."""
        passages = [
            (
                Run(f"{word}   ", "title"),
                Run("   ".join(f"{one['word']} {one['score']:.2f}" for one in nearest), "made"),
            )
            for word, nearest in self._neighbourhoods(state, placement)
        ]
        return [Picture("samples", page(passages))]

    def tables(self, state: TrainState, placement: Placement) -> list[Table]:
        rows = [
            (word, str(one["word"]), float(one["score"]))
            for word, nearest in self._neighbourhoods(state, placement)
            for one in nearest
        ]
        return [Table("nearest", ("word", "near", "cosine"), tuple(rows))]

    def serving_module(self, state: TrainState) -> nn.Module:
        network = served_network(state)
        assert isinstance(network, WordVectors)
        module = Sums(*network.words.weight.shape)
        # The very weights, not a copy: what serves is a part of what was trained.
        module.words = network.words
        return module

    def serving_spec(self) -> ServingSpec:
        constants = {"vocabulary": self.vocabulary.to_json(), "width": self.config.model.width}
        return ServingSpec((ROW_SIZE,), constants)

    def golden(self, state: TrainState, placement: Placement, count: int) -> Golden:
        """Return the nearest of frequent words, the vector of one and an analogy of three."""
        words = self._frequent(count)
        wishes: list[dict[str, Any]] = [{"text": word} for word in words]
        if len(wishes) > 2:
            wishes[-1] |= {"op": "vector"}
            wishes[-2] = {"op": "analogy", "text": " ".join(words[:3])}
        answers = self._ask(state, placement, wishes)
        good = [(wish, one) for wish, one in zip(wishes, answers, strict=True) if not isinstance(one, InstanceInvalid)]
        bodies = tuple(json.dumps({"instances": [wish]}).encode() for wish, _ in good)
        return Golden(inputs=bodies, answers=tuple(one for _, one in good))

    @classmethod
    def load_serving_module(cls, config: Word2VecConfig, spec: ServingSpec) -> nn.Module:
        return Sums(len(Vocabulary.from_json(spec.constants["vocabulary"])), config.model.width)

    def _draws(self, stream: WordStream, count: int, *, seed: int) -> PairDraws:
        return PairDraws(stream, self._frequencies, data=self.config.data, batch_size=count, seed=seed)

    def _frequent(self, count: int) -> list[str]:
        """Return the most frequent words: they come first in a vocabulary. Marks are left out where there are words."""
        tokens = self.vocabulary.tokens[len(SPECIALS) :]
        return [token for token in tokens if token[0].isalnum()][:count] or list(tokens[:count])

    def _neighbourhoods(self, state: TrainState, placement: Placement) -> list[tuple[str, list[Mapping[str, Any]]]]:
        words = self._frequent(self.config.eval.num_samples)
        answers = self._ask(state, placement, [{"text": word, "n": _SHOWN_NEAREST} for word in words])
        found = zip(words, answers, strict=True)
        return [(word, one["nearest"]) for word, one in found if not isinstance(one, InstanceInvalid)]

    def _ask(
        self, state: TrainState, placement: Placement, wishes: Sequence[Mapping[str, Any]]
    ) -> list[Mapping[str, Any] | InstanceInvalid]:
        network = _placed(self.serving_module(state), placement)
        return WordsHandler(self.serving_spec()).predict([Instance(None, wish, {}) for wish in wishes], network)


def _loss(network: nn.Module, pairs: Pairs, placement: Placement) -> Tensor:
    """Return the mean of -log s(u v) - sum of log s(-u n) over pairs of a word u, a neighbour v and noise n, in fp32."""
    with placement.autocast():
        scores = network(pairs.words, torch.cat([pairs.neighbours[:, None], pairs.noise], dim=1))
    signs = torch.ones_like(scores, dtype=torch.float32)
    signs[:, 1:] = -1
    losses = -functional.logsigmoid(scores.float() * signs).sum(1)
    return (losses * pairs.counts).sum() / placement.mean_count(pairs.counts.sum()).clamp(min=1)


def _placed(module: nn.Module, placement: Placement) -> Network:
    def network(rows: Tensor) -> tuple[Tensor, Tensor]:
        # In fp32 whatever training computes in: a sum of three vectors is no work.
        with torch.inference_mode():
            vector, cosines = module(rows.to(placement.device))
        return vector.float().cpu(), cosines.float().cpu()

    return network
