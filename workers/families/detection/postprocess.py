"""From a network's boxes and scores to the detections of an image: thresholds and suppression.

Evaluation and serving share this; they differ in the thresholds only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from workers.families.letterbox import Fit

# Suppression is quadratic: a threshold near zero must not feed it every box of the network.
_MAX_CANDIDATES = 1000
# In pixels of the sent image; what is thinner is no object, and rounds to no area.
_MIN_SIDE = 0.5


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What counts as a detection; `labels` limits it to these label ids, None allows all."""

    score_threshold: float = 0.5
    nms_iou: float = 0.5
    max_detections: int = 100
    labels: frozenset[int] | None = None


@dataclass(frozen=True, slots=True)
class Detections:
    """Of one image, best first: xyxy boxes in pixels of the sent image, label ids from 1, scores."""

    boxes: Tensor
    labels: Tensor
    scores: Tensor


def select(boxes: Tensor, scores: Tensor, placed: Fit, thresholds: Thresholds) -> Detections:
    """Pick the detections of one image from boxes (A, 4) of its square and scores (A, K)."""
    kept = scores >= max(thresholds.score_threshold, torch.finfo(scores.dtype).tiny)
    if thresholds.labels is not None:
        allowed = torch.zeros(scores.shape[1], dtype=torch.bool)
        allowed[[label - 1 for label in thresholds.labels]] = True
        kept = kept & allowed
    anchors, classes = kept.nonzero(as_tuple=True)
    ranked = scores[anchors, classes].sort(descending=True, stable=True)
    ranks, found = ranked.indices[:_MAX_CANDIDATES], ranked.values[:_MAX_CANDIDATES]
    located, classes = placed.to_image(boxes[anchors[ranks]]), classes[ranks]
    is_object = ((located[:, 2:] - located[:, :2]) >= _MIN_SIDE).all(1) & located.isfinite().all(1)
    located, classes, found = located[is_object], classes[is_object], found[is_object]
    final = batched_nms(located, found, classes, thresholds.nms_iou)[: thresholds.max_detections]
    return Detections(boxes=located[final], labels=classes[final] + 1, scores=found[final])
