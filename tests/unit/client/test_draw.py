"""Drawn predictions, judged by the pixels a person sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image, ImageChops

from services.client.draw import PALETTE, draw_detections, draw_file, drawing_path

GREY = (128, 128, 128)


def picture(side: int = 400) -> Image.Image:
    return Image.new("RGB", (side, side), GREY)


def prediction(*boxes: list[float], ids: list[int] | None = None, scores: list[float] | None = None) -> dict[str, Any]:
    ids = ids or [1] * len(boxes)
    return {
        "boxes": list(boxes),
        "labels": [f"digit {each}" for each in ids],
        "label_ids": ids,
        "scores": scores or [0.9] * len(boxes),
        "image_size": [400, 400],
    }


def test_a_box_is_outlined_where_it_is_and_nothing_else_changes() -> None:
    drawn = draw_detections(picture(), prediction([100, 150, 300, 350]))

    for edge in [(100, 250), (300, 250), (200, 350), (250, 150)]:
        assert drawn.getpixel(edge) == PALETTE[0]
    assert drawn.getpixel((200, 250)) == GREY
    assert drawn.getpixel((50, 380)) == GREY


def test_a_small_picture_is_enlarged_with_its_boxes() -> None:
    drawn = draw_detections(picture(side=40), prediction([10, 20, 30, 36]))

    assert drawn.size == (320, 320)
    assert drawn.getpixel((80, 240)) == PALETTE[0]


def test_a_long_and_low_picture_is_enlarged_no_further_than_a_screen() -> None:
    strip = Image.new("RGB", (1000, 10), GREY)

    assert draw_detections(strip, prediction()).size == (1000, 10)
    assert draw_detections(strip.crop((0, 0, 400, 10)), prediction()).size == (1600, 40)


def test_classes_have_their_own_colours() -> None:
    drawn = draw_detections(picture(), prediction([20, 50, 120, 150], [220, 250, 320, 350], ids=[1, 3]))

    assert drawn.getpixel((20, 100)) == PALETTE[0]
    assert drawn.getpixel((220, 300)) == PALETTE[2]


def test_the_surest_of_two_equal_boxes_is_on_top() -> None:
    drawn = draw_detections(
        picture(), prediction([50, 50, 200, 200], [50, 50, 200, 200], ids=[2, 4], scores=[0.9, 0.3])
    )

    assert drawn.getpixel((50, 120)) == PALETTE[1]


def test_the_label_is_written_in_ink_that_stands_out() -> None:
    drawn = draw_detections(picture(), prediction([100, 150, 300, 350]))

    label = drawn.crop((100, 130, 180, 149))
    colours = {pixel for _, pixel in label.getcolors(maxcolors=10_000) or []}
    assert PALETTE[0] in colours
    assert min(sum(colour) for colour in colours if isinstance(colour, tuple)) < 100


def test_boxes_over_the_edge_and_at_the_top_stay_in_the_picture() -> None:
    drawn = draw_detections(picture(), prediction([-20, -20, 500, 60], [380, 0, 500, 30]))

    assert drawn.size == (400, 400)
    assert drawn.getpixel((200, 60)) == PALETTE[0]


def test_no_box_leaves_the_picture_as_it_is() -> None:
    drawn = draw_detections(picture(), {"boxes": [], "labels": [], "scores": []})

    assert ImageChops.difference(drawn, picture()).getbbox() is None


def test_a_drawn_file_can_be_opened(tmp_path: Path) -> None:
    picture().save(tmp_path / "in.png")

    draw_file(tmp_path / "in.png", prediction([10, 40, 90, 90]), tmp_path / "out.png")

    with Image.open(tmp_path / "out.png") as drawn:
        assert drawn.getpixel((10, 60)) == PALETTE[0]


def test_drawings_go_where_the_target_says(tmp_path: Path) -> None:
    file, folder = tmp_path / "one.png", tmp_path / "many"

    assert drawing_path(file, 1, 1, stem="cat") == file
    assert drawing_path(file, 2, 2, stem="cat") == tmp_path / "one-2.png"
    assert not folder.exists()
    assert drawing_path(folder, 2, 2, stem="cat") == folder / "002-cat.png"
    assert drawing_path(folder, 1, 1, stem="cat") == folder / "001-cat.png"
    assert drawing_path(tmp_path / "of.v2", 1, 2, stem="cat") == tmp_path / "of.v2" / "001-cat.png"


def test_a_long_name_leaves_room_for_its_score() -> None:
    long, longer, surer = (
        draw_detections(picture(), {"boxes": [[100, 150, 300, 350]], "labels": ["w" * count], "scores": [score]})
        for count, score in ((80, 0.9), (90, 0.9), (80, 0.8))
    )

    assert ImageChops.difference(long, longer).getbbox() is None
    assert (ImageChops.difference(long, surer).getbbox() or (0,))[0] > 300


def test_a_name_is_drawn_whatever_its_script() -> None:
    one, other = (
        draw_detections(picture(), {"boxes": [[100, 150, 300, 350]], "labels": [label], "scores": [0.9]})
        for label in ("\u0434\u043e\u043c", "\u0441\u043e\u043d")
    )

    assert ImageChops.difference(one, other).getbbox() is not None
