"""Are two faces of one person? The protocol of LFW (Huang et al. 2007), rates at fixed false accepts, EER and AUC.

All in squared distances of embeddings of length 1, from 0 to 4: a pair nearer than the threshold is one person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Distances = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

GRID = np.arange(401) / 100
"""Thresholds that the protocol tries: 0 to 4 in steps of 0.01."""
_FARTHEST = 4.0
FALSE_ACCEPTS = {"eval/tar_at_far_1e-2": 1e-2, "eval/tar_at_far_1e-3": 1e-3}


@dataclass(frozen=True, slots=True)
class Fold:
    """Pairs that are judged with thresholds found on all other folds."""

    distances: Distances
    is_same: Flags


def figures(folds: Sequence[Fold]) -> dict[str, float]:
    """Return the accuracy over folds and its deviation, rates at false accepts, EER and AUC."""
    judged = [(fold, joined([*folds[:place], *folds[place + 1 :]] or [fold])) for place, fold in enumerate(folds)]
    accuracies = [accuracy(fold, GRID[np.argmax(accuracies_on_grid(rest))]) for fold, rest in judged]
    whole = joined(folds)
    false_accepts, true_accepts = roc(whole)
    rates = {
        name: float(
            np.mean([accepted(fold.distances[fold.is_same], far_threshold(rest, far)) for fold, rest in judged])
        )
        for name, far in FALSE_ACCEPTS.items()
    }
    return {
        "eval/accuracy": float(np.mean(accuracies)),
        "eval/accuracy_std": float(np.std(accuracies)),
        **rates,
        "eval/eer": equal_error(false_accepts, true_accepts),
        "eval/auc": float(np.trapezoid(true_accepts, false_accepts)),
    }


def similarity_threshold(folds: Sequence[Fold]) -> float:
    """Return the cosine similarity from which a pair is best taken for one person.

    It lies in the middle of the widest gap between distances among those that tell most pairs right: embeddings may
    lie so close together that the steps of the grid are too coarse for serving.
    """
    whole = joined(folds)
    order = np.argsort(whole.distances)
    is_same, edges = whole.is_same[order], np.concatenate([[0.0], whole.distances[order], [_FARTHEST]])
    # Of the first k distances taken for one person, and the others for two.
    right = np.concatenate([[0], np.cumsum(is_same)]) - np.concatenate([[0], np.cumsum(~is_same)])
    gaps = np.diff(edges)
    widths = np.where(right == right[gaps > 0].max(), gaps, -1.0)
    best = int(widths.argmax())
    return 1 - float(edges[best] + edges[best + 1]) / 4


def roc(fold: Fold) -> tuple[Distances, Distances]:
    """Return the rates of false and of true accepts at every threshold that tells pairs apart, from none to all."""
    order = np.argsort(fold.distances)
    distances, is_same = fold.distances[order], fold.is_same[order]
    # Pairs at one distance are accepted together.
    last = np.flatnonzero(np.append(np.diff(distances) > 0, True)) if len(distances) else np.array([], dtype=np.intp)
    false, true = (np.concatenate([[0], np.cumsum(flags)[last]]) for flags in (~is_same, is_same))
    return false / max(1, false[-1]), true / max(1, true[-1])


def equal_error(false_accepts: Distances, true_accepts: Distances) -> float:
    """Return the rate of errors where as many are falsely accepted as rejected, or the mean of both where they come nearest."""
    false_rejects = 1 - true_accepts
    nearest = int(np.argmin(np.abs(false_rejects - false_accepts)))
    return float(false_accepts[nearest] + false_rejects[nearest]) / 2


def joined(folds: Sequence[Fold]) -> Fold:
    return Fold(np.concatenate([one.distances for one in folds]), np.concatenate([one.is_same for one in folds]))


def accuracy(fold: Fold, threshold: float) -> float:
    """Return the share of pairs that a threshold tells right."""
    return float(np.mean((fold.distances < threshold) == fold.is_same))


def accuracies_on_grid(fold: Fold) -> Distances:
    """Return the accuracy at every threshold of the grid."""
    same, other = np.sort(fold.distances[fold.is_same]), np.sort(fold.distances[~fold.is_same])
    right = np.searchsorted(same, GRID) + len(other) - np.searchsorted(other, GRID)
    return np.asarray(right / max(1, len(same) + len(other)), dtype=np.float64)


def far_threshold(fold: Fold, far: float) -> float:
    """Return the largest threshold that accepts no more than this share of pairs of two people.

    It is one of their distances: any threshold between two accepts the nearer pair, too, and a small set that much more.
    """
    other = np.sort(fold.distances[~fold.is_same])
    if not len(other):
        return 0.0
    # Rates such as 1e-3 are not exact: three of 3,000 shall be three.
    return float(other[min(int(far * len(other) + 1e-9), len(other) - 1)])


def accepted(distances: Distances, threshold: float) -> float:
    """Return the share of distances below a threshold."""
    return float(np.mean(distances < threshold)) if len(distances) else 0.0
