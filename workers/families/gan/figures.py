"""How far generated samples are from real ones, in the features of a network (N, D)."""

from __future__ import annotations

import torch
from torch import Tensor

_NEIGHBOURS = 5
_MAX_COMPARED = 2000
"""Samples of either kind that are compared one by one; more would take memory by their square."""


def frechet_distance(real: Tensor, fake: Tensor) -> float:
    """Return the Frechet distance between Gaussians fitted to both (Heusel et al. 2017, arXiv:1706.08500, section 3)."""
    (mean_real, spread_real), (mean_fake, spread_fake) = _gaussian(real), _gaussian(fake)
    # The trace of the root of a product is the sum of the roots of its eigenvalues.
    shared = torch.linalg.eigvals(spread_real @ spread_fake).sqrt().real.sum()
    distance = (mean_real - mean_fake).square().sum() + spread_real.trace() + spread_fake.trace() - 2 * shared
    # Rounding may bring equal sets below 0.
    return max(0.0, float(distance))


def _gaussian(features: Tensor) -> tuple[Tensor, Tensor]:
    # Two equal rows stand for one: a covariance needs two samples.
    rows = (features if len(features) > 1 else features.expand(2, -1)).double().cpu()
    return rows.mean(0), rows.T.cov().reshape(rows.shape[1], rows.shape[1])


def precision_and_coverage(real: Tensor, fake: Tensor) -> tuple[float, float]:
    """Return the share of generated samples near real ones, and that of real samples with a generated one nearby.

    Near is within the distance to the fifth real neighbour (Kynkaanniemi et al. 2019; Naeem et al. 2020).
    """
    real, fake = _some(real), _some(fake)
    nth = min(_NEIGHBOURS, len(real) - 1)
    reach = torch.cdist(real, real).kthvalue(nth + 1, dim=1).values
    is_near = torch.cdist(real, fake) <= reach[:, None]
    return float(is_near.any(0).double().mean()), float(is_near.any(1).double().mean())


def diversity(features: Tensor) -> float:
    """Return the mean distance between two different samples."""
    some = _some(features)
    return float(torch.cdist(some, some).sum() / max(1, len(some) * (len(some) - 1)))


def covered_classes(found: Tensor, truth: Tensor, num_classes: int) -> int:
    """Return how many classes are generated: at least a fifth as often as they are real.

    `found` are the classes (N,) seen in generated samples, `truth` those (M,) of real ones.
    """
    shares = torch.bincount(found.cpu(), minlength=num_classes).double() / len(found)
    real = torch.bincount(truth.cpu(), minlength=num_classes).double() / len(truth)
    return int(((shares >= 0.2 * real) & (shares > 0)).sum())


def _some(features: Tensor) -> Tensor:
    return features[:_MAX_COMPARED].double().cpu()
