"""How far generated samples are from real ones, in the features of a network (N, D)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_NEIGHBOURS = 5
_MAX_COMPARED = 2000
"""Samples of either kind that are compared one by one; more would take memory by their square."""


class _Given(nn.Module):
    """Passes features on, since torchmetrics wants to compute them itself."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def frechet_distance(real: Tensor, fake: Tensor) -> float:
    """Return the Frechet distance between Gaussians fitted to both (Heusel et al. 2017)."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=_Given(real.shape[1])).set_dtype(torch.float64)
    # Two equal rows stand for one: a covariance needs two samples.
    for features, is_real in ((real, True), (fake, False)):
        rows = features if len(features) > 1 else features.expand(2, -1)
        metric.update(rows.double().cpu(), real=is_real)
    # Rounding may bring equal sets below 0.
    return max(0.0, float(metric.compute()))


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
