"""What features tell of classes that nobody told them of, and how much of a latent is used."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_ACTIVE = 0.01
"""Variance over images from which on a latent unit's mean counts as used (Burda et al. 2016, section 5)."""
_PROBE_STEPS = 1000
_PROBE_FREEDOM = 0.316
"""The inverse of the weight decay, summed over images, that CLIP's authors took."""
_ROWS = 1024


def active_units(means: Tensor) -> int:
    """Return how many of the latent units' means (N, D) differ from image to image."""
    return int((means.double().var(0, correction=0) > _ACTIVE).sum())


def knn_accuracy(known: Tensor, labels: Tensor, asked: Tensor, truth: Tensor, *, neighbours: int) -> float:
    """Return how often the classes of the nearest known features (N, D) vote for the right class of asked ones.

    Of classes with as many votes the one of the nearer neighbour wins.
    """
    count = min(neighbours, len(known))
    right = 0
    for start in range(0, len(asked), _ROWS):
        distances = torch.cdist(asked[start : start + _ROWS].double(), known.double())
        near = labels[distances.topk(count, largest=False).indices]
        votes = functional.one_hot(near, int(labels.max()) + 1).double()
        # Less than a vote for all together, more for the nearer.
        votes *= 1 + torch.linspace(0.5, 0.0, count, dtype=torch.float64)[:, None] / count
        right += int((votes.sum(1).argmax(1) == truth[start : start + _ROWS]).sum())
    return right / len(asked)


def linear_probe(known: Tensor, labels: Tensor, asked: Tensor, truth: Tensor) -> float:
    """Return how many asked features (N, D) a linear classifier of known ones tells rightly.

    Logistic regression of features as they are, its weights held small and fitted to the end (Radford et al. 2021,
    appendix A.3): what it needs large weights for is as good as not there, and nothing is left to chance.
    """
    # Copies: what was made in inference mode cannot be differentiated through.
    inputs, labels = known.double(), labels.clone()
    weight = torch.zeros(int(labels.max()) + 1, inputs.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], max_iter=_PROBE_STEPS, line_search_fn="strong_wolfe")
    decay = 1 / (2 * _PROBE_FREEDOM * len(inputs))

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = functional.linear(inputs, weight[:, :-1], weight[:, -1])
        value = functional.cross_entropy(logits, labels) + decay * weight[:, :-1].square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    found = functional.linear(asked.double(), weight[:, :-1], weight[:, -1]).argmax(1)
    return float((found == truth).double().mean())
