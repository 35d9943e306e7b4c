"""The Transformer that reads a text and writes another (Vaswani et al. 2017, arXiv:1706.03762, sections 3 and 5).

Label smoothing, Adam with betas 0.9 and 0.98, a rate that grows over the warm-up and then falls with the root of the
step, and beam search of 4 with a length penalty of 0.6 are the paper's. Both texts share one vocabulary.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

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
    TrainState,
)
from workers.families.supervised import SupervisedRecipe, in_eval_mode, served_network, spread
from workers.families.text.bleu import Bleu
from workers.families.text.config import TransformerConfig
from workers.families.text.draw import Run, page
from workers.families.text.pairs_data import Encoded, PairBatch, PairBatches
from workers.families.text.search import BeamSearch
from workers.families.text.transformer_handler import TransformerHandler
from workers.families.text.transformer_network import Transformer
from workers.families.text.translator import Translator, row_size
from workers.families.text.vocab import PAD, Vocabulary
from workers.families.text.writing import Writing
from workers.families.texts import read_pairs


class TextTransformer(SupervisedRecipe[TransformerConfig, PairBatch]):
    """One text into another."""

    metric = "eval/token_accuracy"

    def __init__(self, config: TransformerConfig, dataset_dir: Path) -> None:
        super().__init__(config, dataset_dir)
        train, held_out = (read_pairs(dataset_dir, split) for split in ("train", "val"))
        self.vocabulary = Vocabulary.of((text for pair in train for text in pair), config.vocab)
        limit = config.data.max_tokens
        self._train = Encoded.of(train, self.vocabulary, max_tokens=limit, split="train")
        self._held_out = Encoded.of(held_out, self.vocabulary, max_tokens=limit, split="val")
        # Where letters have no case, no translation can have the reference's.
        self._bleu = Bleu(config.eval.bleu_tokeniser, has_case=not config.vocab.lowercase)

    def new_network(self) -> Transformer:
        config = self.config
        return Transformer(config.model, num_tokens=len(self.vocabulary), max_tokens=config.data.max_tokens)

    def build(self, placement: Placement) -> TrainState:
        state = super().build(placement)
        if self.config.optim.name == "adamw":
            for group in state.optimizers["network"].param_groups:
                group["eps"] = self.config.optim.eps
        return state

    def train_batches(self) -> PairBatches:
        return PairBatches(self._train, data=self.config.data, seed=self.config.runtime.seed)

    def to_device(self, batch: PairBatch, placement: Placement) -> PairBatch:
        return batch.to(placement)

    def losses(self, network: nn.Module, batch: PairBatch, placement: Placement) -> dict[str, Tensor]:
        with placement.autocast():
            scores = network(batch.sources, batch.targets)
        smoothing = self.config.loss.label_smoothing
        count = placement.mean_count((batch.following != PAD).sum())
        return {"tokens": _cross_entropy(scores, batch.following, smoothing=smoothing) / count}

    def notices(self) -> list[str]:
        if not (left_out := self._train.num_left_out + self._held_out.num_left_out):
            return []
        text = f"{left_out} pairs have more than {self.config.data.max_tokens} tokens and are left out"
        return [f"{text}: raise data.max_tokens to learn from them, too"]

    def evaluate(self, state: TrainState, placement: Placement) -> dict[str, float]:
        with in_eval_mode(served_network(state)) as network:
            return {**self._read(network, placement), **self._translate(network, placement)}

    def judge(self) -> Mapping[str, str]:
        return {"sacrebleu": self._bleu.signature()}

    @torch.inference_mode()
    def _read(self, network: nn.Module, placement: Placement) -> dict[str, float]:
        """Return what the network says of each token of the truth, told those before it."""
        nats, right, count = 0.0, 0, 0
        for places in _in_batches(len(self._held_out.ids), self.config.eval.batch_size):
            batch = self._held_out.batch(places).to(placement)
            with placement.autocast():
                scores = network(batch.sources, batch.targets)
            is_asked = batch.following != PAD
            nats += float(_cross_entropy(scores, batch.following))
            right += int(((scores.argmax(-1) == batch.following) & is_asked).sum())
            count += int(is_asked.sum())
        return {"eval/token_accuracy": right / count, "eval/perplexity": math.exp(min(nats / count, 700.0))}

    @torch.inference_mode()
    def _translate(self, network: nn.Module, placement: Placement) -> dict[str, float]:
        """Return how good translations of held-out sources are, searched for as those that are served."""
        assert isinstance(network, Transformer)
        places = spread(len(self._held_out.ids), self.config.eval.num_decoded)
        search = BeamSearch(self.config.data.max_tokens, self.config.eval.beams, self.config.eval.length_penalty)
        found: list[tuple[int, ...]] = []
        for batch in _in_batches(len(places), self.config.eval.batch_size):
            sources = [self._held_out.ids[places[n]][0].tolist() for n in batch]
            with placement.autocast():
                found += [one.tokens for one in search(Writing(network, sources), list(map(len, sources)))]
        wanted = [tuple(self._held_out.ids[n][1].tolist()[:-1]) for n in places]
        written = [self.vocabulary.decode(tokens).strip() for tokens in found]
        references = [self._held_out.pairs[n][1] for n in places]
        return {
            "eval/exact_match": sum(map(operator.eq, found, wanted)) / len(places),
            "eval/bleu": self._bleu.score(written, references),
        }

    def sample(self, state: TrainState, placement: Placement) -> list[Picture]:
        """Draw held-out sources, what the model makes of them, and the truth where it made something else."""
        places = spread(len(self._held_out.pairs), self.config.eval.num_samples)
        pairs = [self._held_out.pairs[n] for n in places]
        answers = self._ask(state, placement, [source for source, _ in pairs])
        passages = []
        for (source, target), answer in zip(pairs, answers, strict=True):
            made = "?" if isinstance(answer, InstanceInvalid) else str(answer["text"])
            is_right = made == self._as_written(target)
            truth = [] if is_right else [Run(f"\nwanted: {target}", "given")]
            passages.append((Run(f"{source}\n", "given"), Run(made, "right" if is_right else "wrong"), *truth))
        return [Picture("samples", page(passages))]

    def serving_module(self, state: TrainState) -> nn.Module:
        network = served_network(state)
        assert isinstance(network, Transformer)
        return Translator(network, max_tokens=self.config.data.max_tokens)

    def serving_spec(self) -> ServingSpec:
        constants = {
            "vocabulary": self.vocabulary.to_json(),
            "max_tokens": self.config.data.max_tokens,
            "beams": self.config.eval.beams,
            "length_penalty": self.config.eval.length_penalty,
        }
        return ServingSpec((row_size(self.config.data.max_tokens),), constants)

    def golden(self, state: TrainState, placement: Placement, count: int) -> Golden:
        exact = Placement(placement.device, autocast_dtype=None, memory_format=placement.memory_format)
        sources = [self._held_out.pairs[n][0] for n in spread(len(self._held_out.pairs), count)]
        answers = self._ask(state, exact, sources)
        good = [(text, one) for text, one in zip(sources, answers, strict=True) if not isinstance(one, InstanceInvalid)]
        bodies = tuple(json.dumps({"instances": [{"text": text}]}).encode() for text, _ in good)
        return Golden(inputs=bodies, answers=tuple(one for _, one in good))

    @classmethod
    def load_serving_module(cls, config: TransformerConfig, spec: ServingSpec) -> nn.Module:
        num_tokens = len(Vocabulary.from_json(spec.constants["vocabulary"]))
        limit = int(spec.constants["max_tokens"])
        return Translator(Transformer(config.model, num_tokens=num_tokens, max_tokens=limit), max_tokens=limit)

    def _as_written(self, text: str) -> str:
        """Return a text as the model would write it, its spaces and case those of the vocabulary."""
        return self.vocabulary.decode(self.vocabulary.encode(text)).strip()

    def _ask(
        self, state: TrainState, placement: Placement, sources: Sequence[str]
    ) -> list[Mapping[str, Any] | InstanceInvalid]:
        handler = TransformerHandler(self.serving_spec())
        with in_eval_mode(served_network(state)):
            network = _placed(self.serving_module(state), placement)
            return handler.predict([Instance(None, {"text": text}, {}) for text in sources], network)


def _cross_entropy(scores: Tensor, following: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Return the sum over all tokens that are no padding, in fp32."""
    return functional.cross_entropy(
        scores.float().flatten(0, 1),
        following.flatten(),
        ignore_index=PAD,
        reduction="sum",
        label_smoothing=smoothing,
    )


def _in_batches(count: int, size: int) -> Iterator[range]:
    yield from (range(start, min(count, start + size)) for start in range(0, count, size))


def _placed(module: nn.Module, placement: Placement) -> Network:
    def network(rows: Tensor) -> tuple[Tensor, ...]:
        with torch.inference_mode(), placement.autocast():
            outputs: tuple[Tensor, ...] = module(rows.to(placement.device))
        return outputs

    return network
