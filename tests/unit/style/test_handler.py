"""What a served transform network is asked and answers, and a finished picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.builders.pictures import UNREADABLE, encoded, pixels
from workers.families.answers import decoded
from workers.families.base import Instance, InstanceInvalid, ServingSpec
from workers.families.style.finished import FinishedHandler, FinishedPictures
from workers.families.style.handler import StyleHandler

SPEC = ServingSpec((3, 64, 64), {"max_side": 128, "stride": 4})
PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8))


def negative(images: Tensor) -> Tensor:
    """Stands for a network: what it sees, the other way round."""
    assert images.shape[-2] % 4 == images.shape[-1] % 4 == 0
    assert min(images.shape[-2:]) >= 16
    return -images


def ask(image: Image.Image | bytes, **params: Any) -> dict[str, Any]:
    body = image if isinstance(image, bytes) else encoded(image)
    (answer,) = StyleHandler(SPEC).predict([Instance(body, {}, params)], negative)
    assert not isinstance(answer, InstanceInvalid), answer
    return dict(answer)


def refused(image: Image.Image, **params: Any) -> str:
    (answer,) = StyleHandler(SPEC).predict([Instance(encoded(image), {}, params)], negative)
    assert isinstance(answer, InstanceInvalid)
    return str(answer)


@pytest.mark.parametrize("size", [(1, 1), (3, 90), (64, 64), (50, 70), (127, 128), (128, 5)])
def test_a_picture_is_answered_at_its_own_size(size: tuple[int, int]) -> None:
    answer = ask(PHOTO.resize(size))

    assert answer["size"] == answer["sent_size"] == [size[1], size[0]]
    assert decoded(answer["image"]).shape == (size[1], size[0], 3)


def test_a_picture_above_the_limit_is_answered_at_the_limit() -> None:
    answer = ask(PHOTO.resize((500, 250)))

    assert answer["size"] == [64, 128]
    assert answer["sent_size"] == [250, 500]


def test_the_longer_side_may_be_asked_for() -> None:
    assert ask(PHOTO, size=35)["size"] == [25, 35]
    assert ask(PHOTO, size=128)["size"] == [91, 128]


def test_strength_goes_from_the_sent_picture_to_the_painted_one() -> None:
    sent, painted = np.asarray(PHOTO), decoded(ask(PHOTO)["image"])

    assert np.array_equal(decoded(ask(PHOTO, strength=0)["image"]), sent)
    half = decoded(ask(PHOTO, strength=0.5)["image"]).astype(float)
    assert np.abs(half - (sent.astype(float) + painted) / 2).max() <= 1


def test_kept_colours_are_those_of_the_sent_picture_and_lightness_is_the_painted_one_s() -> None:
    sent, painted = (
        Image.new("RGB", (32, 32), (150, 110, 100)),
        decoded(ask(Image.new("RGB", (32, 32), (150, 110, 100)))["image"]),
    )

    kept = Image.fromarray(decoded(ask(sent, keep_colours=True)["image"])).convert("YCbCr")

    original, other = sent.convert("YCbCr").getpixel((9, 9)), Image.fromarray(painted).convert("YCbCr").getpixel((9, 9))
    found = kept.getpixel((9, 9))
    assert np.abs(np.subtract(found[1:], original[1:])).max() <= 2
    assert abs(found[0] - other[0]) <= 2


@pytest.mark.parametrize(
    ("params", "said"),
    [
        pytest.param({"strength": 2}, "strength must be a number from 0 to 1", id="too strong"),
        pytest.param({"strength": "much"}, "strength must be a number from 0 to 1", id="a word"),
        pytest.param({"size": 0}, "size must be a whole number from 1 to 128", id="no size"),
        pytest.param({"size": 129}, "size must be a whole number from 1 to 128", id="over the limit"),
        pytest.param({"size": True}, "size must be a whole number", id="a size that is none"),
        pytest.param({"keep_colours": 1}, "keep_colours must be true or false", id="a number for yes"),
        pytest.param({"style": "monet"}, "known are keep_colours, size, strength", id="unknown"),
    ],
)
def test_wrong_parameters_are_refused_by_name(params: dict[str, Any], said: str) -> None:
    assert said in refused(PHOTO, **params)


def test_what_is_no_picture_is_refused_and_spoils_no_other() -> None:
    handler = StyleHandler(SPEC)
    bodies = [*UNREADABLE.values(), encoded(PHOTO)]

    *bad, good = handler.predict([Instance(body, {}, {}) for body in bodies], negative)

    assert all(isinstance(one, InstanceInvalid) for one in bad)
    assert good == ask(PHOTO)


def test_a_picture_gives_the_same_bytes_whatever_is_sent_beside_it() -> None:
    others = [Instance(encoded(Image.fromarray(pixels(*size))), {}, {}) for size in ((20, 90), (64, 64))]

    (_, found, _) = StyleHandler(SPEC).predict([others[0], Instance(encoded(PHOTO), {}, {}), others[1]], negative)

    assert found == ask(PHOTO)


def test_what_an_answer_will_draw_is_told_before_it_is_drawn() -> None:
    handler = StyleHandler(SPEC)

    weights = [
        handler.weigh(Instance(encoded(PHOTO.resize((500, 250))), {}, params))
        for params in ({}, {"size": 64}, {"size": -1})
    ]

    assert weights == [64 * 128, 32 * 64, 0]
    assert handler.weigh(Instance(b"", {}, {})) == 0


def test_a_finished_picture_is_answered_to_an_empty_request_to_the_bit() -> None:
    picture = torch.randint(0, 256, (3, 9, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    network = FinishedPictures([(9, 7)])
    network.load_state_dict({"picture_0": picture})
    handler = FinishedHandler(ServingSpec((1,), {"sizes": [[9, 7]]}))

    (answer,) = handler.predict([Instance(None, {}, {})], network.to(torch.bfloat16))

    assert not isinstance(answer, InstanceInvalid)
    assert np.array_equal(decoded(answer["images"][0]), picture.permute(1, 2, 0).numpy())
    assert answer["sizes"] == [[9, 7]]
    assert handler.compare(answer, answer).passed


@pytest.mark.parametrize(
    "instance",
    [
        pytest.param(Instance(encoded(), {}, {}), id="a picture"),
        pytest.param(Instance(None, {"image": {"b64": "*"}}, {}), id="a field"),
        pytest.param(Instance(None, {}, {"size": 3}), id="a parameter"),
    ],
)
def test_a_finished_picture_says_that_it_is_no_network(instance: Instance) -> None:
    handler = FinishedHandler(ServingSpec((1,), {"sizes": [[9, 7]]}))

    (answer,) = handler.predict([instance], FinishedPictures([(9, 7)]))

    assert isinstance(answer, InstanceInvalid)
    assert "a finished picture, not a network" in str(answer)
