from __future__ import annotations

import colorsys

import pytest
import torch

from workers.families import warp
from workers.families.detection import augment
from workers.families.detection.config import Augment
from workers.families.images import MEAN, STD, normalise

SIZE = 64
STILL = Augment(scale=(1, 1), translate=0, flip=0, exposure=1, saturation=1)


def draw(config: Augment, *, count: int = 1, seed: int = 0) -> warp.Draw:
    return warp.draw(count, config, torch.Generator().manual_seed(seed))


def one_colour(red: int, green: int, blue: int) -> torch.Tensor:
    return torch.tensor([red, green, blue], dtype=torch.uint8)[None, :, None, None].expand(1, 3, 8, 8)


def to_rgb(normalised: torch.Tensor) -> torch.Tensor:
    return (normalised * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]) * 255


@pytest.mark.parametrize("seed", range(8))
def test_boxes_stay_on_their_objects(seed: int):
    config = Augment(scale=(0.6, 1.4), aspect=1.5, translate=0.2, flip=0.5, min_visible=0.2)
    x1, y1, x2, y2 = 20, 8, 36, 44
    images = torch.zeros(16, 3, SIZE, SIZE, dtype=torch.uint8)
    images[:, :, y1:y2, x1:x2] = 255
    boxes = torch.tensor([[[x1, y1, x2, y2]]], dtype=torch.float32).expand(16, 1, 4)
    drawn = draw(config, count=16, seed=seed)

    moved, labels = augment.move_boxes(boxes, torch.ones(16, 1, dtype=torch.int64), drawn, size=SIZE, min_visible=0.2)
    rendered = to_rgb(warp.render(images, drawn, STILL.model_copy(update={"translate": 0.1})))

    for image, box, label in zip(rendered, moved[:, 0], labels[:, 0], strict=True):
        if label:
            rows, columns = torch.where(image.amin(0) > 200)
            seen = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            torch.testing.assert_close(seen.float(), box, atol=1.0, rtol=0)


def test_a_box_that_leaves_the_frame_is_dropped():
    drawn = warp.Draw(zoom=torch.ones(1, 2), shift=torch.tensor([[0.5, 0.0]]), colour=torch.ones(1, 2))
    boxes = torch.tensor([[[50.0, 10.0, 60.0, 30.0], [0.0, 10.0, 20.0, 30.0]]])

    moved, labels = augment.move_boxes(boxes, torch.tensor([[3, 2]]), drawn, size=SIZE, min_visible=0.25)

    assert labels.tolist() == [[0, 2]]
    assert moved.tolist() == [[[0.0, 0.0, 0.0, 0.0], [16.0, 10.0, 36.0, 30.0]]]


def test_what_is_cut_is_cut_at_the_frame():
    drawn = warp.Draw(zoom=torch.ones(1, 2), shift=torch.tensor([[0.5, 0.0]]), colour=torch.ones(1, 2))

    moved, labels = augment.move_boxes(
        torch.tensor([[[40.0, 10.0, 60.0, 30.0]]]), torch.tensor([[3]]), drawn, size=SIZE, min_visible=0.25
    )

    assert moved.tolist() == [[[56.0, 10.0, 64.0, 30.0]]]
    assert labels.tolist() == [[3]]


def test_nothing_drawn_changes_nothing():
    images = torch.randint(0, 256, (2, 3, SIZE, SIZE), dtype=torch.uint8)

    torch.testing.assert_close(warp.render(images, draw(STILL, count=2), STILL), normalise(images))


def test_a_zoom_of_one_through_the_sampler_changes_nothing():
    images = torch.randint(0, 256, (2, 3, SIZE, SIZE), dtype=torch.uint8)
    drawn = warp.Draw(zoom=torch.ones(2, 2), shift=torch.zeros(2, 2), colour=torch.ones(2, 2))

    torch.testing.assert_close(warp.render(images, drawn, Augment()), normalise(images), atol=1e-3, rtol=0)


def test_saturation_and_exposure_are_those_of_hsv():
    drawn = warp.Draw(zoom=torch.ones(1, 2), shift=torch.zeros(1, 2), colour=torch.tensor([[1.2, 0.5]]))
    config = STILL.model_copy(update={"exposure": 1.5, "saturation": 1.5})

    changed = to_rgb(warp.render(one_colour(180, 120, 60), drawn, config))

    hue, saturation, value = colorsys.rgb_to_hsv(180 / 255, 120 / 255, 60 / 255)
    expected = colorsys.hsv_to_rgb(hue, saturation * 0.5, value * 1.2)
    torch.testing.assert_close(changed[0, :, 4, 4], 255 * torch.tensor(expected), atol=0.01, rtol=0)


def test_what_comes_in_from_outside_is_nearly_zero():
    drawn = warp.Draw(zoom=torch.ones(1, 2), shift=torch.tensor([[1.0, 0.0]]), colour=torch.ones(1, 2))

    rendered = warp.render(torch.full((1, 3, SIZE, SIZE), 255, dtype=torch.uint8), drawn, Augment())

    assert rendered[..., : SIZE // 2 - 1].abs().max() < 0.01


def test_a_stretch_keeps_the_area():
    drawn = draw(Augment(scale=(1, 1), aspect=1.5, flip=0), count=200)

    ratio = drawn.zoom[:, 0] / drawn.zoom[:, 1]
    torch.testing.assert_close(drawn.zoom.prod(1), torch.ones(200))
    assert 1 / 1.5 - 1e-6 <= ratio.min() < 0.75
    assert 1.4 < ratio.max() <= 1.5 + 1e-6


def test_draws_stay_in_their_ranges():
    config = Augment(scale=(0.8, 1.25), translate=0.2, flip=0.0, exposure=1.5, saturation=1.2)

    drawn = draw(config, count=500)

    assert 0.8 <= drawn.zoom.min() <= drawn.zoom.max() <= 1.25
    assert drawn.shift.abs().max() <= 0.4
    assert drawn.colour[:, 0].max() <= 1.5
    assert drawn.colour[:, 1].min() >= 1 / 1.2 - 1e-6
