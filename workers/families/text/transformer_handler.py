"""What serving does around the Transformer: one text in, another out, by beam search."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from workers.families.base import Handler, Instance, InstanceInvalid, Network, ParityReport, ServingSpec
from workers.families.instances import count, number
from workers.families.text.request import fields_of, text
from workers.families.text.search import BeamSearch
from workers.families.text.vocab import EOS, Vocabulary

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

    def __init__(self, spec: ServingSpec) -> None:
        super().__init__(spec)
        self.vocabulary = Vocabulary.from_json(spec.constants["vocabulary"])
        self.search = BeamSearch(
            max_tokens=int(spec.constants["max_tokens"]),
            beams=int(spec.constants["beams"]),
            length_penalty=float(spec.constants["length_penalty"]),
        )

    def weigh(self, instance: Instance) -> int:
        beams = {**instance.params, **instance.fields}.get("beams", self.search.beams)
        return _WEIGHT * self.search.max_tokens * (beams if isinstance(beams, int) and 0 < beams <= MAX_BEAMS else 1)

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
            source = self._source(text(fields, "text", limit=MAX_CHARACTERS))
            search = replace(
                self.search,
                beams=count(fields, "beams", self.search.beams, limit=MAX_BEAMS),
                length_penalty=number(
                    fields.get("length_penalty", self.search.length_penalty), "length_penalty", 0, _MAX_PENALTY
                ),
            )
        except InstanceInvalid as err:
            return err
        (found,) = search(network, [source])
        if not math.isfinite(found.score):
            return InstanceInvalid("the network's scores are not finite")
        return {
            "text": self.vocabulary.decode(found.tokens).strip(),
            "tokens": len(found.tokens),
            "score": found.score,
            "is_whole": found.is_whole,
        }

    def _source(self, given: str) -> list[int]:
        ids = [*self.vocabulary.encode(given), EOS]
        if len(ids) > self.search.max_tokens:
            limit = self.search.max_tokens - 1
            raise InstanceInvalid(f"text has {len(ids) - 1} tokens; this model reads at most {limit}")
        return ids
