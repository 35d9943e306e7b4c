from __future__ import annotations

import io

from PIL import Image

from workers.families.text.draw import Run, page


def opened(passages: list[list[Run]]) -> Image.Image:
    return Image.open(io.BytesIO(page(passages))).convert("RGB")


def test_long_lines_are_broken_and_nothing_leaves_the_page() -> None:
    picture = opened([[Run("given ", "given"), Run("word " * 100 + "w" * 500, "made")]])

    assert 740 < picture.width <= 760
    assert picture.height > 4 * 18
    margin = picture.crop((picture.width - 10, 0, picture.width, picture.height))
    assert margin.getcolors() == [(10 * picture.height, (255, 255, 255))]


def test_a_line_that_ends_is_a_line_of_the_page() -> None:
    one, two = opened([[Run("a b", "made")]]), opened([[Run("a\nb", "made")]])

    assert two.height == one.height + 18


def test_a_passage_without_end_is_cut() -> None:
    assert opened([[Run("a\n" * 1000, "made")]]).height < 300


def test_an_empty_passage_and_odd_letters_are_drawn() -> None:
    assert opened([[Run("", "made")], [Run("\x00\t\u202e\U0001f600 \u00e9", "wrong")]]).height > 30


def test_the_same_texts_give_the_same_bytes() -> None:
    passages = [[Run("one", "right")], [Run("two", "title")]]

    assert page(passages) == page(passages)
