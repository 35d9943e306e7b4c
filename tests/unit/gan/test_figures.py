from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from workers.families.gan.figures import covered_classes, diversity, frechet_distance, precision_and_coverage
from workers.families.gan.points import point_figures, scatter


def test_the_frechet_distance_of_gaussians_is_that_of_their_moments() -> None:
    torch.manual_seed(0)
    one = torch.randn(200_000, 2, dtype=torch.float64)
    other = 3 * torch.randn(200_000, 2, dtype=torch.float64) + torch.tensor([2.0, 0.0])

    # |m - m'|^2 + sum of (s - s')^2 for independent features
    assert frechet_distance(one, other) == pytest.approx(4 + 2 * (3 - 1) ** 2, rel=0.02)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-6)


def test_the_frechet_distance_is_that_of_torchmetrics() -> None:
    class Given(nn.Module):
        num_features = 6

        def forward(self, features: Tensor) -> Tensor:
            return features

    torch.manual_seed(0)
    mixing = torch.randn(2, 6, 6, dtype=torch.float64)
    real, fake = (torch.randn(count, 6).double() @ mix + mix[0] for count, mix in zip((50, 70), mixing, strict=True))
    theirs = FrechetInceptionDistance(feature=Given()).set_dtype(torch.float64)
    theirs.update(real, real=True)
    theirs.update(fake, real=False)

    assert frechet_distance(real, fake) == pytest.approx(float(theirs.compute()))


def test_a_set_of_one_image_is_as_far_as_its_mean_and_the_others_variance() -> None:
    torch.manual_seed(0)
    real = torch.randn(50_000, 3)

    assert frechet_distance(real, torch.tensor([[1.0, 0.0, 0.0]])) == pytest.approx(1 + 3, rel=0.03)


def test_coverage_sees_a_missing_mode_and_precision_a_wrong_one() -> None:
    torch.manual_seed(0)
    left, right = torch.randn(300, 2), torch.randn(300, 2) + 50
    real = torch.cat([left, right])

    precision, coverage = precision_and_coverage(real, torch.randn(600, 2))
    assert precision > 0.9
    assert coverage == pytest.approx(0.5, abs=0.05)

    precision, coverage = precision_and_coverage(real, torch.cat([left + 0.01, torch.randn(300, 2) + 200]))
    assert precision == pytest.approx(0.5, abs=0.02)
    assert coverage == pytest.approx(0.5, abs=0.02)


def test_diversity_is_the_mean_distance_of_two_samples() -> None:
    assert diversity(torch.tensor([[0.0], [3.0], [3.0]])) == pytest.approx(2.0)
    assert diversity(torch.ones(5, 3)) == 0


def test_a_class_counts_from_a_fifth_of_its_share_on() -> None:
    truth = torch.tensor([0] * 50 + [1] * 50)

    assert covered_classes(torch.tensor([0] * 91 + [1] * 9), truth, 2) == 1
    assert covered_classes(torch.tensor([0] * 90 + [1] * 10), truth, 2) == 2


def test_figures_of_points_are_relative_to_the_real_ones() -> None:
    torch.manual_seed(0)
    real = torch.randn(100_000, 2)

    figures = point_figures(real, 2 * torch.randn(100_000, 2) + 1)

    assert figures["eval/mean_error"] == pytest.approx(2**0.5, rel=0.02)
    assert figures["eval/covariance_error"] == pytest.approx(3, rel=0.02)
    assert figures["eval/diversity"] == pytest.approx(2, rel=0.02)
    assert scatter(real[:50], real[:50] + 100).startswith(b"\x89PNG")
