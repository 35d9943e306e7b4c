"""What serving does around a detection network: images in, boxes in pixels of the sent image out.

Free of any server and of anything only training needs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_iou

from workers.families.base import Handler, Instance, InstanceInvalid, Network, ParityReport, ServingSpec
from workers.families.detection.postprocess import Detections, Thresholds, select
from workers.families.images import ImageInvalid, normalise
from workers.families.instances import count, fraction, image_bytes, refuse_unknown
from workers.families.letterbox import Fit, read_square

_MAX_DETECTIONS = 1000

# The parity gate: how far a faster form of the network may move an answer.
_MAX_PIXELS_OF_SIDE = 0.01
_MAX_PIXELS = 1.0
_MAX_SCORE = 0.05
_MATCH_IOU = 0.5


class DetectionHandler(Handler):
    """Answers `{"boxes", "labels", "label_ids", "scores", "image_size"}`, best box first.

    An image comes as the body or as `{"image": {"b64": ...}}`. Turned images (EXIF) are answered in
    the pixels people see.
    """

    def __init__(self, spec: ServingSpec) -> None:
        super().__init__(spec)
        self.classes = tuple(str(name) for name in spec.constants["classes"])
        self.defaults = Thresholds(**spec.constants["thresholds"])
        self.size = spec.input_shape[-1]

    def predict(self, instances: Sequence[Instance], network: Network) -> list[Mapping[str, Any] | InstanceInvalid]:
        prepared = [self._prepare(instance) for instance in instances]
        good = [p for p in prepared if not isinstance(p, InstanceInvalid)]
        answers = iter(self._answer(good, network))
        return [p if isinstance(p, InstanceInvalid) else next(answers) for p in prepared]

    def compare(self, expected: Mapping[str, Any], actual: Mapping[str, Any]) -> ParityReport:
        """Match boxes of one class best overlap first and report the largest differences.

        A box without partner counts as unmatched unless its score is so near the threshold that
        rounding may have moved it across.
        """
        if list(expected["image_size"]) != list(actual["image_size"]):
            return ParityReport(
                differences={"pixels": math.inf, "scores": math.inf, "unmatched": math.inf}, passed=False
            )
        ours, theirs = _tensors(expected), _tensors(actual)
        pairs = _match(ours, theirs)
        pixels = max((float((ours.boxes[i] - theirs.boxes[j]).abs().max()) for i, j in pairs), default=0.0)
        scores = max((float((ours.scores[i] - theirs.scores[j]).abs()) for i, j in pairs), default=0.0)
        certain = self.defaults.score_threshold + _MAX_SCORE
        alone = [float(s) for i, s in enumerate(ours.scores) if i not in {i for i, _ in pairs}]
        alone += [float(s) for j, s in enumerate(theirs.scores) if j not in {j for _, j in pairs}]
        unmatched = sum(score > certain for score in alone)
        allowed = max(_MAX_PIXELS, _MAX_PIXELS_OF_SIDE * max(expected["image_size"]))
        return ParityReport(
            differences={"pixels": pixels, "scores": scores, "unmatched": float(unmatched)},
            passed=pixels <= allowed and scores <= _MAX_SCORE and not unmatched,
        )

    def _prepare(self, instance: Instance) -> tuple[Tensor, Fit, Thresholds] | InstanceInvalid:
        try:
            thresholds = read_thresholds(instance.params, classes=self.classes, defaults=self.defaults)
            square, placed = read_square(image_bytes(instance), self.size)
        except InstanceInvalid as err:
            return err
        except ImageInvalid as err:
            return InstanceInvalid(str(err))
        return square, placed, thresholds

    def _answer(self, prepared: Sequence[tuple[Tensor, Fit, Thresholds]], network: Network) -> list[Mapping[str, Any]]:
        if not prepared:
            return []
        with torch.inference_mode():
            boxes, scores = network(normalise(torch.stack([square for square, _, _ in prepared])))
            boxes, scores = boxes.float().cpu(), scores.float().cpu()
            return [
                self._describe(select(boxes[row], scores[row], placed, thresholds), placed)
                for row, (_, placed, thresholds) in enumerate(prepared)
            ]

    def _describe(self, found: Detections, placed: Fit) -> Mapping[str, Any]:
        label_ids = found.labels.tolist()
        return {
            "boxes": [[round(value, 2) for value in box] for box in found.boxes.tolist()],
            "labels": [self.classes[label - 1] for label in label_ids],
            "label_ids": label_ids,
            "scores": [round(score, 5) for score in found.scores.tolist()],
            "image_size": [placed.height, placed.width],
        }


def read_thresholds(params: Mapping[str, Any], *, classes: Sequence[str], defaults: Thresholds) -> Thresholds:
    """Read the parameters of a request.

    Raises:
        InstanceInvalid: an unknown parameter or a value out of range.
    """
    refuse_unknown(params, asdict(defaults))
    return Thresholds(
        score_threshold=fraction(params, "score_threshold", defaults.score_threshold),
        nms_iou=fraction(params, "nms_iou", defaults.nms_iou),
        max_detections=count(params, "max_detections", defaults.max_detections, limit=_MAX_DETECTIONS),
        labels=_label_ids(params.get("labels"), classes),
    )


def _label_ids(names: Any, classes: Sequence[str]) -> frozenset[int] | None:
    if names is None:
        return None
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
        raise InstanceInvalid(f"labels must be a list of class names, such as {[classes[0]]!r}")
    if unknown := [name for name in names if name not in classes]:
        shown = ", ".join(classes[:20]) + (", ..." if len(classes) > 20 else "")
        raise InstanceInvalid(f"labels has the unknown class {unknown[0]!r:.50}; this model knows {shown}")
    return frozenset(classes.index(name) + 1 for name in names)


def _tensors(answer: Mapping[str, Any]) -> Detections:
    return Detections(
        boxes=torch.tensor(answer["boxes"], dtype=torch.float64).reshape(-1, 4),
        labels=torch.tensor(answer["label_ids"], dtype=torch.int64),
        scores=torch.tensor(answer["scores"], dtype=torch.float64),
    )


def _match(ours: Detections, theirs: Detections) -> list[tuple[int, int]]:
    if not len(ours.boxes) or not len(theirs.boxes):
        return []
    overlap = box_iou(ours.boxes, theirs.boxes).nan_to_num()  # two boxes without area give 0 / 0
    overlap[ours.labels[:, None] != theirs.labels[None, :]] = 0
    pairs = []
    while float(overlap.max()) >= _MATCH_IOU:
        i, j = divmod(int(overlap.argmax()), overlap.shape[1])
        pairs.append((i, j))
        overlap[i, :] = 0
        overlap[:, j] = 0
    return pairs
