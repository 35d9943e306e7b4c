"""What serving does around vectors of words: the vector of one, the words nearest to it, and analogies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from workers.families.base import Handler, Instance, InstanceInvalid, Network, ParityReport, ServingSpec
from workers.families.instances import count
from workers.families.text.request import choice, fields_of, text
from workers.families.text.rows import to_digits
from workers.families.text.vocab import SPECIALS, Vocabulary
from workers.families.text.words_network import TERMS

MAX_NEAREST = 100
_MAX_CHARACTERS = 400
_DEFAULT_NEAREST = 10

# The parity gate: how far a faster form may turn a cosine, and move a vector, in parts of its length.
_MAX_COSINE = 0.02
_MAX_MOVE = 0.02

_ANALOGY = ("a", "b", "c")


class WordsHandler(Handler):
    """Answers what `op` asks of words; an instance's fields go over the request's parameters.

    - `nearest` (default): `text`, a word, and `n`. Answers `nearest` [{word, score}], scores are cosines
    - `vector`: `text`, a word. Answers `vector`
    - `analogy`: `a`, `b` and `c`, or all three in `text`: what is to c as b is to a. Answers `nearest` without those three
    """

    def __init__(self, spec: ServingSpec) -> None:
        super().__init__(spec)
        self.vocabulary = Vocabulary.from_json(spec.constants["vocabulary"])

    def predict(self, instances: Sequence[Instance], network: Network) -> list[Mapping[str, Any] | InstanceInvalid]:
        with torch.inference_mode():
            return [self._answer(instance, network) for instance in instances]

    def compare(self, expected: Mapping[str, Any], actual: Mapping[str, Any]) -> ParityReport:
        """Report how far a vector moved, or how far the cosines of the places in a list are apart.

        Words of nearly one cosine may change places.
        """
        if "vector" in expected:
            ours, theirs = torch.tensor(expected["vector"]), torch.tensor(actual.get("vector", ()))
            if ours.shape != theirs.shape:
                return ParityReport({"vector": math.inf}, passed=False)
            moved = float((ours - theirs).norm() / ours.norm().clamp(min=1e-12))
            return ParityReport({"vector": moved}, moved <= _MAX_MOVE)
        lists = ([one["score"] for one in answer.get("nearest", ())] for answer in (expected, actual))
        scores, others = lists
        if len(scores) != len(others):
            return ParityReport({"cosine": math.inf}, passed=False)
        largest = max((abs(one - other) for one, other in zip(scores, others, strict=True)), default=0.0)
        return ParityReport({"cosine": largest}, largest <= _MAX_COSINE)

    def _answer(self, instance: Instance, network: Network) -> Mapping[str, Any] | InstanceInvalid:
        try:
            fields = fields_of(instance, ("op", "text", "n", *_ANALOGY))
            op = choice(fields, "op", ("nearest", "vector", "analogy"))
            if useless := sorted(({*_ANALOGY} if op != "analogy" else set()) & fields.keys()):
                raise InstanceInvalid(f"{useless[0]} has no effect on op {op}; leave it out, or ask for op analogy")
            words = self._terms(fields) if op == "analogy" else [self._word(fields, "text")]
            limit = count(fields, "n", _DEFAULT_NEAREST, limit=MAX_NEAREST)
        except InstanceInvalid as err:
            return err
        # What is to c as b is to a: b - a + c.
        factors = [-1.0, 1.0, 1.0] if op == "analogy" else [1.0]
        vector, cosines = _asked(network, words, factors)
        if not bool(cosines.isfinite().all() and vector.isfinite().all()):
            return InstanceInvalid("the network's vectors are not finite")
        if op == "vector":
            return {"vector": vector.tolist()}
        cosines[[*range(len(SPECIALS)), *words]] = -math.inf
        best = cosines.topk(min(limit, int(cosines.isfinite().sum())))
        rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return {"nearest": [{"word": self.vocabulary.tokens[place], "score": score} for place, score in rows]}

    def _terms(self, fields: Mapping[str, Any]) -> list[int]:
        if "text" not in fields:
            return [self._word(fields, name) for name in _ANALOGY]
        if given := sorted({*_ANALOGY} & fields.keys()):
            raise InstanceInvalid(f"give text or {given[0]}, not both")
        words = text(fields, "text", limit=_MAX_CHARACTERS).split()
        if len(words) != len(_ANALOGY):
            raise InstanceInvalid(
                f"text has {len(words)} words; an analogy is asked of three, such as 'man king woman'"
            )
        return [self._word({"text": word}, "text") for word in words]

    def _word(self, fields: Mapping[str, Any], name: str) -> int:
        given = text(fields, name, limit=_MAX_CHARACTERS)
        tokens = self.vocabulary.cut(given)
        if len(tokens) != 1:
            raise InstanceInvalid(f"{name} must be one word, not {given!r:.50}")
        if (place := self.vocabulary.ids.get(tokens[0])) is None:
            raise InstanceInvalid(f"{name}: the word {tokens[0]!r:.50} is not in this model's vocabulary")
        return place


def _asked(network: Network, words: Sequence[int], factors: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Return the sum of words (D,) and its cosines with all (V,)."""
    missing = TERMS - len(words)
    row = torch.cat([to_digits([*words, *[0] * missing]), torch.tensor([*factors, *[0.0] * missing])])
    outputs = network(row[None])
    assert isinstance(outputs, tuple)
    vector, cosines = outputs
    return vector[0].float(), cosines[0].float()
