from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageChops

from workers.families.pictures import captioned
from workers.families.records import IGNORED_PIXEL
from workers.families.segmentation.draw import Case, overlay, palette, samples_page

GREY = torch.full((3, 160, 160), 128, dtype=torch.uint8)


def mask_of(*labels: int) -> torch.Tensor:
    """Return a mask of stripes."""
    return torch.tensor(labels, dtype=torch.uint8).repeat_interleave(160 // len(labels)).expand(160, -1).contiguous()


def names(count: int) -> list[str]:
    return [f"class {n}" for n in range(count)]


def plain(image: torch.Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


def page(*labels: int, classes: list[str]) -> Image.Image:
    return samples_page([Case(GREY, mask_of(*labels), mask_of(*labels))], classes)


@pytest.mark.parametrize(
    ("count", "distance"),
    [
        pytest.param(13, 80, id="a few classes differ much"),
        pytest.param(22, 80, id="as many as PASCAL VOC has still do"),
        pytest.param(255, 30, id="of all no two are alike"),
    ],
)
def test_colours_of_classes_differ(count: int, distance: float) -> None:
    colours = palette()[:count].astype(np.float64)

    distances = np.linalg.norm(colours[:, None] - colours[None], axis=-1) + 1000 * np.eye(count)

    assert distances.min() >= distance


def test_an_overlay_is_of_the_image_s_size_and_clear_where_nothing_is() -> None:
    mask = mask_of(0, 1, IGNORED_PIXEL, 2)

    picture = np.asarray(overlay(GREY, mask))

    assert picture.shape == (160, 160, 3)
    assert (picture[:, [0, 90]] == 128).all()
    assert len({tuple(picture[0, x]) for x in (0, 50, 130)}) == 3


def test_a_class_has_the_hue_of_its_legend_whatever_it_lies_on() -> None:
    blue = torch.zeros(3, 160, 160, dtype=torch.uint8)
    blue[2] = 230
    found = overlay(blue, mask_of(0, 1, 2, 3))

    for place in (1, 2, 3):
        shown, legend = (
            np.asarray(colour, np.float64) for colour in (found.getpixel((40 * place + 20, 80)), palette()[place])
        )
        assert np.corrcoef(shown, legend)[0, 1] > 0.999


def test_a_class_is_outlined_in_its_colour() -> None:
    picture = np.asarray(overlay(GREY, mask_of(0, 1, 2, 2)))

    assert (picture[:, [40, 79]] == palette()[1]).all()
    assert (picture[:, 80] == palette()[2]).all()
    # Neither between equals, nor at the border of the picture, nor where no class is.
    assert (picture[:, 119:121] == picture[80, 100]).all()
    assert (picture[:, 159] == picture[80, 100]).all()
    assert (picture[:, 39] == 128).all()


def test_beneath_the_masks_of_the_sheet_the_image_is_grey() -> None:
    red = torch.zeros(3, 160, 160, dtype=torch.uint8)
    red[0] = 200

    sheet = samples_page([Case(red, mask_of(0, 1), mask_of(0, 1))], names(2))

    assert sheet.getpixel((10, 100)) == (200, 0, 0)
    assert len(set(sheet.getpixel((174, 100)))) == 1  # type: ignore[arg-type]


def test_the_sheet_says_which_is_the_image_the_truth_and_what_was_predicted() -> None:
    truth, found = mask_of(0, 1), mask_of(1, 0)

    sheet = samples_page([Case(GREY, truth, found)], names(2))

    pictures = {"image": plain(GREY), "truth": overlay(GREY, truth), "predicted": overlay(GREY, found)}
    wanted = [captioned(picture, word) for word, picture in pictures.items()]
    for picture, left in zip(wanted, (0, 164, 328), strict=True):
        shown = sheet.crop((left, 0, left + picture.width, picture.height))
        assert ImageChops.difference(shown, picture).getbbox() is None


def test_the_legend_names_the_classes_that_appear() -> None:
    plain = page(0, 1, classes=names(3))

    assert plain.tobytes() != page(0, 1, classes=["class 0", "road", "class 2"]).tobytes()
    assert plain.tobytes() == page(0, 1, classes=["class 0", "class 1", "road"]).tobytes()


def test_the_legend_of_many_classes_lists_the_largest() -> None:
    classes = names(40)
    all_alike = page(*range(40), classes=classes).height

    assert all_alike == page(*range(20), classes=classes).height
    assert page(*range(40), classes=[*classes[:39], "road"]).tobytes() == page(*range(40), classes=classes).tobytes()


def test_small_pictures_are_enlarged_and_large_ones_made_smaller() -> None:
    for side in (16, 2000):
        blank = torch.zeros(side, side, dtype=torch.uint8)
        sheet = samples_page([Case(GREY[:, :1, :1].expand(3, side, side), blank, blank)], ["background"])

        assert 480 <= sheet.width <= 968
