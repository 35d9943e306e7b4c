from __future__ import annotations

import io
import itertools
import math

import pytest
from PIL import Image

from workers.engine.curves import draw, figure, panels

LOSS = [(0.0, 2.0), (10.0, 0.5)]
SHARE = [(0.0, 0.1), (10.0, 0.9)]
FID = [(0.0, 400.0), (10.0, 30.0)]


def test_each_prefix_has_a_panel() -> None:
    assert panels({"train/loss": LOSS, "eval/ap": SHARE, "eval/ar": SHARE}) == [["eval/ap", "eval/ar"], ["train/loss"]]


def test_a_distance_of_hundreds_does_not_press_shares_flat() -> None:
    curves = {"eval/coverage": SHARE, "eval/fid": FID, "eval/precision": SHARE, "train/loss": LOSS}

    assert panels(curves) == [["eval/fid"], ["eval/coverage", "eval/precision"], ["train/loss"]]


def test_a_count_and_a_short_distance_do_not_press_shares_flat() -> None:
    counted, near = [(0.0, 1.0), (10.0, 3.0)], [(0.0, 4.5), (10.0, 1.25)]
    shares = {"eval/precision": SHARE, "eval/ratio": [(0.0, 1.9)], "eval/right": [(0.0, 1.0)]}
    curves = {"eval/classes": counted, "eval/fid": near, **shares}

    assert panels(curves) == [["eval/classes"], ["eval/fid"], ["eval/ratio", "eval/right", "eval/precision"]]


@pytest.mark.parametrize(
    ("name", "curve", "is_drawn"),
    [
        pytest.param("eval/classes", [(0.0, 10.0), (10.0, 10.0)], False, id="a count that never changes"),
        pytest.param("eval/units@Smiling", [(10.0, 12.0)], False, id="a count of one evaluation"),
        pytest.param("eval/classes", [(0.0, 9.0), (10.0, 10.0)], True, id="a count that changes"),
        pytest.param("eval/accuracy", [(0.0, 1.0), (10.0, 1.0)], True, id="all is right, time and again"),
        pytest.param("eval/fid", [(0.0, 41.5), (10.0, 41.5)], True, id="a distance that stands still"),
        pytest.param("train/loss", [(0.0, 3.0), (10.0, 3.0)], True, id="a loss that stands still"),
    ],
)
def test_a_count_that_never_changes_is_not_drawn(name: str, curve: list[tuple[float, float]], is_drawn: bool) -> None:
    assert panels({name: curve, "z/loss": LOSS}) == [*([[name]] if is_drawn else []), ["z/loss"]]


def test_figures_of_a_single_evaluation_are_printed_beside_their_names() -> None:
    once = {"eval/accuracy": [(300.0, 0.9531)], "eval/top5": [(300.0, 0.25)]}

    axes, _ = figure({**once, "train/loss": LOSS}).axes

    assert [label.get_text() for label in axes.get_yticklabels()] == ["eval/accuracy", "eval/top5"]
    assert [text.get_text().strip() for text in axes.texts] == ["0.9531", "0.25"]
    assert axes.get_xlabel() == "value at step 300"
    assert axes.get_xlim()[0] <= 0 < 0.9531 < axes.get_xlim()[1]


def test_figures_of_many_classes_do_not_run_into_one_another() -> None:
    (axes,) = figure({f"eval/iou@{number:02d}": [(10.0, 0.5)] for number in range(40)}).axes

    axes.figure.canvas.draw()
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert len(boxes) == 40
    assert all(upper.y0 >= lower.y1 - 1 for upper, lower in itertools.pairwise(boxes))


def test_a_figure_without_a_number_leaves_the_others_readable() -> None:
    (axes,) = figure({"eval/broken": [(5.0, math.nan)], "eval/nothing": [(10.0, 0.0)]}).axes

    assert [text.get_text().strip() for text in axes.texts] == ["nan", "0"]
    assert axes.get_xlabel() == "value at steps 5 to 10"


def test_a_single_point_beside_curves_is_printed_where_it_stands() -> None:
    (axes,) = figure({"eval/ap": SHARE, "eval/late": [(10.0, 0.625)]}).axes

    assert [(text.get_text().strip(), text.xy) for text in axes.texts] == [("0.625", (10.0, 0.625))]  # type: ignore[attr-defined]
    assert axes.get_xlabel() == "step"


def test_a_curve_is_called_what_its_recipe_says() -> None:
    curves = {"train/loss": LOSS, "train/loss_generator": LOSS, "eval/ap": SHARE[:1]}

    once, lines = figure(curves, label=lambda name: f"{name} of it").axes

    assert lines.get_legend_handles_labels()[1] == ["train/loss of it", "train/loss_generator of it"]
    assert [text.get_text() for text in once.get_yticklabels()] == ["eval/ap of it"]


def test_the_parts_of_a_loss_stay_beside_it() -> None:
    assert panels({"train/loss": LOSS, "train/loss_boxes": SHARE}) == [["train/loss", "train/loss_boxes"]]


def test_a_curve_without_a_number_is_drawn_beside_the_lowest() -> None:
    broken = [(0.0, math.nan), (10.0, math.inf)]

    assert panels({"eval/ap": SHARE, "eval/broken": broken, "eval/nothing": [(0.0, 0.0)]}) == [
        ["eval/ap"],
        ["eval/broken", "eval/nothing"],
    ]


def test_the_picture_is_as_wide_as_its_panels_up_to_three() -> None:
    one, two, four = (
        Image.open(io.BytesIO(draw({f"{prefix}/loss": LOSS for prefix in prefixes})))
        for prefixes in ("a", "ab", "abcd")
    )

    assert two.size == (2 * one.width, one.height)
    assert four.size == (3 * one.width, 2 * one.height)
