from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from workers.families.representation.figures import active_units, knn_accuracy, linear_probe


def clouds(count: int, *, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    return torch.randn(count, 4, generator=draws) + 1.5 * torch.eye(3, 4)[labels], labels


def test_units_that_differ_from_image_to_image_are_active() -> None:
    means = torch.randn(100, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([1, 0.5, 0.2, 0.01, 0])

    assert active_units(means) == 3


def test_neighbours_vote_and_the_nearer_one_breaks_a_tie() -> None:
    known, labels = torch.tensor([[0.0], [1.0], [2.0], [10.0]]), torch.tensor([0, 1, 1, 2])
    asked = torch.tensor([[0.1], [0.4]])

    assert knn_accuracy(known, labels, asked, torch.tensor([0, 0]), neighbours=1) == 1.0
    # Three vote: 1 has two of them.
    assert knn_accuracy(known, labels, asked, torch.tensor([1, 1]), neighbours=3) == 1.0
    # Two vote, one each: the nearer is 0.
    assert knn_accuracy(known, labels, asked, torch.tensor([0, 0]), neighbours=2) == 1.0
    assert knn_accuracy(known, labels, asked, torch.tensor([1, 1]), neighbours=99) == 1.0


def test_the_probe_is_the_library_s_logistic_regression() -> None:
    (known, labels), (asked, truth) = clouds(150, seed=0), clouds(600, seed=1)
    expected = LogisticRegression(C=0.316, max_iter=1000, tol=1e-8).fit(known, labels).score(asked, truth)

    assert linear_probe(known, labels, asked, truth) == pytest.approx(expected, abs=0.005)
    assert expected > 0.6


def test_the_probe_takes_what_was_made_in_inference_mode() -> None:
    plain = linear_probe(*clouds(60, seed=0), *clouds(60, seed=1))
    with torch.inference_mode():
        known, asked = clouds(60, seed=0), clouds(60, seed=1)

    assert linear_probe(*known, *asked) == plain > 0.5


def test_features_without_anything_in_them_are_told_no_better_than_by_chance() -> None:
    draws, labels = torch.Generator().manual_seed(0), torch.arange(3000) % 3

    found = linear_probe(torch.randn(3000, 4, generator=draws), labels, torch.randn(3000, 4, generator=draws), labels)

    assert found == pytest.approx(1 / 3, abs=0.04)


def test_neighbours_of_many_images_are_counted_part_by_part() -> None:
    known, labels = torch.tensor([[0.0], [1.0]]), torch.tensor([0, 1])
    truth = torch.arange(1500) % 2
    asked = truth.float()[:, None]

    # The last ones are all told wrong.
    truth[1024:] = 1 - truth[1024:]

    assert knn_accuracy(known, labels, asked, truth, neighbours=1) == pytest.approx(1024 / 1500)


def test_the_probe_has_a_bias_and_holds_weights_less_the_more_images_there_are() -> None:
    labels = torch.tensor([0, 0, 1] * 100)
    features = 4 + 0.5 * labels[:, None].float()

    assert linear_probe(features, labels, features, labels) == 1
    # Of three the weight stays too small to tell the rare class.
    assert linear_probe(features[:3], labels[:3], features, labels) == pytest.approx(2 / 3)
