"""What held-out people are asked about: verification pairs in folds, and who is enrolled and who is sought."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

Pair = tuple[int, int, bool]
Folds = list[list[Pair]]

NUM_FOLDS = 10
_SEED = 0
_ROWS = 4096


def folds_of(labels: Sequence[int], *, pairs: int) -> Folds:
    """Return folds of up to `pairs` pairs of one person and as many of two, always the same for the same labels.

    No two folds share a person where each gets two or more; with fewer people the pairs themselves are dealt.
    """
    rng = np.random.default_rng(_SEED)
    people = rng.permutation(sorted(set(labels)))
    places = {person: np.flatnonzero(np.asarray(labels) == person) for person in people.tolist()}
    if len(people) >= 2 * NUM_FOLDS:
        groups = [group.tolist() for group in np.array_split(people, NUM_FOLDS)]
        folds = [_pairs({person: places[person] for person in group}, pairs, rng) for group in groups]
    else:
        dealt = _pairs(places, NUM_FOLDS * pairs, rng)
        same, other = ([pair for pair in dealt if pair[2] is kind] for kind in (True, False))
        folds = [same[n::NUM_FOLDS] + other[n::NUM_FOLDS] for n in range(NUM_FOLDS)]
    return [fold for fold in folds if fold]


def _pairs(
    places: dict[int, np.ndarray[tuple[int], np.dtype[np.int64]]], count: int, rng: np.random.Generator
) -> list[Pair]:
    same = [pair for own in places.values() for pair in itertools.combinations(own.tolist(), 2)]
    kept = [same[n] for n in sorted(rng.permutation(len(same))[:count].tolist())]
    people = list(places)
    num_other = (sum(map(len, places.values())) ** 2 - sum(len(own) ** 2 for own in places.values())) // 2
    other: set[tuple[int, int]] = set()
    while len(other) < min(len(kept), num_other):
        # People first, so that those with many pictures do not crowd out the rest.
        one, two = (int(rng.choice(places[person])) for person in rng.choice(people, 2, replace=False).tolist())
        other.add((min(one, two), max(one, two)))
    return [(*pair, True) for pair in kept] + [(*pair, False) for pair in sorted(other)]


def rank_one(embeddings: Tensor, labels: Tensor, *, enrolled: int) -> float:
    """Return how often the nearest enrolled person is the right one.

    Of each person the first `enrolled` images (N, D) are enrolled, but never all: their mean, made length 1 again. The
    others are sought. Nothing to seek gives 0.
    """
    people = torch.tensor(sorted(set(labels.tolist())))
    is_enrolled = torch.zeros(len(labels), dtype=torch.bool)
    gallery = []
    for person in people:
        own = (labels == person).nonzero()[:, 0]
        chosen = own[: max(1, min(enrolled, len(own) - 1))]
        is_enrolled[chosen] = True
        gallery.append(functional.normalize(embeddings[chosen].mean(0), dim=0))
    if bool(is_enrolled.all()):
        return 0.0
    known = torch.stack(gallery).T
    # In parts: all similarities of a large set at once would not fit into memory.
    best = [(part @ known).argmax(1) for part in torch.split(embeddings[~is_enrolled], _ROWS)]
    found = people[torch.cat(best)]
    return float((found == labels[~is_enrolled]).double().mean())


def nearest(embeddings: Tensor, place: int, *, count: int) -> tuple[list[float], list[int]]:
    """Return the similarities and places of those most like the embedding at `place`, which is not among them."""
    similarities = embeddings @ embeddings[place]
    similarities[place] = -torch.inf
    best = similarities.topk(min(count, len(similarities) - 1))
    return best.values.tolist(), best.indices.tolist()
