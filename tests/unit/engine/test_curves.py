from __future__ import annotations

import io
import math

from PIL import Image

from workers.engine.curves import draw, panels

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
