from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from workers.families.detection.assign import assign_best, assign_bipartite

COLLISION = [[0.9, 0.3, 0.1], [0.8, 0.7, 0.2]]
"""Both truths like the first anchor best."""


def brute_force(iou: Tensor, valid: list[bool], threshold: float) -> list[int]:
    """Assign one image entry by entry, as the rule is worded."""
    truths = [m for m, is_valid in enumerate(valid) if is_valid]
    anchors = range(iou.shape[1])
    result = [-1] * iou.shape[1]
    free_truths, free_anchors = set(truths), set(anchors)
    while free_truths and free_anchors:
        pairs = itertools.product(sorted(free_truths), sorted(free_anchors))
        best = max(pairs, key=lambda pair: (float(iou[pair]), -pair[0], -pair[1]))
        result[best[1]] = best[0]
        free_truths.discard(best[0])
        free_anchors.discard(best[1])
    for anchor in free_anchors:
        if truths:
            best_truth = max(truths, key=lambda m: (float(iou[m, anchor]), -m))
            if float(iou[best_truth, anchor]) >= threshold:
                result[anchor] = best_truth
    return result


def test_no_truth_is_lost_where_two_like_the_same_anchor():
    iou, valid = torch.tensor([COLLISION]), torch.ones(1, 2, dtype=torch.bool)

    assert assign_bipartite(iou, valid, threshold=0.5).tolist() == [[0, 1, -1]]


def test_the_reference_rule_loses_the_earlier_truth():
    iou, valid = torch.tensor([COLLISION]), torch.ones(1, 2, dtype=torch.bool)

    assert assign_best(iou, valid, threshold=0.5).tolist() == [[1, 1, -1]]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_bipartite_assignment_is_the_greedy_rule(data: st.DataObject):
    num_truths, num_anchors = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 9))
    # Few distinct values, so that ties are common.
    values = data.draw(
        st.lists(
            st.sampled_from([0.0, 0.2, 0.4, 0.5, 0.7, 0.9]),
            min_size=2 * num_truths * num_anchors,
            max_size=2 * num_truths * num_anchors,
        )
    )
    flags = data.draw(st.lists(st.booleans(), min_size=2 * num_truths, max_size=2 * num_truths))
    iou = torch.tensor(values).reshape(2, num_truths, num_anchors)
    valid = torch.tensor(flags).reshape(2, num_truths)

    assigned = assign_bipartite(iou, valid, threshold=0.5)

    assert assigned.tolist() == [brute_force(iou[n], valid[n].tolist(), 0.5) for n in range(2)]


def test_a_truth_that_no_anchor_overlaps_still_gets_one():
    iou = torch.tensor([[[0.0, 0.0, 0.0], [0.6, 0.1, 0.0]]])

    assigned = assign_bipartite(iou, torch.ones(1, 2, dtype=torch.bool), threshold=0.5)

    assert sorted(assigned[0].tolist()) == [-1, 0, 1]


@pytest.mark.parametrize("assign", [assign_bipartite, assign_best])
@pytest.mark.parametrize(
    ("shape", "valid"),
    [
        pytest.param((2, 0, 4), torch.ones(2, 0, dtype=torch.bool), id="no truths at all"),
        pytest.param((2, 3, 4), torch.zeros(2, 3, dtype=torch.bool), id="padding only"),
    ],
)
def test_without_truths_every_anchor_is_background(assign, shape, valid):
    assert (assign(torch.rand(shape), valid, threshold=0.5) == -1).all()


def test_ties_do_not_depend_on_the_number_of_anchors():
    iou = torch.zeros(1, 2, 5000)
    iou[0, :, 10:4000] = 0.7

    assigned = assign_bipartite(iou, torch.ones(1, 2, dtype=torch.bool), threshold=0.9)

    assert assigned[0].nonzero().flatten().numel() == 5000 - 1
    assert assigned[0, 10].item() == 0
    assert assigned[0, 11].item() == 1
