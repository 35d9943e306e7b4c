from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_auroc, binary_eer

from workers.families.face.verification import Fold, equal_error, far_threshold, figures, roc, similarity_threshold


def fold(same: list[float], other: list[float]) -> Fold:
    return Fold(np.array([*same, *other]), np.array([True] * len(same) + [False] * len(other)))


# Each fold is judged with the first best threshold of the other one, in steps of 0.01.
ONE = fold(same=[0.305, 0.505], other=[0.705, 1.205])
TWO = fold(same=[0.405, 0.805], other=[0.755, 1.105])


def test_each_fold_is_judged_with_the_threshold_of_the_others() -> None:
    found = figures([ONE, TWO])

    # Of ONE, 0.51 is the first that tells all four right; in TWO it misses 0.805.
    # Of TWO, 0.41 tells three right and 0.81 three again, so the first is taken; in ONE it misses 0.505.
    assert found["eval/accuracy"] == pytest.approx((3 / 4 + 3 / 4) / 2)
    assert found["eval/accuracy_std"] == 0


def test_the_deviation_is_that_of_the_folds() -> None:
    found = figures([ONE, ONE, TWO])

    # ONE and TWO together are best at 0.51; TWO is judged with ONE's 0.51 too.
    assert found["eval/accuracy"] == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert found["eval/accuracy_std"] == pytest.approx(np.std([1, 1, 3 / 4]))


def test_a_false_accept_threshold_accepts_no_more_pairs_of_two_people_than_asked_for() -> None:
    rest = fold(same=[0.1], other=[1.0, 0.6, 0.8, 1.4])

    assert far_threshold(rest, 0.0) == pytest.approx(0.6)  # nothing below the nearest
    assert far_threshold(rest, 0.25) == pytest.approx(0.8)  # one of four
    assert far_threshold(rest, 0.249) == pytest.approx(0.6)  # not even one of four
    for far in (1e-3, 1e-2, 0.1, 0.37):
        others = np.random.default_rng(0).random(3000)
        within = int((others < far_threshold(fold([], others.tolist()), far)).sum())
        assert within == round(far * 3000)


def test_true_accepts_are_counted_at_the_threshold_of_the_other_folds() -> None:
    others = [0.5 + n / 1000 for n in range(1000)]
    judged, rest = fold([0.499, 0.5051, 0.5099, 0.52], [2.0]), fold([0.1], others)

    found = figures([judged, rest])

    # At one in a hundred the threshold is 0.51, at one in a thousand 0.501; of `judged` alone it is 2.
    assert found["eval/tar_at_far_1e-2"] == pytest.approx((3 / 4 + 1) / 2)
    assert found["eval/tar_at_far_1e-3"] == pytest.approx((1 / 4 + 1) / 2)


def test_error_and_area_of_pairs_known_by_hand() -> None:
    # One of four pairs of one person is farther than one of four pairs of two: 15 of 16 comparisons are right.
    found = figures([fold([0.1, 0.2, 0.3, 0.9], [0.8, 1.0, 1.1, 1.2])])

    assert found["eval/auc"] == pytest.approx(15 / 16)
    assert found["eval/eer"] == pytest.approx(1 / 4)


@pytest.mark.parametrize("decimals", [1, 6])
def test_error_and_area_are_those_of_torchmetrics_also_where_distances_are_equal(decimals: int) -> None:
    rng = np.random.default_rng(decimals)
    is_same = rng.random(300) < 0.4
    pairs = Fold(np.round(rng.random(300) * 2 + ~is_same, decimals), is_same)
    scores, truth = torch.from_numpy(1 - pairs.distances / 4), torch.from_numpy(is_same.astype(np.int64))

    found = figures([pairs])

    assert found["eval/auc"] == pytest.approx(float(binary_auroc(scores, truth)))
    assert found["eval/eer"] == pytest.approx(float(binary_eer(scores, truth)))


def test_pairs_of_one_kind_alone_have_rates_all_the_same() -> None:
    for pairs in (fold([0.1, 0.2], []), fold([], [0.1, 0.2])):
        false_accepts, true_accepts = roc(pairs)
        assert len(false_accepts) == len(true_accepts)
        assert 0 <= equal_error(false_accepts, true_accepts) <= 1


@pytest.mark.parametrize(
    ("same", "other", "expected"),
    [
        pytest.param([0.4], [1.0], 0.7, id="the middle of the gap"),
        pytest.param([0.001, 0.002], [0.004], 0.003, id="finer than the protocol's grid"),
        pytest.param([0.1, 0.5], [0.2, 1.5], 1.0, id="the wider of two gaps as good"),
        pytest.param([0.3, 0.3, 0.9], [0.3, 1.1], 1.0, id="equal distances cannot be told apart"),
    ],
)
def test_the_served_threshold_tells_most_pairs_right(same: list[float], other: list[float], expected: float) -> None:
    # A squared distance d^2 is a cosine of 1 - d^2 / 2.
    assert similarity_threshold([fold(same, other)]) == pytest.approx(1 - expected / 2)
