from __future__ import annotations

import base64
import io
import json
import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from tests.builders.pictures import UNREADABLE
from tests.integration.conformance.small import CPU
from tests.unit.representation.conftest import Yard, picture, serve_mae
from workers.families.base import Instance, InstanceInvalid
from workers.families.representation.mae_handler import PICTURES, make_golden
from workers.families.representation.patches import moments, to_images, to_patches

GREY = 128


def pixels(encoded: dict[str, str]) -> np.ndarray[Any, Any]:
    with Image.open(io.BytesIO(base64.b64decode(encoded["b64"]))) as opened:
        return np.array(opened)


def over_pixels(mask: list[list[int]]) -> np.ndarray[Any, Any]:
    return np.kron(np.array(mask), np.ones((2, 2), int)).astype(bool)


def test_a_picture_is_shown_masked_found_and_pasted(mae: Yard) -> None:
    answer = mae.one(picture())
    masked, found, pasted = (pixels(answer[name]) for name in PICTURES)
    hidden = over_pixels(answer["mask"])
    whole = pixels(mae.one(picture(), mask_ratio=0)["masked"])

    assert masked.shape == found.shape == pasted.shape == (8, 12, 3)
    assert np.array(answer["mask"]).shape == (4, 6)
    assert np.array(answer["mask"]).sum() == 18
    assert (masked[hidden] == GREY).all()
    assert (masked[~hidden] == whole[~hidden]).all()
    assert (pasted[hidden] == found[hidden]).all()
    assert (pasted[~hidden] == whole[~hidden]).all()


def test_the_same_seed_hides_the_same_patches_and_another_hides_others(mae: Yard) -> None:
    one, same, other = mae.one(picture(), seed=3), mae.one(picture(), seed=3), mae.one(picture(), seed=4)

    assert one == same
    assert one["mask"] != other["mask"]
    assert mae.one(picture(), mask=one["mask"]) == one


def test_the_ratio_says_how_much_is_hidden_and_something_is_always_seen(mae: Yard) -> None:
    counts = [np.array(mae.one(picture(), mask_ratio=ratio)["mask"]).sum() for ratio in (0, 0.5, 0.75, 0.999)]

    assert counts == [0, 12, 18, 23]


def test_normalised_patches_get_the_moments_of_the_image() -> None:
    def right(planes: Tensor) -> tuple[Tensor, Tensor]:
        patches = to_patches(planes[:, :3], 2)
        mean, deviation = moments(patches)
        return to_images((patches - mean) / deviation, 2, (8, 12)), torch.zeros(1, 4)

    (answer,) = serve_mae(norm_pix=True).handler.predict([Instance(picture(), {"mask_ratio": 0}, {})], right)

    assert not isinstance(answer, InstanceInvalid)
    difference = pixels(answer["reconstruction"]).astype(int) - pixels(answer["masked"])
    assert np.abs(difference).max() <= 1


def test_an_embedding_tells_images_apart_and_takes_no_mask(mae: Yard) -> None:
    one, other = (mae.one(picture(seed), op="embed") for seed in (1, 2))

    assert one["dim"] == len(one["embedding"]) == 64
    assert one["embedding"] != other["embedding"]
    assert "unknown parameter 'seed'" in mae.refusal(picture(), op="embed", seed=1)


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        pytest.param({"op": "paint"}, "op must be reconstruct or embed, not 'paint'", id="op"),
        pytest.param({"op": {}}, "op must be reconstruct or embed", id="op of a strange type"),
        pytest.param({"colour": 1}, "unknown parameter 'colour'", id="unknown"),
        pytest.param({"mask_ratio": 1}, "mask_ratio must be a number from 0 to less than 1", id="all hidden"),
        pytest.param({"mask_ratio": True}, "mask_ratio must be", id="ratio of a strange type"),
        pytest.param({"mask_ratio": float("nan")}, "mask_ratio must be", id="ratio of no number"),
        pytest.param({"seed": -1}, "seed must be a whole number", id="seed"),
        pytest.param({"mask": [[1] * 6] * 4}, "mask hides every patch", id="mask of all"),
        pytest.param({"mask": [[1] * 5] * 4}, "mask must be 4 rows of 6 numbers", id="mask of another size"),
        pytest.param({"mask": "101"}, "mask must be 4 rows", id="mask of a strange type"),
        pytest.param({"mask": [[0.5] * 6] * 4}, "mask must be 4 rows", id="mask of other numbers"),
        pytest.param({"mask": [[0] * 6] * 4, "seed": 1}, "give mask, or mask_ratio and seed", id="both"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_its_reason(mae: Yard, wish: dict[str, Any], message: str) -> None:
    assert re.search(message, mae.refusal(picture(), **wish))


def test_a_bad_instance_spoils_no_other(mae: Yard) -> None:
    bad = [Instance(body, {}, {}) for body in UNREADABLE.values()] + [Instance(None, {}, {})]
    good = Instance(picture(), {}, {})

    first, *middle, last = mae.ask(good, *bad, good)

    assert first == last == mae.one(picture())
    assert all(isinstance(one, InstanceInvalid) for one in middle)


def test_golden_requests_ask_for_both_and_are_answered_alike(mae: Yard) -> None:
    images = [picture(seed) for seed in range(4)]

    golden = make_golden(mae.network, mae.handler.spec, images, placement=CPU)

    assert ["embedding" in answer for answer in golden.answers] == [False, False, True, False]
    assert golden.inputs[0] == images[0]
    assert mae.handler.compare(golden.answers[0], mae.one(images[0])).passed
    assert mae.handler.compare(golden.answers[2], mae.one(images[2], op="embed")).passed


def test_the_gate_sees_other_pictures_masks_and_embeddings(mae: Yard) -> None:
    ours, theirs = mae.one(picture(1)), mae.one(picture(2))
    embedded, other = (mae.one(picture(seed), op="embed") for seed in (1, 2))

    assert not mae.handler.compare(ours, theirs).passed
    assert not mae.handler.compare(ours, {**ours, "mask": []}).passed
    assert not mae.handler.compare(embedded, other).passed
    assert not mae.handler.compare(embedded, {"embedding": []}).passed


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.text(max_size=4), inner)
)


@settings(max_examples=100, deadline=None)
@given(wish=st.dictionaries(st.sampled_from(["op", "mask", "mask_ratio", "seed", "image", "x"]), _VALUES, max_size=3))
def test_whatever_is_asked_is_answered_or_refused(wish: dict[str, Any]) -> None:
    (answer,) = _YARD.ask(Instance(picture(), wish, {}))

    assert isinstance(answer, InstanceInvalid) or json.dumps(answer, allow_nan=False)


_YARD = serve_mae()
