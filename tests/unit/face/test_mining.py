from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from workers.families.face.mining import mine, positive_pairs, squared_distances, triplet_loss

MARGIN = 0.2
LABELS = torch.tensor([3, 1, 3, 0, 1, 3, 2, 0, 0, 1])


@pytest.fixture(params=range(5))
def distances(request: pytest.FixtureRequest) -> Tensor:
    generator = torch.Generator().manual_seed(request.param)
    # Three numbers: so few that every kind of triplet occurs.
    return squared_distances(functional.normalize(torch.randn(len(LABELS), 3, generator=generator)))


def by_hand(distances: Tensor, mining: str) -> set[tuple[int, int, int]]:
    """Return the triplets (anchor, positive, negative), looked for one by one."""
    count = range(len(LABELS))
    same = [(a, p) for a, p in itertools.permutations(count, 2) if LABELS[a] == LABELS[p]]
    found = set()
    for a, p in same:
        near = distances[a, p]
        others = [n for n in count if LABELS[n] != LABELS[a]]
        if mining == "batch_hard":
            farthest = max(distances[a, q] for b, q in same if b == a)
            nearest = min(distances[a, n] for n in others)
            found |= {(a, p, n) for n in others if near == farthest and distances[a, n] == nearest}
        elif mining == "violating":
            found |= {(a, p, n) for n in others if distances[a, n] - near < MARGIN}
        else:
            found |= {(a, p, n) for n in others if near < distances[a, n] and distances[a, n] - near < MARGIN}
    return found


@pytest.mark.parametrize("mining", ["semi_hard", "violating", "batch_hard"])
def test_mined_triplets_are_those_found_one_by_one(distances: Tensor, mining: str) -> None:
    pairs = positive_pairs(LABELS)

    chosen = mine(distances, LABELS, pairs, mining=mining, margin=MARGIN)

    expected = by_hand(distances, mining)
    assert {(*pairs[row].tolist(), int(negative)) for row, negative in chosen.nonzero()} == expected
    assert expected
    hinges = [max(0.0, float(distances[a, p] - distances[a, n]) + MARGIN) for a, p, n in expected]
    loss = triplet_loss(distances, pairs, chosen, margin=MARGIN)
    assert float(loss) == pytest.approx(sum(hinges) / len(hinges), rel=1e-5)


def test_hard_triplets_are_one_for_each_image_that_has_a_pair(distances: Tensor) -> None:
    chosen = mine(distances, LABELS, positive_pairs(LABELS), mining="batch_hard", margin=MARGIN)

    assert int(chosen.sum()) == int((LABELS != 2).sum())


def test_nothing_mined_costs_nothing_and_has_a_gradient() -> None:
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    labels = torch.tensor([0, 0, 1])
    pairs, distances = positive_pairs(labels), squared_distances(embeddings)

    loss = triplet_loss(
        distances, pairs, mine(distances, labels, pairs, mining="violating", margin=MARGIN), margin=MARGIN
    )
    loss.backward()  # type: ignore[no-untyped-call]

    assert loss.item() == 0
    assert embeddings.grad is not None
    assert torch.equal(embeddings.grad, torch.zeros_like(embeddings))


def test_squared_distances_are_those_of_the_library() -> None:
    embeddings = functional.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)))

    torch.testing.assert_close(
        squared_distances(embeddings), torch.cdist(embeddings, embeddings).square(), atol=1e-5, rtol=0
    )
