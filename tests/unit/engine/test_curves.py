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


def test_a_curve_without_a_number_is_drawn_beside_the_lowest() -> None:
    broken = [(0.0, math.nan), (10.0, math.inf)]

    assert panels({"eval/ap": SHARE, "eval/broken": broken, "eval/nothing": [(0.0, 0.0)]}) == [
        ["eval/ap"],
        ["eval/broken", "eval/nothing"],
    ]


def test_the_picture_is_as_wide_as_its_panels() -> None:
    one, two = (
        Image.open(io.BytesIO(draw(curves)))
        for curves in ({"train/loss": LOSS}, {"train/loss": LOSS, "eval/ap": SHARE})
    )

    assert two.size == (2 * one.width, one.height)
