from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.families.detection.config import YoloV1Config, YoloV1Loss
from workers.families.detection.yolo_loss import to_boxes, to_cells, yolo_loss
from workers.families.detection.yolo_v1 import YoloV1Network

SIZE, GRID = 64, 8
FIELDS = 2 * 5 + 3


def cells_of(*boxes: tuple[float, ...], labels: tuple[int, ...] | None = None):
    given_labels = torch.tensor([labels or (1,) * len(boxes)])
    return to_cells(torch.tensor([boxes]).reshape(1, -1, 4), given_labels, grid=GRID, size=SIZE)


corner, side = st.floats(0, 40, width=32), st.floats(2, 24, width=32)


@settings(deadline=None)
@given(x=corner, y=corner, w=side, h=side)
def test_a_box_survives_its_cell(x: float, y: float, w: float, h: float):
    cells = cells_of((x, y, x + w, y + h))

    back = to_boxes(cells.box, cells.index, grid=GRID) * SIZE

    torch.testing.assert_close(back[0, 0], torch.tensor([x, y, x + w, y + h]), atol=1e-3, rtol=1e-4)


def test_a_network_that_outputs_a_truth_decodes_to_it():
    config = YoloV1Config.preset("tiny")
    cells = cells_of((10.0, 12.0, 30.0, 44.0), labels=(2,))
    raw = torch.zeros(1, GRID, GRID, FIELDS)
    fields = raw.view(1, GRID * GRID, FIELDS)[0, cells.index[0, 0]]
    fields[5:9], fields[9], fields[10 + 1] = cells.box[0, 0], 0.9, 0.8

    boxes, scores = YoloV1Network(config, num_classes=3).decode(raw)

    anchor, label = divmod(int(scores[0].argmax()), 3)
    assert label + 1 == 2
    assert float(scores.max()) == pytest.approx(0.72)
    torch.testing.assert_close(boxes[0, anchor], torch.tensor([10.0, 12.0, 30.0, 44.0]))


def test_a_cell_answers_for_its_first_truth_only():
    cells = cells_of((0.0, 0.0, 8.0, 8.0), (1.0, 1.0, 9.0, 9.0), (20.0, 20.0, 30.0, 30.0), labels=(1, 2, 3))

    assert cells.label.tolist() == [[1, 0, 3]]


def test_padding_takes_no_cell():
    cells = cells_of((0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 8.0, 8.0), labels=(0, 2))

    assert cells.label.tolist() == [[0, 2]]


def test_the_loss_of_one_truth_is_the_sum_written_in_the_paper():
    cells = cells_of((16.0, 16.0, 32.0, 32.0), labels=(2,))  # centre (24, 24): the corner of cell 3, 3
    raw = torch.zeros(1, GRID, GRID, FIELDS)
    raw[0, 3, 3, :5] = torch.tensor([0.0, 0.0, math.sqrt(0.25), math.sqrt(0.125), 0.4])  # half as high: IoU 0.5
    raw[0, 3, 3, 5:10] = torch.tensor([0.5, 0.5, 0.1, 0.1, 0.3])  # the other box of the cell
    raw[0, 3, 3, 10:] = torch.tensor([0.1, 0.7, 0.2])
    raw[0, 0, 0, 4] = 0.6  # a confident box where nothing is

    parts = yolo_loss(raw, cells, boxes_per_cell=2, weights=YoloV1Loss())

    assert float(parts["box"]) == pytest.approx(5 * (math.sqrt(0.125) - 0.5) ** 2, rel=1e-5)
    assert float(parts["object"]) == pytest.approx((0.4 - 0.5) ** 2, rel=1e-4)
    assert float(parts["no_object"]) == pytest.approx(0.5 * (0.3**2 + 0.6**2), rel=1e-5)
    assert float(parts["class"]) == pytest.approx(0.1**2 + 0.3**2 + 0.2**2, rel=1e-5)


def test_without_overlap_the_nearest_box_is_responsible():
    cells = cells_of((16.0, 16.0, 32.0, 32.0))
    raw = torch.zeros(1, GRID, GRID, FIELDS)
    raw[0, 3, 3, :5] = torch.tensor([9.0, 9.0, 0.5, 0.5, 0.0])
    raw[0, 3, 3, 5:10] = torch.tensor([3.0, 3.0, 0.5, 0.5, 0.0])

    parts = yolo_loss(raw, cells, boxes_per_cell=2, weights=YoloV1Loss())

    assert float(parts["box"]) == pytest.approx(5 * (3.0**2 + 3.0**2))


def test_the_confidence_s_target_is_one_without_rescore():
    cells = cells_of((16.0, 16.0, 32.0, 32.0))
    raw = torch.zeros(1, GRID, GRID, FIELDS)

    parts = yolo_loss(raw, cells, boxes_per_cell=2, weights=YoloV1Loss(rescore=False))

    assert float(parts["object"]) == pytest.approx(1.0)


def test_an_image_without_truths_pays_for_confidence_only():
    cells = cells_of((0.0, 0.0, 0.0, 0.0), labels=(0,))
    raw = torch.ones(1, GRID, GRID, FIELDS)

    parts = yolo_loss(raw, cells, boxes_per_cell=2, weights=YoloV1Loss())

    assert {name: float(part) for name, part in parts.items()} == {
        "box": 0.0,
        "object": 0.0,
        "no_object": 0.5 * GRID * GRID * 2,
        "class": 0.0,
    }


def test_padding_under_a_box_without_area_costs_nothing():
    cells = cells_of((0.0, 0.0, 0.0, 0.0), (16.0, 16.0, 32.0, 32.0), labels=(0, 1))

    parts = yolo_loss(torch.zeros(1, GRID, GRID, FIELDS), cells, boxes_per_cell=2, weights=YoloV1Loss())

    assert float(parts["object"]) == 0
    assert float(parts["box"]) == pytest.approx(5 * (0.5**2 + 0.5**2))


def test_the_loss_is_a_mean_over_images():
    cells = cells_of((16.0, 16.0, 32.0, 32.0))
    raw = torch.rand(1, GRID, GRID, FIELDS)
    twice = type(cells)(*(torch.cat([t, t]) for t in (cells.index, cells.box, cells.label)))

    once = yolo_loss(raw, cells, boxes_per_cell=2, weights=YoloV1Loss())
    both = yolo_loss(torch.cat([raw, raw]), twice, boxes_per_cell=2, weights=YoloV1Loss())

    for name, part in once.items():
        torch.testing.assert_close(both[name], part)
