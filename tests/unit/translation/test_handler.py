"""What serving makes of pictures: sizes, directions, codes, and requests that cannot be answered."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.builders.pictures import READABLE, UNREADABLE, encoded
from workers.families.answers import decoded
from workers.families.base import Instance, InstanceInvalid, ServingSpec
from workers.families.translation.handler import PairedHandler, TranslationHandler, TwoWayHandler, within
from workers.families.translation.many_handler import ManyHandler

SIDE, CODE = 32, 3
PAIRED = PairedHandler(ServingSpec((3, SIDE, SIDE), {}))
TWO_WAY = TwoWayHandler(ServingSpec((4, SIDE, SIDE), {"classes": ["horse", "zebra"]}))
MANY = ManyHandler(ServingSpec((7 + CODE, SIDE, SIDE), {"latent_size": CODE, "has_encoder": True}))
ONE_WAY = ManyHandler(ServingSpec((7 + CODE, SIDE, SIDE), {"latent_size": CODE, "has_encoder": False}))


def negative(rows: Tensor) -> Tensor:
    return -rows[:, :3]


def either(rows: Tensor) -> Tensor:
    """Darken from A to B, lighten on the way back."""
    return rows[:, :3] - 0.5 + rows[:, 3:4]


def coloured(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Draw the first three numbers of the code, or the mean colour of the style, as a plain picture."""
    takes_style = rows[:, 6, 0, 0] > 0.5
    z = torch.where(takes_style[:, None], rows[:, 3:6].mean((2, 3)), rows[:, 7:, 0, 0])
    return z.clamp(-1, 1)[:, :, None, None].expand(-1, -1, SIDE, SIDE), z


