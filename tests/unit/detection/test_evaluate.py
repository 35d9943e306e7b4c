from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageChops

from workers.families.detection.data import Record
from workers.families.detection.draw import Box, draw_boxes, samples_page
from workers.families.detection.evaluate import coco_figures, voc_11_point
from workers.families.detection.postprocess import Detections, Thresholds, select
from workers.families.letterbox import fit
from workers.families.pictures import sheet
from workers.families.records import Span


def record(*boxes: list[float], labels: list[int] | None = None, crowd: list[bool] | None = None) -> Record:
    xyxy = torch.tensor(boxes).reshape(-1, 4)
    return Record(
        span=Span(Path("none"), 0, 0, "none"),
        height=100,
        width=100,
        boxes=xyxy,
        labels=torch.tensor(labels or [1] * len(boxes), dtype=torch.int64),
        is_crowd=torch.tensor(crowd or [False] * len(boxes), dtype=torch.bool),
        area=(xyxy[:, 2] - xyxy[:, 0]) * (xyxy[:, 3] - xyxy[:, 1]),
    )


def found(*rows: tuple[list[float], int, float]) -> Detections:
    return Detections(
        boxes=torch.tensor([box for box, _, _ in rows]).reshape(-1, 4),
        labels=torch.tensor([label for _, label, _ in rows], dtype=torch.int64),
        scores=torch.tensor([score for _, _, score in rows]),
    )


LEFT, RIGHT, NOWHERE = [10.0, 10.0, 40.0, 40.0], [60.0, 10.0, 90.0, 40.0], [10.0, 60.0, 40.0, 90.0]


def test_perfect_detections_score_one():
    figures = coco_figures(
        [found((LEFT, 1, 0.9), (RIGHT, 2, 0.8))], [record(LEFT, RIGHT, labels=[1, 2])], max_detections=100
    )

    assert (
        figures["eval/ap"] == figures["eval/ap50"] == figures["eval/ap75"] == figures["eval/ar"] == pytest.approx(1.0)
    )


def test_figures_of_sizes_that_do_not_occur_are_left_out():
    figures = coco_figures([found((LEFT, 1, 0.9))], [record(LEFT)], max_detections=100)

    assert "eval/ap_small" in figures
    assert "eval/ap_large" not in figures


def test_nothing_found_scores_zero():
    assert coco_figures([found()], [record(LEFT)], max_detections=100)["eval/ap"] == 0


def test_the_limit_of_detections_is_the_one_configured():
    figures = coco_figures([found((LEFT, 1, 0.9), (RIGHT, 1, 0.8))], [record(LEFT, RIGHT)], max_detections=300)

    assert figures["eval/ar"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("detections", "truth", "expected"),
    [
        pytest.param(found((LEFT, 1, 0.9)), record(LEFT), 1.0, id="found"),
        pytest.param(found((NOWHERE, 1, 0.9), (LEFT, 1, 0.8)), record(LEFT), 0.5, id="after one mistake"),
        pytest.param(found((LEFT, 1, 0.9), (LEFT, 1, 0.8)), record(LEFT), 1.0, id="twice, after full recall"),
        pytest.param(found((LEFT, 1, 0.9)), record(LEFT, RIGHT), 6 / 11, id="half: recalls 0 to 0.5 of eleven"),
        pytest.param(
            found((RIGHT, 1, 0.95), (LEFT, 1, 0.9)),
            record(LEFT, RIGHT, crowd=[False, True]),
            1.0,
            id="difficult ones are free",
        ),
        pytest.param(found((LEFT, 2, 0.9)), record(LEFT), 0.0, id="as another class"),
        pytest.param(found(), record(LEFT), 0.0, id="nothing"),
    ],
)
def test_the_eleven_points_of_voc(detections, truth, expected):
    assert voc_11_point([detections], [truth], num_classes=2) == pytest.approx(expected)


def test_a_threshold_near_zero_feeds_suppression_a_bounded_number():
    boxes = torch.rand(20_000, 2, generator=torch.Generator().manual_seed(0)) * 90
    scores = torch.rand(20_000, 3, generator=torch.Generator().manual_seed(1))

    picked = select(
        torch.cat([boxes, boxes + 9], dim=1), scores, fit(100, 100, 100), Thresholds(score_threshold=0, nms_iou=1)
    )

    assert len(picked.boxes) == 100
    assert picked.scores[0] == scores.max()
    assert (picked.scores.diff() <= 0).all()


def test_a_drawn_box_is_where_it_belongs():
    picture = draw_boxes(torch.zeros(3, 40, 60, dtype=torch.uint8), [Box(LEFT, 1, "disc", 0.75), Box(RIGHT, 1, "")])

    zoom = picture.width // 60
    assert picture.getpixel((10 * zoom, 30 * zoom)) == (0xE6, 0x19, 0x4B)
    assert picture.getpixel((25 * zoom, 30 * zoom)) == (0, 0, 0)


def test_the_sheet_says_below_its_pictures_what_the_boxes_mean():
    picture = draw_boxes(torch.zeros(3, 40, 60, dtype=torch.uint8), [Box(LEFT, 1, "disc", 0.75), Box(LEFT, 1, "")])

    page = samples_page([picture] * 4)

    legend = page.crop((0, 2 * picture.height + 6, page.width, page.height))
    words = ImageChops.invert(legend).getbbox()
    # In one line that no picture cuts off.
    assert words[3] - words[1] < 20
    assert words[2] < picture.width


def test_a_sheet_shows_pictures_of_any_sizes_in_one_png():
    png = sheet([Image.new("RGB", size, "red") for size in ((40, 20), (10, 60), (30, 30), (5, 5))])

    with Image.open(io.BytesIO(png)) as page:
        assert page.format == "PNG"
        assert page.size == (40 + 10 + 30 + 2 * 6, 60 + 5 + 6)


def test_a_long_name_leaves_room_for_its_score():
    long, longer, surer = (
        draw_boxes(torch.zeros(3, 40, 60, dtype=torch.uint8), [Box(LEFT, 1, "w" * count, score)])
        for count, score in ((80, 0.75), (90, 0.75), (80, 0.25))
    )

    assert ImageChops.difference(long, longer).getbbox() is None
    assert ImageChops.difference(long, surer).getbbox()[0] > long.width // 2
