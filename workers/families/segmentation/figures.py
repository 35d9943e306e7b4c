"""Accuracies and intersections over union, from one confusion matrix over the whole set.

Averages per image are another figure than the published one (Long et al. 2015, section 5).
"""

from __future__ import annotations

import torch
from torch import Tensor

from workers.families.records import IGNORED_PIXEL


class Confusion:
    """Counts of pixels by truth (rows) and prediction (columns)."""

    def __init__(self, num_classes: int) -> None:
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)

    def add(self, truth: Tensor, predicted: Tensor) -> None:
        """Count the pixels of two maps of class indices of one shape; ignored truths count nowhere."""
        num_classes = len(self.counts)
        is_known = truth != IGNORED_PIXEL
        places = truth[is_known].long() * num_classes + predicted[is_known].long()
        self.counts += torch.bincount(places.flatten(), minlength=num_classes**2).reshape(self.counts.shape)

    def figures(self) -> dict[str, float]:
        """Return `eval/miou`, accuracies and frequency-weighted IoU, over the classes that occur."""
        counts = self.counts.double()
        hits, truths, found = counts.diagonal(), counts.sum(1), counts.sum(0)
        union = truths + found - hits
        occurs, is_true = union > 0, truths > 0
        iou = hits[occurs] / union[occurs]
        recall = hits[is_true] / truths[is_true]
        share = truths[occurs] / truths.sum().clamp(min=1)
        return {
            "eval/miou": _mean(iou),
            "eval/pixel_accuracy": float(hits.sum() / truths.sum().clamp(min=1)),
            "eval/mean_accuracy": _mean(recall),
            "eval/weighted_iou": float((share * iou).sum()),
        }


def _mean(values: Tensor) -> float:
    return float(values.mean()) if len(values) else 0.0
