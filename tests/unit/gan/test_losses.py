from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from workers.families.gan.augment import diff_augment
from workers.families.gan.config import Augment, Loss
from workers.families.gan.losses import discriminator_loss, generator_loss, gradient_penalty, r1_penalty

REAL, FAKE = torch.tensor([2.0, -1.0]), torch.tensor([0.5, -3.0])


def softplus(*values: float) -> float:
    return sum(math.log1p(math.exp(value)) for value in values) / len(values)


@pytest.mark.parametrize(
    ("name", "discriminator", "generator"),
    [
        pytest.param("nonsat", softplus(-2, 1) + softplus(0.5, -3), softplus(-0.5, 3), id="nonsat"),
        pytest.param("minimax", softplus(-2, 1) + softplus(0.5, -3), -softplus(0.5, -3), id="minimax: the same game"),
        pytest.param("lsgan", 0.5 * ((1 + 4) / 2 + (0.25 + 9) / 2), 0.5 * (0.25 + 16) / 2, id="lsgan: squares"),
        pytest.param("hinge", (0 + 2) / 2 + (1.5 + 0) / 2, 1.25, id="hinge: nothing beyond the margin"),
        pytest.param("wgan_gp", -1.25 - 0.5, 1.25, id="wgan_gp: the critic's gap"),
    ],
)
def test_losses_are_those_of_the_papers(name: str, discriminator: float, generator: float) -> None:
    loss = Loss.model_validate({"name": name})

    assert float(discriminator_loss(loss, REAL, FAKE)) == pytest.approx(discriminator, abs=1e-6)
    assert float(generator_loss(loss, FAKE)) == pytest.approx(generator, abs=1e-6)


@pytest.mark.parametrize("name", ["nonsat", "minimax", "lsgan", "hinge", "wgan_gp"])
def test_every_loss_drives_real_up_fake_down_and_the_generator_up(name: str) -> None:
    loss = Loss.model_validate({"name": name})
    real, fake = (torch.full((3,), 0.5, requires_grad=True) for _ in range(2))

    discriminator_loss(loss, real, fake).backward()
    drawn = torch.zeros(3, requires_grad=True)
    generator_loss(loss, drawn).backward()

    assert real.grad is not None
    assert fake.grad is not None
    assert drawn.grad is not None
    assert bool((real.grad < 0).all())
    assert bool((fake.grad > 0).all())
    assert bool((drawn.grad < 0).all())


def test_label_noise_keeps_real_at_one_and_moves_targets_towards_each_other_only() -> None:
    torch.manual_seed(0)
    loss = Loss(label_noise=0.1)
    sure = torch.full((1000,), 30.0)

    # With targets 1 - u and u, of u uniform to 0.1, a sure and right answer costs 30 u on either side.
    assert float(discriminator_loss(loss, sure, -sure)) == pytest.approx(2 * 30 * 0.05, rel=0.1)


def test_the_gradient_penalty_is_zero_for_slope_one_and_counts_the_excess() -> None:
    real, fake = torch.randn(8, 5), torch.randn(8, 5)
    way = torch.nn.functional.normalize(torch.randn(5), dim=0)

    def slope(factor: float) -> float:
        return float(gradient_penalty(lambda samples: factor * samples @ way, real, fake))

    assert slope(1.0) == pytest.approx(0, abs=1e-6)
    assert slope(3.0) == pytest.approx(4, rel=1e-4)


def test_a_judge_that_says_the_same_of_everything_gets_finite_gradients() -> None:
    weight = torch.zeros(2, requires_grad=True)

    gradient_penalty(lambda samples: samples @ weight, torch.zeros(3, 2), torch.ones(3, 2)).backward()

    assert weight.grad is not None
    assert weight.grad.isfinite().all()


def test_the_gradient_penalty_looks_between_a_real_and_a_generated_sample() -> None:
    seen: list[Tensor] = []

    def judge(samples: Tensor) -> Tensor:
        seen.append(samples.detach())
        return samples.sum(1)

    gradient_penalty(judge, torch.zeros(100, 2), torch.ones(100, 2))

    assert bool(((seen[0] > 0) & (seen[0] < 1)).all())
    # One share a sample, not one a value.
    assert torch.equal(seen[0][:, 0], seen[0][:, 1])


def test_r1_is_the_squared_gradient_at_real_samples_and_can_be_differentiated() -> None:
    weight = torch.tensor([1.0, -2.0], requires_grad=True)

    penalty = r1_penalty(lambda samples: samples @ weight, torch.randn(4, 2))
    penalty.backward()  # type: ignore[no-untyped-call]

    assert float(penalty.detach()) == pytest.approx(5)
    assert weight.grad is not None
    assert torch.allclose(weight.grad, 2 * weight)


def test_label_noise_is_refused_where_it_does_nothing() -> None:
    with pytest.raises(ValueError, match=r"loss\.label_noise has no effect"):
        Loss(name="hinge", label_noise=0.1)


@pytest.mark.parametrize("change", [{"colour": True}, {"translation": 0.25}, {"cutout": 0.5}])
def test_each_augmentation_differs_by_sample_and_lets_gradients_through(change: dict[str, bool | float]) -> None:
    torch.manual_seed(0)
    images = torch.rand(1, 3, 8, 8).expand(6, -1, -1, -1).clone().requires_grad_(True)

    changed = diff_augment(images, Augment.model_validate(change))
    changed.square().sum().backward()  # type: ignore[no-untyped-call]

    assert changed.shape == images.shape
    assert not torch.equal(changed[0], changed[1])
    assert images.grad is not None
    assert float(images.grad.abs().sum()) > 0


def test_translation_moves_whole_pixels_and_brings_in_the_middle_of_the_range() -> None:
    torch.manual_seed(1)
    images = torch.ones(64, 1, 8, 8)
    images[:, :, 3, 4] = 7.0

    moved = diff_augment(images, Augment(translation=0.25))

    rows, columns = (moved == 7).nonzero()[:, 2], (moved == 7).nonzero()[:, 3]
    assert len(rows) == 64
    assert (int(rows.min()), int(rows.max())) == (1, 5)
    assert (int(columns.min()), int(columns.max())) == (2, 6)
    assert set(moved.unique().tolist()) == {0.0, 1.0, 7.0}


def test_cutout_blanks_at_most_a_square_of_its_size() -> None:
    torch.manual_seed(2)
    kept = diff_augment(torch.ones(200, 1, 8, 8), Augment(cutout=0.5))

    blank = (kept == 0).sum((1, 2, 3))
    assert (int(blank.max()), int(blank.min()) > 0) == (16, True)


def test_nothing_configured_changes_nothing() -> None:
    images = torch.rand(2, 3, 8, 8)

    assert torch.equal(diff_augment(images, Augment()), images)