def photo(width: int = 64, height: int = 48) -> bytes:
    """Return a photo that is red on the left and blue on the right."""
    picture = Image.new("RGB", (width, height), "red")
    picture.paste("blue", (width // 2, 0, width, height))
    return encoded(picture)


def asked(handler: TranslationHandler, network: Any, data: bytes | None = None, **params: Any) -> Mapping[str, Any]:
    (answer,) = handler.predict([Instance(photo() if data is None else data, {}, params)], network)
    if isinstance(answer, InstanceInvalid):
        raise answer
    return answer


def test_an_answer_lies_over_the_photo_that_was_sent() -> None:
    answer = asked(PAIRED, negative, photo(640, 480))

    pixels = decoded(answer["image"])
    assert pixels.shape == (480, 640, 3)
    assert (answer["size"], answer["sent_size"], answer["network_size"]) == ([480, 640], [480, 640], [SIDE, SIDE])
    # Negatives of red and of blue, each on its half.
    assert pixels[240, 100].tolist() == [0, 255, 255]
    assert pixels[240, 540].tolist() == [255, 255, 0]


def test_the_network_s_own_square_can_be_asked_for() -> None:
    answer = asked(PAIRED, negative, photo(640, 480), size="network")

    assert decoded(answer["image"]).shape == (SIDE, SIDE, 3)
    assert answer["size"] == [SIDE, SIDE]
    assert answer["sent_size"] == [480, 640]


def test_a_picture_of_many_pixels_is_answered_in_a_million_of_its_shape() -> None:
    answer = asked(PAIRED, negative, photo(4000, 1000))

    height, width = answer["size"]
    assert height * width <= 2**20
    assert height * width > 0.99 * 2**20
    assert width / height == pytest.approx(4, rel=0.01)
    assert decoded(answer["image"]).shape == (height, width, 3)


@pytest.mark.parametrize(
    ("size", "most", "expected"),
    [
        pytest.param((3, 5), 15, (3, 5), id="small enough"),
        pytest.param((1, 100), 10, (1, 10), id="a strip keeps a pixel"),
        pytest.param((100, 100), 2500, (50, 50), id="half of both sides"),
    ],
)
def test_a_size_is_kept_within_its_pixels(size: tuple[int, int], most: int, expected: tuple[int, int]) -> None:
    assert within(size, most) == expected


@pytest.mark.parametrize("kind", READABLE)
def test_unusual_pictures_are_answered_upright_and_in_their_size(kind: str) -> None:
    assert asked(PAIRED, negative, READABLE[kind])["size"] == [64, 64]


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_picture_that_cannot_be_read_is_refused_and_spoils_no_other(kind: str) -> None:
    instances = [Instance(data, {}, {}) for data in (photo(), UNREADABLE[kind], photo())]

    first, bad, last = PAIRED.predict(instances, negative)

    assert isinstance(bad, InstanceInvalid)
    assert "; send" in str(bad) or "not a JPEG" in str(bad)
    assert first == last == asked(PAIRED, negative)


def test_either_way_is_asked_for_by_its_direction_and_told_by_the_domains_names() -> None:
    there, back = (asked(TWO_WAY, either, direction=way) for way in ("AtoB", "BtoA"))

    assert [(one["from"], one["to"]) for one in (there, back)] == [("horse", "zebra"), ("zebra", "horse")]
    assert asked(TWO_WAY, either) == there
    # Of red the red channel is at the top: darker by a quarter of the range, or no lighter.
    assert decoded(there["image"])[0, 0].tolist() == [191, 0, 0]
    assert decoded(back["image"])[0, 0].tolist() == [255, 64, 64]


def test_there_and_back_again_is_what_was_sent() -> None:
    answer = asked(TWO_WAY, either, back=True)

    assert decoded(answer["back"])[0, 0].tolist() == [255, 0, 0]
    assert "back" not in asked(TWO_WAY, either)


def test_answer_k_is_that_of_its_seed_whatever_is_drawn_beside_it() -> None:
    many, one = asked(MANY, coloured, n=4, seed=2), asked(MANY, coloured, n=1, seed=4)

    assert many["seeds"] == [2, 3, 4, 5]
    assert many["images"][2] == one["images"][0]
    assert many["z"][2] == one["z"][0]
    assert len({image["b64"] for image in many["images"]}) == 4


def test_a_code_that_was_answered_gives_the_same_picture_again() -> None:
    first = asked(MANY, coloured, n=3, seed=7)

    assert asked(MANY, coloured, z=first["z"])["images"] == first["images"]
    assert asked(MANY, coloured, z=first["z"][1])["images"] == [first["images"][1]]


def test_a_style_is_another_picture_s_and_its_code_is_told() -> None:
    style = {"b64": base64.b64encode(encoded(Image.new("RGB", (9, 5), (255, 0, 128)))).decode()}

    answer = asked(MANY, coloured, style_image=style)

    assert answer["z"][0] == pytest.approx([1, -1, 0.004], abs=1e-3)
    assert decoded(answer["images"][0])[0, 0].tolist() == [255, 0, 128]
    assert "seeds" not in answer


def test_fields_of_an_instance_count_over_the_request_s() -> None:
    image = {"b64": base64.b64encode(photo()).decode()}

    (answer,) = MANY.predict([Instance(None, {"image": image, "n": 2}, {"n": 3, "seed": 1})], coloured)

    assert not isinstance(answer, InstanceInvalid)
    assert answer["seeds"] == [1, 2]


@pytest.mark.parametrize(
    ("handler", "params", "reason"),
    [
        (PAIRED, {"direction": "AtoB"}, "unknown parameter 'direction'"),
        (PAIRED, {"size": 640}, "size must be sent or network, not 640"),
        (PAIRED, {"size": ["sent"]}, "size must be"),
        (TWO_WAY, {"direction": "AtoA"}, "direction must be AtoB or BtoA, not 'AtoA'"),
        (TWO_WAY, {"direction": None}, "direction must be"),
        (TWO_WAY, {"back": 1}, "back must be true or false"),
        (MANY, {"n": 0}, "n must be a whole number from 1 to 64"),
        (MANY, {"seed": -1}, "seed must be a whole number from 0"),
        (MANY, {"seed": True}, "seed must be a whole number from 0"),
        (MANY, {"z": [1, 2]}, "z must be a list of 3 numbers from -100 to 100, not a list of 2"),
        (MANY, {"z": [[1, 2, 3], [1, "2", 3]]}, "z\\[1\\] must be a list of 3 numbers"),
        (MANY, {"z": [1, 2, float("nan")]}, "z must be a list of 3 numbers"),
        (MANY, {"z": []}, "z must be a list of 3 numbers"),
        (MANY, {"z": [[0, 0, 0]] * 65}, "z has 65 codes; at most 64"),
        (MANY, {"z": [0, 0, 0], "seed": 1}, "z says which code to use already: leave out seed"),
        (MANY, {"z": [0, 0, 0], "style_image": {}}, "leave out style_image"),
        (MANY, {"style_image": "x"}, "style_image must be"),
        (MANY, {"style_image": {"b64": "*"}}, "style_image.b64 is not valid base64"),
        (MANY, {"style_image": {"b64": "AAAA"}}, "style_image: the bytes are not a JPEG"),
        (ONE_WAY, {"style_image": {"b64": "AAAA"}}, "this model has no encoder"),
    ],
)
def test_what_cannot_be_done_is_refused_by_its_name(
    handler: TranslationHandler, params: dict[str, Any], reason: str
) -> None:
    network = {PAIRED: negative, TWO_WAY: either}.get(handler, coloured)

    with pytest.raises(InstanceInvalid, match=reason):
        asked(handler, network, **params)


def test_values_that_are_not_finite_are_no_picture() -> None:
    with pytest.raises(InstanceInvalid, match="not finite"):
        asked(PAIRED, lambda rows: rows * torch.nan)


def test_pictures_of_many_codes_are_weighed_and_share_the_pixels_of_an_answer() -> None:
    answer = asked(MANY, coloured, photo(1000, 1000), n=8)

    assert MANY.weigh(Instance(photo(), {}, {"n": 8})) == 8 * SIDE**2
    assert MANY.weigh(Instance(photo(), {}, {"n": "many"})) == 0
    assert PAIRED.weigh(Instance(photo(), {}, {})) == 0
    assert 8 * np.prod(answer["size"]) <= 2**21


def test_a_picture_that_moved_is_no_parity() -> None:
    expected, other = asked(PAIRED, negative), asked(PAIRED, lambda rows: rows[:, :3] * -0.8)
    square = asked(PAIRED, negative, size="network")

    assert PAIRED.compare(expected, expected).passed
    assert not PAIRED.compare(expected, other).passed
    assert not PAIRED.compare(expected, square).passed


def test_the_way_back_is_compared_too() -> None:
    expected = asked(TWO_WAY, either, back=True)
    with Image.open(io.BytesIO(base64.b64decode(expected["back"]["b64"]))) as back:
        target = io.BytesIO()
        Image.new("RGB", back.size, "white").save(target, "PNG")
    spoilt = {**expected, "back": {"b64": base64.b64encode(target.getvalue()).decode()}}

    assert not TWO_WAY.compare(expected, spoilt).passed
