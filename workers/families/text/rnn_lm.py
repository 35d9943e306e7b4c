"""A recurrent language model: pytorch/examples `word_language_model` (77f55b9), Mikolov et al. 2010.

Truncated back-propagation: every step reads a window more of each lane, from what was read before it, through which no
gradient flows. What was read is part of the training state, so that a resume reads on with it. The reference lowers its
rate by a quarter whenever the held-out loss rises; here the rate is a function of the step alone, a cosine by default.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from services.core.errors import DatasetInvalid
from workers.families.base import (
    Golden,
    Instance,
    InstanceInvalid,
    Network,
    Picture,
    Placement,
    ServingSpec,
    TrainState,
)
from workers.families.supervised import SupervisedRecipe, in_eval_mode, served_network, spread
from workers.families.text.config import RnnLmConfig
from workers.families.text.draw import Run, page
from workers.families.text.lm_data import Window, Windows, cross_entropy, in_whole, total_loss
from workers.families.text.lm_handler import LmHandler
from workers.families.text.lm_network import LanguageModel, Step, num_states, row_size
from workers.families.text.vocab import UNK, Vocabulary
from workers.families.texts import read_text

_PROMPT_CHARACTERS = 60
_SAMPLE_TOKENS = {"char": 300, "word": 80}
_GOLDEN_CHARACTERS = 80
_GOLDEN_TOKENS = 16
_MANY_UNKNOWN = 0.05


class RnnLm(SupervisedRecipe[RnnLmConfig, Window]):
    """The next token, from all before it."""

    metric = "eval/perplexity"
    metric_mode: ClassVar[str] = "min"

    def __init__(self, config: RnnLmConfig, dataset_dir: Path) -> None:
        super().__init__(config, dataset_dir)
        train, self._held_out = (read_text(dataset_dir, split) for split in ("train", "val"))
        self.vocabulary = Vocabulary.of([train], config.vocab)
        self._train_tokens = torch.tensor(self.vocabulary.encode(train))
        self._held_out_tokens = torch.tensor(self.vocabulary.encode(self._held_out))
        if len(self._held_out_tokens) < 2:
            raise DatasetInvalid("the held-out text has fewer than two tokens; add text to it")

    def new_network(self) -> LanguageModel:
        return LanguageModel(self.config.model, len(self.vocabulary))

    def build(self, placement: Placement) -> TrainState:
        state = super().build(placement)
        model, count = self.config.model, self.config.data.batch_size
        shape = (num_states(model), model.layers, count, model.hidden)
        state.tensors["hidden"] = torch.zeros(shape, device=placement.device)
        return state

    def train_batches(self) -> Windows:
        return Windows(self._train_tokens, data=self.config.data)

    def to_device(self, batch: Window, placement: Placement) -> Window:
        return batch.to(placement)

    def train_step(self, state: TrainState, batch: Window, placement: Placement) -> dict[str, Tensor]:
        return super().train_step(state, replace(batch, hidden=state.tensors["hidden"]), placement)

    def losses(self, network: nn.Module, batch: Window, placement: Placement) -> dict[str, Tensor]:
        assert batch.hidden is not None
        if batch.is_first:
            batch.hidden.zero_()
        with placement.autocast():
            scores, after = network(batch.tokens, batch.hidden.clone())
        batch.hidden.copy_(after.detach())
        return {"tokens": cross_entropy(scores, batch.targets)}

    def evaluate(self, state: TrainState, placement: Placement) -> dict[str, float]:
        with in_eval_mode(served_network(state)) as network:
            assert isinstance(network, LanguageModel)
            size = self.config.data.bptt
            windows = in_whole(self._held_out_tokens, lanes=self.config.eval.batch_size, size=size)
            nats, count = total_loss(network, windows, placement)
        # Letters that no token was asked for: the first token's.
        characters = len(self._held_out) * count / len(self._held_out_tokens)
        return {
            "eval/perplexity": math.exp(min(nats / count, 700.0)),
            "eval/bits_per_character": nats / math.log(2) / characters,
            "eval/unknown": self._unknown,
        }

    def notices(self) -> list[str]:
        if self._unknown <= _MANY_UNKNOWN:
            return []
        text = f"{self._unknown:.0%} of the held-out tokens are not in the vocabulary of {len(self.vocabulary)}"
        return [f"{text}: figures will look better than they are; raise vocab.size, or use vocab.tokeniser 'char'"]

    def sample(self, state: TrainState, placement: Placement) -> list[Picture]:
        """Draw held-out beginnings and how the model goes on."""
        prompts = self._passages(self.config.eval.num_samples, _PROMPT_CHARACTERS)
        limit = _SAMPLE_TOKENS[self.vocabulary.tokeniser]
        wishes = [{"text": prompt, "max_tokens": limit, "seed": n} for n, prompt in enumerate(prompts)]
        answers = self._ask(state, placement, [{**wish, "temperature": 0.8} for wish in wishes])
        passages = [
            (Run(prompt, "given"), Run(str(answer["text"]), "made"))
            for prompt, answer in zip(prompts, answers, strict=True)
            if not isinstance(answer, InstanceInvalid)
        ]
        return [Picture("samples", page(passages))] if passages else []

    def serving_module(self, state: TrainState) -> nn.Module:
        network = served_network(state)
        assert isinstance(network, LanguageModel)
        return Step(network)

    def serving_spec(self) -> ServingSpec:
        return ServingSpec((row_size(self.config.model),), {"vocabulary": self.vocabulary.to_json()})

    def golden(self, state: TrainState, placement: Placement, count: int) -> Golden:
        """Return held-out passages to be scored, and at the end one to go on from."""
        exact = Placement(placement.device, autocast_dtype=None, memory_format=placement.memory_format)
        wishes: list[dict[str, Any]] = [
            {"op": "score", "text": passage} for passage in self._passages(count, _GOLDEN_CHARACTERS)
        ]
        if len(wishes) > 1:
            wishes[-1] = {"text": wishes[-1]["text"], "temperature": 0, "max_tokens": _GOLDEN_TOKENS}
        answers = self._ask(state, exact, wishes)
        good = [(wish, one) for wish, one in zip(wishes, answers, strict=True) if not isinstance(one, InstanceInvalid)]
        bodies = tuple(json.dumps({"instances": [wish]}).encode() for wish, _ in good)
        return Golden(inputs=bodies, answers=tuple(one for _, one in good))

    @classmethod
    def load_serving_module(cls, config: RnnLmConfig, spec: ServingSpec) -> nn.Module:
        return Step(LanguageModel(config.model, len(Vocabulary.from_json(spec.constants["vocabulary"]))))

    @property
    def _unknown(self) -> float:
        return float((self._held_out_tokens == UNK).float().mean())

    def _passages(self, count: int, size: int) -> list[str]:
        """Return pieces of the held-out text from its beginning to its end: each of whole words, none of them blank."""
        starts = spread(max(1, len(self._held_out) - 2 * size), count)
        found = (_from_word(self._held_out[start : start + 2 * size], size, is_cut=start > 0) for start in starts)
        return [piece for piece in found if piece] or [self._held_out.strip()[:size]]

    def _ask(
        self, state: TrainState, placement: Placement, wishes: Sequence[Mapping[str, Any]]
    ) -> list[Mapping[str, Any] | InstanceInvalid]:
        handler = LmHandler(self.serving_spec())
        with in_eval_mode(served_network(state)):
            network = _placed(self.serving_module(state), placement)
            return handler.predict([Instance(None, wish, {}) for wish in wishes], network)


def _from_word(text: str, size: int, *, is_cut: bool) -> str:
    """Return about `size` letters of a text, from the beginning of a word to the end of one where that is near."""
    begun = re.search(r"\s\S", text[:size]) if is_cut else None
    piece = text[0 if begun is None else begun.end() - 1 :].lstrip()
    ended = re.search(r"\s", piece[size:])
    return piece[: size + (0 if ended is None else ended.start())].rstrip()


def _placed(module: nn.Module, placement: Placement) -> Network:
    def network(rows: Tensor) -> tuple[Tensor, Tensor]:
        with torch.inference_mode(), placement.autocast():
            scores, state = module(rows.to(placement.device))
        return scores.float().cpu(), state.float().cpu()

    return network
