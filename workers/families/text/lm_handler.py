"""What serving does around a language model: a text goes on, or is told how likely it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from workers.families.base import Handler, Instance, InstanceInvalid, Network, ParityReport, ServingSpec
from workers.families.instances import count
from workers.families.text.request import choice, fields_of, seed, text
from workers.families.text.rows import DIGITS, to_digits
from workers.families.text.sampling import Sampling
from workers.families.text.vocab import SPECIALS, UNK, Vocabulary

MAX_CHARACTERS = 8_000
MAX_TOKENS = 2_000
_DEFAULT_TOKENS = 200
_WEIGHT = 50
"""Pixels that take about as long to draw as a token takes to read or write."""

# The parity gate: how far, in bits a token, a faster form may tell a text more or less likely.
_MAX_BITS = 0.02

_SHARED = ("op", "text", "prompt")
_SAMPLING = ("max_tokens", "temperature", "top_k", "top_p", "seed")


class LmHandler(Handler):
    """Answers what `op` asks about `text`; an instance's fields go over the request's parameters.

    - `generate` (default): `text` or `prompt`, what to go on from, by default the beginning of a line; `max_tokens`,
      `temperature` (0: the likeliest token each time), `top_k` (0: all), `top_p` (1: all), `seed`. Answers `text`, what
      follows the prompt, `tokens`, how many it has, and `score`, the natural logarithm of its chance
    - `score`: `text`. Answers `score`, `tokens`, `unknown`, `perplexity` and `bits_per_character`

    The same seed gives the same answer, whatever is asked beside it.
    """

    def __init__(self, spec: ServingSpec) -> None:
        super().__init__(spec)
        self.vocabulary = Vocabulary.from_json(spec.constants["vocabulary"])
        self._state_size = int(spec.input_shape[0]) - DIGITS

    def weigh(self, instance: Instance) -> int:
        fields = {**instance.params, **instance.fields}
        given = [value for name in ("text", "prompt") if isinstance(value := fields.get(name), str)]
        wanted = fields.get("max_tokens", _DEFAULT_TOKENS)
        asked = wanted if isinstance(wanted, int) and 0 < wanted <= MAX_TOKENS else 0
        return _WEIGHT * (asked + sum(min(len(one), MAX_CHARACTERS) for one in given))

    def predict(self, instances: Sequence[Instance], network: Network) -> list[Mapping[str, Any] | InstanceInvalid]:
        # One at a time: libraries choose their kernels by batch size, and the same seed must give the same text.
        with torch.inference_mode():
            return [self._answer(instance, _Reader(network, self._state_size)) for instance in instances]

    def compare(self, expected: Mapping[str, Any], actual: Mapping[str, Any]) -> ParityReport:
        """Report by how many bits a token the scores differ; what was written must be the same."""
        is_same = expected.get("text") == actual.get("text") and expected["tokens"] == actual["tokens"]
        bits = abs(expected["score"] - actual["score"]) / math.log(2) / max(1, expected["tokens"])
        difference = bits if is_same else math.inf
        return ParityReport({"bits_per_token": difference}, difference <= _MAX_BITS)

    def _answer(self, instance: Instance, reader: _Reader) -> Mapping[str, Any] | InstanceInvalid:
        try:
            fields = fields_of(instance, (*_SHARED, *_SAMPLING))
            if choice(fields, "op", ("generate", "score")) == "score":
                return self._score(fields, reader)
            return self._generate(fields, reader)
        except InstanceInvalid as err:
            return err

    def _score(self, fields: Mapping[str, Any], reader: _Reader) -> Mapping[str, Any]:
        if useless := sorted({*_SAMPLING, "prompt"} & fields.keys()):
            raise InstanceInvalid(f"{useless[0]} has no effect on op score; leave it out")
        given = text(fields, "text", limit=MAX_CHARACTERS)
        ids = self.vocabulary.encode(given)
        if not ids:
            raise InstanceInvalid("text holds no token; give words")
        scores = reader.read([self._start, *ids[:-1]])
        total = float(scores.double().log_softmax(-1)[range(len(ids)), ids].sum())
        return {
            "score": total,
            "tokens": len(ids),
            "unknown": ids.count(UNK),
            "perplexity": _finite_exp(-total / len(ids)),
            "bits_per_character": -total / math.log(2) / len(given),
        }

    def _generate(self, fields: Mapping[str, Any], reader: _Reader) -> Mapping[str, Any]:
        if {"text", "prompt"} <= fields.keys():
            raise InstanceInvalid("give text or prompt, not both")
        name = "prompt" if "prompt" in fields else "text"
        prompt = text(fields, name, limit=MAX_CHARACTERS, default="")
        limit = count(fields, "max_tokens", _DEFAULT_TOKENS, limit=MAX_TOKENS)
        sampling, generator = Sampling.of(fields), torch.Generator().manual_seed(seed(fields))
        scores = reader.read([self._start, *self.vocabulary.encode(prompt)])[-1]
        found: list[int] = []
        total = 0.0
        while True:
            if not bool(scores.isfinite().all()):
                raise InstanceInvalid("the network's scores are not finite")
            shares = scores.double().log_softmax(0)
            scores[: len(SPECIALS)] = -math.inf
            found.append(sampling.draw(scores, generator))
            total += float(shares[found[-1]])
            if len(found) == limit:
                return {"text": self.vocabulary.decode(found), "tokens": len(found), "score": total}
            scores = reader.read(found[-1:])[-1]

    @property
    def _start(self) -> int:
        """What stands before a text: the end of the line before it."""
        return self.vocabulary.ids.get("\n", UNK)


class _Reader:
    """Reads one text on, token by token, and keeps what was read."""

    def __init__(self, network: Network, state_size: int) -> None:
        self._network = network
        self._state = torch.zeros(1, state_size)

    def read(self, ids: Sequence[int]) -> Tensor:
        """Return the scores (T, V) of what follows each of these tokens."""
        found = []
        for token in ids:
            outputs = self._network(torch.cat([to_digits([token])[None], self._state], dim=1))
            assert isinstance(outputs, tuple)
            scores, state = outputs
            self._state = state.float()
            found.append(scores[0].float())
        return torch.stack(found)


def _finite_exp(value: float) -> float:
    return math.exp(min(value, 700.0))
