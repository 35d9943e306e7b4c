from __future__ import annotations

import math

import pytest
import torch

from workers.families.face.arcface import ArcFace, arcface_loss

SCALE, MARGIN = 64.0, 0.5


def expected(cosines: list[float], label: int) -> float:
    """Return the loss of one row by the formula, with angles."""
    angle = math.acos(cosines[label])
    right = math.cos(angle + MARGIN) if angle + MARGIN < math.pi else cosines[label] - MARGIN * math.sin(MARGIN)
    logits = [SCALE * (right if place == label else value) for place, value in enumerate(cosines)]
    largest = max(logits)
    return largest + math.log(sum(math.exp(one - largest) for one in logits)) - logits[label]


@pytest.mark.parametrize(
    "right",
    [
        pytest.param(0.9, id="near"),
        pytest.param(0.0, id="at a right angle"),
        pytest.param(-0.8, id="far"),
        pytest.param(-0.99, id="beyond pi - margin"),
    ],
)
def test_the_loss_is_the_formula_s(right: float) -> None:
    rows = [[0.1, right, -0.3], [0.2, -0.4, 0.35]]

    loss = arcface_loss(torch.tensor(rows, dtype=torch.float64), torch.tensor([1, 0]), scale=SCALE, margin=MARGIN)

    assert float(loss) == pytest.approx((expected(rows[0], 1) + expected(rows[1], 0)) / 2, rel=1e-6)


def test_the_farther_the_right_person_the_larger_the_loss_at_every_angle() -> None:
    right = torch.linspace(1, -1, 201, dtype=torch.float64)

    losses = [
        float(arcface_loss(torch.stack([one, one.new_zeros(())])[None], torch.tensor([0]), scale=1, margin=MARGIN))
        for one in right
    ]

    assert losses == sorted(losses)
    assert len(set(losses)) == len(losses)


def test_gradients_are_finite_where_the_sine_is_zero() -> None:
    cosines = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], requires_grad=True)

    arcface_loss(cosines, torch.tensor([0, 0]), scale=SCALE, margin=MARGIN).backward()  # type: ignore[no-untyped-call]

    assert cosines.grad is not None
    assert bool(cosines.grad.isfinite().all())


def test_the_length_of_a_direction_means_nothing() -> None:
    head = ArcFace(4, 3)
    embeddings = torch.nn.functional.normalize(torch.randn(5, 4, generator=torch.Generator().manual_seed(0)))
    before = head(embeddings)

    with torch.no_grad():
        head.directions.mul_(7)

    torch.testing.assert_close(head(embeddings), before)
