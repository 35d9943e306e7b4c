from __future__ import annotations

import io

import pytest
import torch
from PIL import Image, ImageChops

from workers.families.gan.draw import by_class, compared, grid


def opened(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png)).convert("RGB")


@pytest.mark.parametrize(
    ("classes", "count"),
    [
        pytest.param(1, 16, id="one class"),
        pytest.param(3, 50, id="many samples of few classes"),
        pytest.param(10, 50, id="some of each"),
        pytest.param(30, 256, id="more classes than fit abreast"),
        pytest.param(100, 50, id="more classes than samples"),
    ],
)
def test_a_sheet_of_classes_is_no_strip(classes: int, count: int) -> None:
    labels = torch.arange(count) % classes

    page = opened(by_class(torch.zeros(count, 1, 16, 16), labels, [str(n) for n in range(classes)]))

    assert 0.4 < page.height / page.width < 1.2
    assert page.width >= 48


@pytest.mark.parametrize(
    ("classes", "count", "rows"),
    [
        pytest.param(6, 50, 4, id="two classes have one more"),
        pytest.param(3, 50, 5, id="a last row is not full"),
        pytest.param(2, 3, 1, id="one of the least"),
    ],
)
def test_each_class_has_as_many_samples_in_whole_rows(classes: int, count: int, rows: int) -> None:
    page = opened(by_class(torch.full((count, 1, 48, 48), -1.0), torch.arange(count) % classes, [""] * classes))

    blacks = [x for x in range(page.width) if page.getpixel((x, 40)) == (0, 0, 0)]
    full = 18 + 50 * rows - 2
    assert page.height == full
    assert all(page.getpixel((x, full - 24)) == (0, 0, 0) for x in blacks)


def test_samples_stand_under_the_name_of_their_class() -> None:
    # Not in turn: batches of samples begin again with the first class.
    shades = torch.tensor([1.0, 1.0, -1.0, -1.0, 0.0, 0.0])
    images, labels = shades[:, None, None, None].expand(-1, 1, 16, 16), torch.tensor([0, 0, 2, 2, 1, 1])

    page, renamed = (opened(by_class(images, labels, ["cat", name, "dog"])) for name in ("cow", "owl"))

    third = page.width // 3
    assert [page.getpixel((n * third + third // 2, page.height - 24))[0] for n in range(3)] == [255, 128, 0]  # type: ignore[index]
    left, top, right, bottom = ImageChops.difference(page, renamed).getbbox() or (0, 0, 0, 0)
    assert (left >= third, right <= 2 * third, top >= 0, bottom <= 18) == (True, True, True, True)
    assert right > left


def test_rows_that_are_compared_stand_under_their_captions() -> None:
    rows = [torch.full((8, 1, 16, 16), shade) for shade in (1.0, -1.0)]

    page, renamed = (
        opened(compared(dict(zip(("as generated", caption), rows, strict=True))))
        for caption in ("without", "without units")
    )

    half = (page.height + 8) // 2
    assert [page.getpixel((24, y))[0] for y in (half - 20, page.height - 12)] == [255, 0]  # type: ignore[index]
    _, top, _, bottom = ImageChops.difference(page, renamed).getbbox() or (0, 0, 0, 0)
    assert half <= top < bottom <= half + 18


def test_small_samples_are_enlarged_by_a_whole_factor() -> None:
    images = torch.rand(1, 3, 16, 16) * 2 - 1

    page = opened(grid(images, columns=1))

    assert page.size == (48, 48)
    assert page.resize((16, 16), Image.Resampling.NEAREST).resize((48, 48), Image.Resampling.NEAREST) == page


def test_the_same_samples_give_the_same_bytes() -> None:
    images, labels = torch.zeros(6, 3, 16, 16), torch.arange(6) % 2

    assert by_class(images, labels, ["a", "b"]) == by_class(images, labels, ["a", "b"])
