from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import color
from torch import Tensor

from tests.builders.coloured_digits import hue, tinted
from workers.families.answers import decoded
from workers.families.base import Instance, InstanceInvalid, Placement, ServingSpec
from workers.families.images import to_tanh
from workers.families.translation import figures
from workers.families.translation.colorize_handler import ColorizeHandler
from workers.families.translation.data import Batch
from workers.families.translation.lab import from_lab, to_lab

CPU = Placement(torch.device("cpu"), None, torch.contiguous_format)
SIDE = 32


def encoded(pixels: np.ndarray[Any, Any]) -> bytes:
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "PNG")
    return target.getvalue()


# --- colours


def test_lightness_and_colour_are_those_of_another_implementation() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    pixels[0, :4] = [[0, 0, 0], [255, 255, 255], [1, 2, 3], [255, 0, 255]]

    light, colour = to_lab(to_tanh(torch.from_numpy(pixels).permute(2, 0, 1)[None]))

    expected = color.rgb2lab(pixels)
    assert np.allclose((light[0, 0].numpy() + 1) * 50, expected[..., 0], atol=0.01)
    assert np.allclose(colour[0].permute(1, 2, 0).numpy() * 110, expected[..., 1:], atol=0.01)


def test_every_picture_comes_back_from_its_lightness_and_colour() -> None:
    images = torch.rand(2, 3, 40, 40) * 2 - 1

    assert (from_lab(*to_lab(images)) - images).abs().max() < 1e-4


def test_colours_that_no_screen_shows_are_cut_to_the_range() -> None:
    images = from_lab(torch.tensor([-1.0, 0.0, 1.0]).reshape(3, 1, 1, 1), torch.full((3, 2, 1, 1), 1.0))

    assert images.isfinite().all()
    assert images.abs().max() <= 1


def test_tinted_digits_are_as_light_in_any_hue_and_have_their_own() -> None:
    grey = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
    made = [to_lab(to_tanh(torch.from_numpy(tinted(grey, digit)).permute(2, 0, 1)[None])) for digit in range(10)]

    lights = torch.cat([light for light, _ in made])
    assert (lights - lights[:1]).abs().max() < 0.02
    for digit, (_, colour) in enumerate(made):
        a, b = colour.mean((0, 2, 3)).tolist()
        assert np.isclose(np.arctan2(b, a) % (2 * np.pi), hue(digit), atol=0.05)


def test_grey_pictures_have_no_colourfulness_and_vivid_ones_much() -> None:
    grey = torch.rand(1, 1, 16, 16).expand(-1, 3, -1, -1)
    vivid = torch.rand(1, 3, 16, 16) * 2 - 1

    assert float(figures.colourfulness(grey)) == pytest.approx(0, abs=1e-6)
    assert float(figures.colourfulness(vivid)) > 0.5


# --- recipe


def test_a_network_sees_lightness_alone(colorize: Any) -> None:
    recipe = colorize()
    image = torch.randint(0, 256, (1, 3, SIDE, SIDE), dtype=torch.uint8)

    batch = recipe.to_device(Batch(image[:, :0], image), CPU)

    light, colour = to_lab(to_tanh(image))
    assert torch.equal(batch.a, light)
    assert torch.equal(batch.b, colour)
    networks = recipe.new_networks()
    assert networks["generator"](batch.a).shape == (1, 2, SIDE, SIDE)
    assert networks["discriminator"](torch.cat([batch.a, batch.b], 1)).ndim == 4


# --- handler


def handler() -> ColorizeHandler:
    return ColorizeHandler(ServingSpec((1, SIDE, SIDE), {}))


def reddish(rows: Tensor) -> Tensor:
    return torch.cat([torch.full_like(rows, 0.3), torch.zeros_like(rows)], 1)


def test_the_answer_is_as_light_as_what_was_sent_pixel_by_pixel() -> None:
    grey = np.random.default_rng(2).integers(90, 180, (45, 70), dtype=np.uint8)

    (answer,) = handler().predict([Instance(encoded(grey), {}, {})], reddish)

    assert not isinstance(answer, InstanceInvalid)
    picture = to_tanh(torch.from_numpy(decoded(answer["image"])).permute(2, 0, 1)[None])
    light, colour = to_lab(picture)
    expected, _ = to_lab(to_tanh(torch.from_numpy(grey)[None, None].expand(-1, 3, -1, -1)))
    assert (light - expected).abs().max() < 0.01
    assert colour.mean((0, 2, 3)).tolist() == pytest.approx([0.3, 0.0], abs=0.01)
    assert (answer["size"], answer["sent_size"], answer["network_size"]) == ([45, 70], [45, 70], [SIDE, SIDE])


def test_colours_that_were_sent_have_no_effect() -> None:
    photo = np.random.default_rng(3).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    seen: list[Tensor] = []

    def look(rows: Tensor) -> Tensor:
        seen.append(rows)
        return reddish(rows)

    handler().predict([Instance(encoded(photo), {}, {})], look)

    assert torch.allclose(seen[0], to_lab(to_tanh(torch.from_numpy(photo).permute(2, 0, 1)[None]))[0])


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (500, 2), (1400, 1400)])
def test_pictures_of_any_shape_are_answered(size: tuple[int, int]) -> None:
    (answer,) = handler().predict([Instance(encoded(np.full(size, 120, dtype=np.uint8)), {}, {})], reddish)

    assert not isinstance(answer, InstanceInvalid)
    assert list(decoded(answer["image"]).shape[:2]) == answer["size"]
    assert answer["size"][0] * answer["size"][1] <= 2**20
