"""Accuracy, calibration and confusion of classified images."""

from __future__ import annotations

import torch
from torch import Tensor

_BINS = 15
_TOP = 5


def figures(scores: Tensor, labels: Tensor) -> dict[str, float]:
    """Return `eval/accuracy`, top-5, the mean over classes, and the calibration error of scores (N, K)."""
    best, found = scores.max(1)
    is_right = found == labels
    num_classes = scores.shape[1]
    per_class = [is_right[labels == label].double().mean() for label in sorted(set(labels.tolist()))]
    result = {
        "eval/accuracy": float(is_right.double().mean()),
        "eval/class_accuracy": float(torch.stack(per_class).mean()),
        "eval/ece": calibration_error(best, is_right),
    }
    if num_classes > _TOP:
        top = scores.topk(_TOP, dim=1).indices
        result["eval/top5"] = float((top == labels[:, None]).any(1).double().mean())
    return result


def calibration_error(confidence: Tensor, is_right: Tensor) -> float:
    """Return the expected calibration error over 15 equal bins (Guo et al. 2017, section 2)."""
    index = (confidence * _BINS).long().clamp(0, _BINS - 1)
    gaps = torch.zeros(_BINS, dtype=torch.float64)
    gaps.index_add_(0, index, confidence.double() - is_right.double())
    return float(gaps.abs().sum() / len(confidence))


def confusion(found: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return counts (K, K): truth by row, prediction by column."""
    return torch.bincount(labels * num_classes + found, minlength=num_classes**2).reshape(num_classes, num_classes)
