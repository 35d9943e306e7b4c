from __future__ import annotations

import pytest
import torch
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from workers.families.detection.anchors import box_shapes, default_boxes, level_anchors
from workers.families.detection.config import SsdConfig


@pytest.mark.parametrize(("num_sizes", "num_ratios"), [(1, 1), (3, 2), (2, 5)])
def test_a_place_has_sizes_plus_ratios_minus_one_boxes(num_sizes: int, num_ratios: int):
    shapes = box_shapes([0.1 * (n + 1) for n in range(num_sizes)], [1.0 + n for n in range(num_ratios)])

    assert len(shapes) == num_sizes + num_ratios - 1
    assert len(level_anchors(3, 4, shapes)) == 3 * 4 * (num_sizes + num_ratios - 1)


@pytest.mark.parametrize(
    ("semantics", "expected_area"),
    [
        pytest.param("side", 0.25, id="half the side is a quarter of the area"),
        pytest.param("area", 0.5, id="half the area"),
    ],
)
def test_a_size_means_what_it_is_said_to_mean(semantics, expected_area):
    for width, height in box_shapes([0.5], [1.0, 2.0, 0.5], size_semantics=semantics):
        assert width * height == pytest.approx(expected_area)


def test_ratio_is_width_over_height():
    (width, height), *_ = box_shapes([0.3], [2.0])

    assert width / height == pytest.approx(2.0)


def test_boxes_sit_on_the_centres_of_their_cells_row_by_row():
    places = level_anchors(2, 2, [(0.2, 0.4)])

    centres = (places[:, :2] + places[:, 2:]) / 2
    torch.testing.assert_close(centres, torch.tensor([[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]))


def test_the_paper_s_levels_give_its_8732_boxes_near_torchvision_s():
    model = SsdConfig().model
    grids = [(n, n) for n in (38, 19, 10, 5, 3, 1)]

    ours = default_boxes(grids, model.sizes, model.ratios)

    reference = DefaultBoxGenerator(
        [[2], [2, 3], [2, 3], [2, 3], [2], [2]], scales=[0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05], clip=False
    )
    features = [torch.zeros(1, 1, n, n) for n in (38, 19, 10, 5, 3, 1)]
    theirs = reference(ImageList(torch.zeros(1, 3, 300, 300), [(300, 300)]), features)[0] / 300
    assert len(ours) == 8732
    torch.testing.assert_close(_in_reference_order(ours, grids), theirs, atol=0.002, rtol=0)


def _in_reference_order(ours: torch.Tensor, grids: list[tuple[int, int]]) -> torch.Tensor:
    """Put the second size of each place second, where torchvision has it."""
    levels, start = [], 0
    for (height, width), count in zip(grids, SsdConfig().num_default_boxes(), strict=True):
        places = ours[start : start + height * width * count].view(-1, count, 4)
        levels.append(torch.cat([places[:, :1], places[:, -1:], places[:, 1:-1]], dim=1).reshape(-1, 4))
        start += height * width * count
    return torch.cat(levels)
