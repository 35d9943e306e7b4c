"""Sheets of samples, judged by the pixels a person sees."""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops

from services.client.draw_samples import draw_answer, draw_beside, sample_rows
from services.client.pictures import NoPicture

LINE, GAP = 18, 6


def encoded(level: int, side: int = 16) -> dict[str, str]:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (level, 0, 0)).save(buffer, "PNG")
    return {"b64": base64.b64encode(buffer.getvalue()).decode()}


def samples(count: int, *, side: int = 16, **facts: Any) -> dict[str, Any]:
    """Return an answer whose pictures grow redder one by one."""
    return {"images": [encoded(number, side) for number in range(count)], **facts}


def drawn(result: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(draw_answer(result))).convert("RGB")


def levels(page: Image.Image, *, cell: int) -> list[list[int | None]]:
    """Return the redness of each cell, row by row; None where there is no picture."""
    width, height = cell + GAP, cell + GAP + LINE
    middles = [
        [page.getpixel((x + cell // 2, y + LINE + cell // 2)) for x in range(0, page.width, width)]
        for y in range(0, page.height, height)
    ]
    return [[None if pixel == (255, 255, 255) else pixel[0] for pixel in row] for row in middles]  # type: ignore[index]


def test_small_samples_are_enlarged_by_a_whole_number_and_their_pixels_stay_sharp() -> None:
    noise = Image.effect_noise((28, 28), 80)
    buffer = io.BytesIO()
    noise.save(buffer, "PNG")

    page = drawn({"images": [{"b64": base64.b64encode(buffer.getvalue()).decode()}]})

    assert page.size == (112, 112)
    expected = noise.convert("RGB").resize((112, 112), Image.Resampling.NEAREST)
    assert ImageChops.difference(page, expected).getbbox() is None


def test_cells_without_a_sample_are_white_as_the_page() -> None:
    page = drawn(samples(7, seeds=list(range(7))))

    assert levels(page, cell=96) == [[0, 1, 2], [3, 4, 5], [6, None, None]]
    assert page.getpixel((page.width - 1, page.height - 1)) == (255, 255, 255)
    assert page.getpixel((96 + GAP // 2, LINE + 48)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("count", "side", "facts"),
    [
        pytest.param(256, 16, {"seeds": list(range(2**31 - 256, 2**31))}, id="as many as an answer holds"),
        pytest.param(256, 28, {"seeds": list(range(256)), "labels": ["Norwegian forest cat"] * 256}, id="long names"),
        pytest.param(100, 32, {"mode": "slerp"}, id="a long walk"),
        pytest.param(16, 128, {"mode": "slerp"}, id="a walk of larger pictures"),
        pytest.param(240, 16, {"seeds": list(range(120)), "alphas": [-1, 1]}, id="many latents moved a little"),
        pytest.param(60, 16, {"alphas": list(range(60))}, id="many steps of a direction"),
    ],
)
def test_a_sheet_stays_within_a_screen(count: int, side: int, facts: dict[str, Any]) -> None:
    page = drawn(samples(count, side=side, **facts))

    assert max(page.size) <= 1600


def test_samples_larger_than_a_screen_keep_their_pixels() -> None:
    page = drawn(samples(4, side=1024))

    # Their captions are as much larger as they are.
    assert page.size == (2 * 1024 + GAP, 2 * (1024 + LINE * 36 // 12) + GAP)


@pytest.mark.parametrize("side", [128, 320, 1024])
def test_a_caption_is_as_legible_on_large_samples_as_on_small_ones(side: int) -> None:
    page, changed = (drawn(samples(2, side=side, seeds=[1, seed])) for seed in (4, 7))

    _, top, _, bottom = ImageChops.difference(page, changed).getbbox() or (0, 0, 0, 0)
    assert (bottom - top) * 45 >= side


@pytest.mark.parametrize(
    ("facts", "other"),
    [
        pytest.param({"seeds": [4, 5]}, {"seeds": [4, 6]}, id="seeds"),
        pytest.param(
            {"seeds": [4, 5], "labels": ["cat", "cow"]}, {"seeds": [4, 5], "labels": ["cat", "owl"]}, id="class"
        ),
        pytest.param({"alphas": [-1, 1.5]}, {"alphas": [-1, 2.5]}, id="how far along a direction"),
    ],
)
def test_what_is_said_of_a_sample_stands_above_it_and_nowhere_else(
    facts: dict[str, Any], other: dict[str, Any]
) -> None:
    page, changed = drawn(samples(2, side=128, **facts)), drawn(samples(2, side=128, **other))

    left, _, _, bottom = ImageChops.difference(page, changed).getbbox() or (0, 0, 0, 0)
    assert left > 128
    assert bottom <= LINE


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        pytest.param(samples(3, seeds=[7, 8, 9]), ["seed 7", "seed 8", "seed 9"], id="seeds"),
        pytest.param(samples(2, seeds=[7, 8], labels=["a", "b"]), ["seed 7, a", "seed 8, b"], id="classes"),
        pytest.param(samples(2), ["sample 1", "sample 2"], id="given latents are told by number"),
        pytest.param(samples(1, labels=["a"]), ["a"], id="one of given latents"),
        pytest.param(samples(1), [""], id="nothing to say"),
        pytest.param(samples(3, mode="slerp"), ["step 1 of 3", "step 2 of 3", "step 3 of 3"], id="walk"),
        pytest.param(
            samples(4, seeds=[7, 8], alphas=[-1, 0.5]),
            ["seed 7, alpha -1", "seed 7, alpha 0.5", "seed 8, alpha -1", "seed 8, alpha 0.5"],
            id="direction",
        ),
        pytest.param(samples(2, alphas=[-1, 1]), ["alpha -1", "alpha 1"], id="direction from one latent"),
        pytest.param(
            samples(4, cut=2, z=[[[0.5], [1]], [[0.5], [2]], [[3], [1]], [[3], [2]]]),
            ["coarse 1, fine 1", "coarse 1, fine 2", "coarse 2, fine 1", "coarse 2, fine 2"],
            id="mix",
        ),
        pytest.param(samples(2, cut=2), ["sample 1", "sample 2"], id="mix whose latents were too long to answer"),
        pytest.param(
            {"after": [encoded(1)], "before": [encoded(0)], "seeds": [7], "labels": ["a"]},
            ["before, seed 7, a", "after, seed 7, a"],
            id="ablation",
        ),
        pytest.param(samples(2, seeds=[7], labels=[1, 2]), ["sample 1", "sample 2"], id="facts of another kind"),
    ],
)
def test_captions(result: dict[str, Any], expected: list[str]) -> None:
    assert [sample.caption for row in sample_rows(result) for sample in row] == expected


def test_a_long_caption_makes_its_cell_wider_up_to_a_limit() -> None:
    short, long, longer = (
        drawn(samples(1, seeds=[0], labels=[label])) for label in ("cat", "Norwegian cat", "Norwegian forest cat" * 5)
    )

    assert short.width == 96
    assert 96 < long.width < longer.width == 160


def test_what_was_changed_stands_below_what_it_was() -> None:
    after, before = ([encoded(level + k) for k in range(3)] for level in (100, 0))

    page = drawn({"after": after, "before": before, "seeds": [1, 2, 3]})

    width = (page.width - 2 * GAP) // 3
    middles = [[page.getpixel((k * (width + GAP) + width // 2, y))[0] for k in range(3)] for y in (66, 186)]  # type: ignore[index]
    assert middles == [[0, 1, 2], [100, 101, 102]]


def test_a_long_row_goes_on_below_with_what_it_is_compared_with() -> None:
    after, before = ([encoded(level + k, 128) for k in range(15)] for level in (100, 0))

    rows = levels(drawn({"after": after, "before": before}), cell=128)

    first, second = range(8), range(8, 15)
    assert rows[:2] == [[*first], [100 + k for k in first]]
    assert rows[2:] == [[*second, None], [*(100 + k for k in second), None]]


def test_a_walk_is_one_row_and_a_direction_a_row_for_each_latent() -> None:
    walk = drawn(samples(8, mode="slerp"))
    moved = drawn(samples(6, side=128, seeds=[1, 2], alphas=[-1, 0, 1]))

    assert levels(walk, cell=96) == [list(range(8))]
    assert levels(moved, cell=128) == [[0, 1, 2], [3, 4, 5]]


def test_a_sheet_of_the_server_gives_way_to_captions() -> None:
    answer = samples(2, seeds=[1, 2])

    assert draw_answer({**answer, "sheet": encoded(9)}) == draw_answer(answer)


@pytest.mark.parametrize("name", ["gradcam", "overlay"])
def test_a_small_picture_alone_is_enlarged_to_be_seen(name: str) -> None:
    page = drawn({"label": "cat", name: encoded(7, side=32)})

    assert page.size == (320, 320)
    assert page.getpixel((319, 0)) == (7, 0, 0)


def test_a_mask_alone_stays_of_the_image_s_size() -> None:
    mask = encoded(4, side=32)

    assert draw_answer({"mask": mask}) == base64.b64decode(mask["b64"])


def test_a_large_picture_that_is_no_sample_stays_as_it_is() -> None:
    overlay = encoded(3, side=320)

    assert draw_answer({"overlay": overlay, "mask": encoded(4)}) == base64.b64decode(overlay["b64"])
    assert draw_answer({"sheet": overlay}) == base64.b64decode(overlay["b64"])


def test_pictures_of_many_fields_are_told_by_their_names() -> None:
    page, renamed = (drawn({"one": encoded(1, 128), name: encoded(2, 128)}) for name in ("two", "three"))

    left, top, right, bottom = ImageChops.difference(page, renamed).getbbox() or (0, 0, 0, 0)
    assert 128 + GAP <= left < right
    assert 0 <= top < bottom <= LINE


def test_single_pictures_are_one_row_in_the_order_in_which_they_come_about() -> None:
    result = {"pasted": encoded(3), "reconstruction": encoded(2), "masked": encoded(1), "mask": [[1, 0], [0, 1]]}

    (row,) = sample_rows(result)

    assert [sample.caption for sample in row] == ["masked", "reconstruction", "pasted"]


def test_an_answer_without_a_picture_cannot_be_drawn() -> None:
    with pytest.raises(NoPicture, match="leave out --draw"):
        draw_answer({"labels": [], "points": [[0.5, math.pi]]})


def test_a_redrawn_picture_stands_beside_the_upright_one_that_was_sent(tmp_path: Path) -> None:
    sent = Image.new("RGB", (64, 96), (0, 0, 255))
    sent.paste((0, 255, 0), (0, 0, 64, 48))
    turned = Image.Exif()
    turned[0x0112] = 6
    # Stored on its side, with the green half on the left.
    sent.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "sent.png", exif=turned)
    buffer = io.BytesIO()
    Image.new("RGB", (64, 96), (200, 0, 0)).save(buffer, "PNG")
    answer = {"image": {"b64": base64.b64encode(buffer.getvalue()).decode()}, "size": [96, 64]}

    page = Image.open(io.BytesIO(draw_beside(tmp_path / "sent.png", answer))).convert("RGB")

    assert page.size == (2 * 64 + GAP, LINE + 96)
    places = {"sent, above": (32, LINE + 20), "sent, below": (32, LINE + 80), "answer": (64 + GAP + 32, LINE + 48)}
    colours = {where: page.getpixel(place) for where, place in places.items()}
    assert colours == {"sent, above": (0, 255, 0), "sent, below": (0, 0, 255), "answer": (200, 0, 0)}


def test_three_large_pictures_stand_in_one_row(tmp_path: Path) -> None:
    Image.new("RGB", (832, 832)).save(tmp_path / "sent.png")

    page = Image.open(
        io.BytesIO(draw_beside(tmp_path / "sent.png", {"back": encoded(90, 832), "image": encoded(40, 832)}))
    )

    assert page.width == 3 * 832 + 2 * GAP
    assert [page.convert("RGB").getpixel((k * (832 + GAP) + 416, page.height // 2))[0] for k in range(3)] == [0, 40, 90]  # type: ignore[index]


def test_there_and_back_stand_in_this_order_whatever_order_they_came_in(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "sent.png")

    page = Image.open(io.BytesIO(draw_beside(tmp_path / "sent.png", {"back": encoded(90), "image": encoded(40)})))

    assert levels(page.convert("RGB"), cell=96) == [[0, 40, 90]]
