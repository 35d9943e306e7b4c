from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.models.detection._utils import BoxCoder

from workers.families.detection import boxes

coordinate = st.floats(0, 500, width=32)
side = st.floats(2, 300, width=32)
box = st.tuples(coordinate, coordinate, side, side).map(lambda v: [v[0], v[1], v[0] + v[2], v[1] + v[3]])


@given(truth=box, anchor=box)
def test_offsets_lead_back_to_the_box(truth: list[float], anchor: list[float]):
    target, place = torch.tensor([truth]), torch.tensor([anchor])

    back = boxes.decode(boxes.encode(target, place), place)

    # A box 60 times wider than its anchor is cut: that is far from any pair the assignment makes.
    if float(((target[:, 2:] - target[:, :2]) / (place[:, 2:] - place[:, :2])).max()) < 60:
        torch.testing.assert_close(back, target, atol=0.02, rtol=1e-4)


def test_offsets_are_those_of_the_reference_coder():
    truth, anchor = torch.tensor([[10.0, 20.0, 60.0, 50.0]]), torch.tensor([[15.0, 15.0, 55.0, 65.0]])

    ours = boxes.encode(truth, anchor)

    torch.testing.assert_close(ours, BoxCoder((10.0, 10.0, 5.0, 5.0)).encode_single(truth, anchor))


def test_wild_offsets_stay_finite():
    decoded = boxes.decode(torch.full((1, 4), 1e4), torch.tensor([[0.0, 0.0, 10.0, 10.0]]))

    assert decoded.isfinite().all()


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_any_number_of_leading_dimensions_works(batch: tuple[int, ...]):
    truth = torch.tensor([1.0, 2.0, 9.0, 8.0]).expand(*batch, 4)

    assert boxes.encode(truth, truth).shape == (*batch, 4)
