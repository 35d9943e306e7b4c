"""What serving does around a classifier: images in, the best classes out, with embeddings and heat maps on request."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workers.families.base import Handler, Instance, InstanceInvalid, Network, ParityReport, ServingSpec
from workers.families.classification.config import Data
from workers.families.classification.draw import heat
from workers.families.classification.explain import grad_cam
from workers.families.classification.network import ServedNetwork
from workers.families.classification.squares import central, to_input, to_square
from workers.families.images import ImageInvalid, decode
from workers.families.instances import count, image_bytes, refuse_unknown

_DEFAULT_TOP = 5

# The parity gate: how far a faster form of the network may move a score, and an embedding of length 1.
_MAX_SCORE = 0.02
_MAX_TURN = 0.05


@dataclass(frozen=True, slots=True)
class _Wish:
    top: int
    with_embedding: bool
    with_heat: bool


@dataclass(frozen=True, slots=True)
class _Prepared:
    image: Tensor
    square: Tensor
    wish: _Wish


class ClassificationHandler(Handler):
    """Answers `{"labels": [{"label", "label_id", "score"}, ...]}`, best first.

    Parameters: `top_k` (5); `embedding: true` adds the vector before the last layer; `gradcam: true`
    adds a PNG that shows where the best class was seen, for networks whose layers keep track of places.
    """

    def __init__(self, spec: ServingSpec) -> None:
        super().__init__(spec)
        constants = spec.constants
        self.classes = tuple(str(name) for name in constants["classes"])
        self.data = Data(
            image_size=spec.input_shape[-1], stored_size=constants["stored_size"], channels=spec.input_shape[0]
        )
        self.is_softmax = constants["scores"] == "softmax"

    def predict(self, instances: Sequence[Instance], network: Network) -> list[Mapping[str, Any] | InstanceInvalid]:
        prepared = [self._prepare(instance) for instance in instances]
        good = [one for one in prepared if not isinstance(one, InstanceInvalid)]
        answers = iter(self._answer(good, network))
        return [one if isinstance(one, InstanceInvalid) else next(answers) for one in prepared]

    def compare(self, expected: Mapping[str, Any], actual: Mapping[str, Any]) -> ParityReport:
        """Report the largest difference of a score, over the classes both answers name, and that of the embeddings."""
        ours = {row["label_id"]: row["score"] for row in expected["labels"]}
        theirs = {row["label_id"]: row["score"] for row in actual["labels"]}
        shared = ours.keys() & theirs.keys()
        # The last places of a short list may change when scores are as good as equal; the first may not.
        lost = [
            score for name, score in ours.items() if name not in theirs and score > max(_MAX_SCORE, min(ours.values()))
        ]
        scores = max((abs(ours[name] - theirs[name]) for name in shared), default=math.inf)
        differences = {"scores": scores, "lost": float(len(lost))}
        if "embedding" in expected:
            differences["embedding"] = _turn(expected["embedding"], actual.get("embedding", ()))
        is_near = differences.get("embedding", 0.0) <= _MAX_TURN
        return ParityReport(differences=differences, passed=scores <= _MAX_SCORE and not lost and is_near)

    def _prepare(self, instance: Instance) -> _Prepared | InstanceInvalid:
        try:
            wish = self._read_wish(instance.params)
            image = decode(image_bytes(instance))
        except InstanceInvalid as err:
            return err
        except ImageInvalid as err:
            return InstanceInvalid(str(err))
        return _Prepared(image, to_square(image, self.data), wish)

    def _read_wish(self, params: Mapping[str, Any]) -> _Wish:
        refuse_unknown(params, ("top_k", "embedding", "gradcam"))
        for name in ("embedding", "gradcam"):
            if not isinstance(params.get(name, False), bool):
                raise InstanceInvalid(f"{name} must be true or false, not {params[name]!r:.50}")
        top = count(params, "top_k", min(_DEFAULT_TOP, len(self.classes)), limit=len(self.classes))
        return _Wish(top, bool(params.get("embedding", False)), bool(params.get("gradcam", False)))

    def _answer(self, prepared: Sequence[_Prepared], network: Network) -> list[Mapping[str, Any] | InstanceInvalid]:
        if not prepared:
            return []
        with torch.inference_mode():
            squares = torch.stack([one.square for one in prepared])
            outputs = network(to_input(central(squares, self.data).float() / 255))
            assert isinstance(outputs, tuple)
            rows = zip(*(output.float().cpu() for output in outputs), strict=True)
            return [self._describe(one, row) for one, row in zip(prepared, rows, strict=True)]

    def _describe(self, one: _Prepared, row: tuple[Tensor, ...]) -> Mapping[str, Any] | InstanceInvalid:
        logits, embedding, *activations = row
        scores = logits.softmax(0) if self.is_softmax else logits.sigmoid()
        best = scores.topk(one.wish.top)
        answer: dict[str, Any] = {
            "labels": [
                {"label": self.classes[label], "label_id": label, "score": round(score, 5)}
                for score, label in zip(best.values.tolist(), best.indices.tolist(), strict=True)
            ]
        }
        if one.wish.with_embedding:
            answer["embedding"] = [round(value, 6) for value in embedding.tolist()]
        if one.wish.with_heat:
            seen = self._seen(one, int(best.indices[0]), activations)
            if seen is None:
                return InstanceInvalid("gradcam: no layer of this network keeps track of places; leave it out here")
            answer["gradcam"] = {"b64": self._heat(one.image, seen)}
        return answer

    def _seen(self, one: _Prepared, label: int, activations: Sequence[Tensor]) -> Tensor | None:
        """Return where a class was seen, (h, w): as the network says itself, or by its gradients."""
        if activations and activations[0][label].numel() > 1:
            return activations[0][label]
        if self.load_eager is None:
            return None
        network = self.load_eager()
        assert isinstance(network, ServedNetwork)
        image = to_input(central(one.square[None], self.data).float() / 255)
        seen = grad_cam(network.classifier, image.to(network.classifier.head.weight.device), label)
        return None if seen is None else seen.float().cpu()

    def _heat(self, image: Tensor, activation: Tensor) -> str:
        side = min(image.shape[-2:])
        # What the network saw: the middle of the middle square.
        side = max(1, round(side * self.data.image_size / self.data.stored_size))
        top, left = (image.shape[-2] - side) // 2, (image.shape[-1] - side) // 2
        buffer = io.BytesIO()
        heat(image[:, top : top + side, left : left + side], activation).save(buffer, "PNG")
        return base64.b64encode(buffer.getvalue()).decode()


def _turn(expected: Sequence[float], actual: Sequence[float]) -> float:
    """Return how far apart two embeddings are as unit vectors, 0 to 2; infinity where they cannot be compared."""
    if len(expected) != len(actual):
        return math.inf
    ours, theirs = math.hypot(*expected), math.hypot(*actual)
    if not ours or not theirs:
        return 0.0 if ours == theirs else math.inf
    return math.dist([value / ours for value in expected], [value / theirs for value in actual])
