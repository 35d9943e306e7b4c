"""What serving does around the Transformer: one text in, another out, by beam search."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from workers.families.base import Handler, Instance, InstanceInvalid, Network, ParityReport, ServingSpec
from workers.families.instances import count, number
from workers.families.text.request import fields_of, text
from workers.families.text.translator import to_row
from workers.families.text.vocab import EOS, PAD, Vocabulary

MAX_CHARACTERS = 8_000
MAX_BEAMS = 16
_MAX_PENALTY = 5.0
_WEIGHT = 50
"""Pixels that take about as long to draw as a token of a hypothesis takes to find."""

# The parity gate: how far a faster form may move the score of what it must write alike.
_MAX_SCORE = 0.05


class TransformerHandler(Handler):
    """Answers `text` with `text`, its `tokens`, how many it has, its `score`, and whether it `is_whole`.

    `beams` and `length_penalty` go over those the model was evaluated with. The score is the natural logarithm of the
    chance, forgiven for its length; a translation that is not whole was cut where the model can write no more.
    """

    is_any_size: ClassVar[bool] = True

    def __init__(self, spec: ServingSpec) -> None:
        super().__init__(spec)
        self.vocabulary = Vocabulary.from_json(spec.constants["vocabulary"])
        self._max_tokens = int(spec.constants["max_tokens"])
        self._beams = int(spec.constants["beams"])
        self._length_penalty = float(spec.constants["length_penalty"])

    def weigh(self, instance: Instance) -> int:
        beams = {**instance.params, **instance.fields}.get("beams", self._beams)
        return _WEIGHT * self._max_tokens * (beams if isinstance(beams, int) and 0 < beams <= MAX_BEAMS else 1)

    def predict(self, instances: Sequence[Instance], network: Network) -> list[Mapping[str, Any] | InstanceInvalid]:
        # One at a time: libraries choose their kernels by batch size, and the same text must get the same answer.
        with torch.inference_mode():
            return [self._answer(instance, network) for instance in instances]

    def compare(self, expected: Mapping[str, Any], actual: Mapping[str, Any]) -> ParityReport:
        """Report how far the scores are apart; what was written must be the same."""
        is_same = expected["text"] == actual["text"] and expected["tokens"] == actual["tokens"]
        difference = abs(expected["score"] - actual["score"]) if is_same else math.inf
        return ParityReport({"score": difference}, difference <= _MAX_SCORE)

    def _answer(self, instance: Instance, network: Network) -> Mapping[str, Any] | InstanceInvalid:
        try:
            fields = fields_of(instance, ("text", "beams", "length_penalty"))
            penalty = fields.get("length_penalty", self._length_penalty)
            row = to_row(
                self._source(text(fields, "text", limit=MAX_CHARACTERS)),
                beams=count(fields, "beams", self._beams, limit=MAX_BEAMS),
                length_penalty=number(penalty, "length_penalty", 0, _MAX_PENALTY),
            )
        except InstanceInvalid as err:
            return err
        outputs = network(row[None])
        assert isinstance(outputs, tuple)
        (padded,), (score,), (is_whole,) = (output.tolist() for output in outputs)
        if not math.isfinite(score):
            return InstanceInvalid("the network's scores are not finite")
        tokens = [token for token in padded if token != PAD]
        return {
            "text": self.vocabulary.decode(tokens).strip(),
            "tokens": len(tokens),
            "score": score,
            "is_whole": is_whole,
        }

    def _source(self, given: str) -> list[int]:
        ids = [*self.vocabulary.encode(given), EOS]
        if len(ids) > self._max_tokens:
            limit = self._max_tokens - 1
            raise InstanceInvalid(f"text has {len(ids) - 1} tokens; this model reads at most {limit}")
        return ids
