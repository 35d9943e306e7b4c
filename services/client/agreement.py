"""How well served detections agree with evaluated ones, and how well they find what is there."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Answer = Mapping[str, Any]
Box = Sequence[float]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Largest differences over all boxes of all images, in pixels and in score."""

    pixels: float
    scores: float
    boxes: int


class Disagreement(Exception):
    """The two sides found different things: another number of boxes or other classes."""


def agree(expected: Sequence[Answer], actual: Sequence[Answer]) -> Agreement:
    """Pair the boxes of each image by class and overlap and return the largest differences.

    Raises:
        Disagreement: a box has no partner.
    """
    pixels = scores = 0.0
    boxes = 0
    for one, other in zip(expected, actual, strict=True):
        for mine, theirs in _pairs(one, other):
            pixels = max(pixels, *(abs(a - b) for a, b in zip(one["boxes"][mine], other["boxes"][theirs], strict=True)))
            scores = max(scores, abs(one["scores"][mine] - other["scores"][theirs]))
            boxes += 1
    return Agreement(pixels, scores, boxes)


def _pairs(one: Answer, other: Answer) -> list[tuple[int, int]]:
    free = set(range(len(other["boxes"])))
    pairs = []
    for mine, box in enumerate(one["boxes"]):
        fitting = [i for i in free if other["labels"][i] == one["labels"][mine]]
        best = max(fitting, key=lambda i: _iou(box, other["boxes"][i]), default=None)
        if best is None or _iou(box, other["boxes"][best]) < 0.5:
            raise Disagreement(f"a box of class {one['labels'][mine]} at {list(box)} is missing on the other side")
        free.discard(best)
        pairs.append((mine, best))
    if free:
        raise Disagreement(f"{len(free)} boxes are on the other side only")
    return pairs


def _iou(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    both = (one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1])
    return shared / (both - shared) if both > shared else 0.0


def served_ap50(truth: Mapping[str, Any], answers: Sequence[Answer]) -> float:
    """Return COCO's average precision at IoU 0.5 of the answers to the images of a COCO document, in order."""
    from faster_coco_eval import COCO, COCOeval_faster

    ids = {category["name"]: category["id"] for category in truth["categories"]}
    found = [
        {
            "image_id": image["id"],
            "category_id": ids[label],
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            "score": score,
        }
        for image, answer in zip(truth["images"], answers, strict=True)
        for box, label, score in zip(answer["boxes"], answer["labels"], answer["scores"], strict=True)
    ]
    if not found:
        return 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        annotations = COCO(dict(truth))
        evaluation = COCOeval_faster(annotations, annotations.loadRes(found), "bbox")
        evaluation.run()
    return float(evaluation.stats_as_dict["AP_50"])
