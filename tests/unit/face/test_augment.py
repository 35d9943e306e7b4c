from __future__ import annotations

import torch
from torch import Tensor

from workers.families.face.augment import draw, render
from workers.families.face.config import Augment
from workers.families.images import normalise

STILL = Augment(flip=0.0, turn_degrees=0.0, brightness=1.0, erasing=0.0)
IMAGES = torch.randint(20, 200, (4, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def changed(drawn: Tensor | None = None, **config: float) -> Tensor:
    drawn = torch.full((4, 8), 0.5) if drawn is None else drawn
    return render(IMAGES, drawn, STILL.model_copy(update=config))


def test_without_changes_the_images_are_only_normalised() -> None:
    torch.testing.assert_close(changed(), normalise(IMAGES))


def test_a_mirror_image_is_one() -> None:
    torch.testing.assert_close(changed(flip=1.0), normalise(IMAGES).flip(3), atol=1e-4, rtol=0)


def test_a_turn_about_the_middle_is_the_drawn_one() -> None:
    right, left = torch.full((4, 8), 0.5), torch.full((4, 8), 0.5)
    right[:, 1], left[:, 1] = 1.0, 0.0

    # The limit of the config is for people; a quarter turn can be checked without interpolation.
    turned = changed(right, turn_degrees=90.0)

    torch.testing.assert_close(turned, normalise(IMAGES).rot90(1, (2, 3)), atol=1e-4, rtol=0)
    torch.testing.assert_close(changed(left, turn_degrees=90.0), normalise(IMAGES).rot90(-1, (2, 3)), atol=1e-4, rtol=0)


def test_brightness_scales_what_the_camera_saw() -> None:
    bright = torch.full((4, 8), 0.5)
    bright[:, 2] = 1.0

    found = changed(bright, brightness=1.25)

    torch.testing.assert_close(found, normalise((IMAGES * 1.25).clamp(max=255)))


def test_a_blanked_rectangle_lies_inside_and_is_of_a_mask_s_size() -> None:
    drawn = torch.rand((4, 8), generator=torch.Generator().manual_seed(1))

    is_blank = (changed(drawn, erasing=1.0) == 0).all(1)

    for mask in is_blank:
        rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
        assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert 0.2 * 16 - 1 <= len(rows) <= 0.5 * 16 + 1
        assert 0.2 * 16 - 1 <= len(columns) <= 0.5 * 16 + 1


def test_every_image_has_its_own_changes_and_the_generator_alone_decides() -> None:
    first, again = (draw(4, torch.Generator().manual_seed(3)) for _ in range(2))

    assert torch.equal(first, again)
    assert len({tuple(row) for row in first.tolist()}) == 4
    whole = render(IMAGES, first, Augment())
    torch.testing.assert_close(render(IMAGES[1:3], first[1:3], Augment()), whole[1:3])
