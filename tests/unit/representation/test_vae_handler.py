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

from tests.builders.pictures import UNREADABLE
from tests.unit.representation.conftest import LATENT, Yard, picture, serve_vae
from workers.families.base import Instance, InstanceInvalid
from workers.families.latent import draw
from workers.families.latent_wish import MAX_PICTURES
from workers.families.representation.vae_handler import make_golden


def png(encoded: dict[str, str]) -> bytes:
    return base64.b64decode(encoded["b64"])


def pixels(encoded: dict[str, str]) -> np.ndarray[Any, Any]:
    with Image.open(io.BytesIO(png(encoded))) as opened:
        return np.array(opened)


def b64(image: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(image).decode()}


def test_the_same_seed_gives_the_same_bytes_alone_in_a_batch_and_beside_others(vae: Yard) -> None:
    (alone,) = vae.one(seed=5)["images"]
    row = vae.one(seed=3, n=4)
    _, beside = vae.ask(Instance(None, {"n": 3}, {}), Instance(None, {"seed": 5}, {}))

    assert row["seeds"] == [3, 4, 5, 6]
    assert png(row["images"][2]) == png(alone) == png(beside["images"][0])
    assert len({png(one) for one in row["images"]}) == 4
    assert torch.equal(torch.tensor(row["z"][2]), draw([5], LATENT)[0])


def test_a_picture_alone_is_reconstructed_from_its_mean(vae: Yard) -> None:
    answer = vae.one(picture())
    encoded = vae.one(picture(), op="encode")

    assert pixels(answer["input"]).shape == pixels(answer["reconstruction"]).shape == (8, 12, 3)
    assert answer["z"] == encoded["mu"]
    assert len(encoded["mu"]) == len(encoded["logvar"]) == LATENT
    assert vae.one(op="decode", z=encoded["mu"])["images"] == [answer["reconstruction"]]
    assert vae.one(picture(1), op="encode") != encoded


def test_a_seed_reconstructs_from_a_draw_which_decodes_to_the_same_picture(vae: Yard) -> None:
    plain, drawn = vae.one(picture()), vae.one(picture(), seed=4)
    encoded = vae.one(picture(), op="encode")

    mean, log_variance = torch.tensor(encoded["mu"]), torch.tensor(encoded["logvar"])
    expected = mean + (log_variance / 2).exp() * draw([4], LATENT)[0]
    torch.testing.assert_close(torch.tensor(drawn["z"]), expected)
    assert drawn["reconstruction"] != plain["reconstruction"]
    change = pixels(vae.one(op="decode", z=drawn["z"])["images"][0]).astype(int) - pixels(drawn["reconstruction"])
    assert np.abs(change).max() <= 1


@pytest.mark.parametrize("mode", ["slerp", "lerp"])
def test_a_walk_ends_in_exactly_what_it_goes_between(vae: Yard, mode: str) -> None:
    answer = vae.one(op="walk", **{"from": 1, "to": 2}, steps=5, mode=mode)

    ends = vae.one(seed=1, n=2)["images"]
    assert [answer["images"][0], answer["images"][-1]] == ends
    assert len({png(one) for one in answer["images"]}) == 5
    assert answer["mode"] == mode
    assert pixels(answer["sheet"]).shape == (8, 5 * 12 + 4 * 2, 3)


def test_a_walk_goes_between_two_pictures_reconstructions(vae: Yard) -> None:
    one, other = picture(1), picture(2)

    answer = vae.one(op="walk", **{"from": b64(one), "to": b64(other)}, mode="lerp")

    assert answer["images"][0] == vae.one(one)["reconstruction"]
    assert answer["images"][-1] == vae.one(other)["reconstruction"]


@pytest.mark.parametrize("channels", [(), (4, 8)])
def test_every_operation_answers_for_every_network(channels: tuple[int, ...]) -> None:
    yard = serve_vae(channels)

    assert yard.one(n=2)["images"]
    assert yard.one(picture())["reconstruction"]
    assert yard.one(picture(), op="encode")["mu"]


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        pytest.param({"op": "paint"}, "op must be one of reconstruct, encode, sample, decode, walk", id="op"),
        pytest.param({"op": ["walk"]}, "op must be one of", id="op of a strange type"),
        pytest.param({"colour": 1}, "unknown parameter 'colour'", id="unknown"),
        pytest.param({"op": "encode"}, "no image: send its bytes", id="no image"),
        pytest.param({"image": 3}, "no image: send its bytes", id="image of a strange type"),
        pytest.param({"n": MAX_PICTURES + 1}, f"n must be a whole number from 1 to {MAX_PICTURES}", id="n"),
        pytest.param({"seed": -1}, "seed must be a whole number", id="seed"),
        pytest.param({"op": "decode"}, "z is missing: give a seed", id="no z"),
        pytest.param({"op": "decode", "z": [0.5] * (LATENT - 1)}, f"a list of {LATENT} numbers", id="short z"),
        pytest.param({"op": "decode", "z": [float("nan")] * LATENT}, "z", id="z of no number"),
        pytest.param({"op": "walk", "from": 1}, "to is missing", id="no end"),
        pytest.param({"op": "walk", "from": 1, "to": {"b64": "*"}}, "to: image.b64 is not valid base64", id="end"),
        pytest.param({"op": "walk", "from": 1, "to": 2, "steps": 1}, "steps must be at least 2", id="steps"),
        pytest.param({"op": "walk", "from": [0] * LATENT, "to": 2}, "walk: .*mode lerp", id="zero end"),
        pytest.param({"sheet": 1}, "sheet must be true or false", id="sheet"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_its_reason(vae: Yard, wish: dict[str, Any], message: str) -> None:
    assert re.search(message, vae.refusal(**wish))


def test_operations_on_latents_take_no_image(vae: Yard) -> None:
    assert "sample takes no image" in vae.refusal(picture(), op="sample")


def test_a_bad_instance_spoils_no_other(vae: Yard) -> None:
    bad = [Instance(body, {}, {}) for body in UNREADABLE.values()]
    good = Instance(picture(), {}, {})

    first, *middle, last = vae.ask(good, *bad, good)

    assert first == last == vae.one(picture())
    assert all(isinstance(one, InstanceInvalid) for one in middle)


def test_answers_weigh_what_they_draw(vae: Yard) -> None:
    def weight(image: bytes | None = None, **wish: Any) -> int:
        return vae.handler.weigh(Instance(image, wish, {}))

    assert weight(n=10) == 10 * weight() > 0
    assert weight(op="walk", steps=7, **{"from": 1, "to": 2}) == 7 * weight()
    assert weight(op="decode", z=[1, 2, 3]) == 3 * weight()
    assert weight(picture()) == weight(op="paint") == weight(n="many") == 0


def test_golden_requests_of_pictures_and_draws_are_answered_alike(vae: Yard) -> None:
    images = [picture(seed) for seed in range(4)]

    golden = make_golden(vae.network, vae.handler.spec, images, device=torch.device("cpu"))

    assert golden.inputs[:4] == tuple(images)
    assert [json.loads(body)["instances"][0]["op"] for body in golden.inputs[4:]] == ["encode", "sample"]
    for image, answer in zip(images, golden.answers, strict=False):
        assert vae.handler.compare(answer, vae.one(image)).passed


def test_the_gate_sees_other_pictures_and_other_latents(vae: Yard) -> None:
    ours, theirs = vae.one(picture(1)), vae.one(picture(2))
    encoded = vae.one(picture(1), op="encode")
    moved = {**encoded, "mu": [value + 0.1 for value in encoded["mu"]]}

    assert vae.handler.compare(ours, ours).passed
    assert not vae.handler.compare(ours, theirs).passed
    assert vae.handler.compare(encoded, encoded).passed
    assert not vae.handler.compare(encoded, moved).passed
    assert not vae.handler.compare(encoded, {"mu": encoded["mu"]}).passed


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.text(max_size=4), inner)
)
_NAMES = st.sampled_from(["op", "n", "seed", "z", "from", "to", "steps", "mode", "sheet", "image", "x"])


@settings(max_examples=150, deadline=None)
@given(
    op=st.sampled_from(["sample", "decode", "walk", "encode", "reconstruct"]),
    wish=st.dictionaries(_NAMES, _VALUES, max_size=4),
    has_image=st.booleans(),
)
def test_whatever_is_asked_is_answered_or_refused(op: str, wish: dict[str, Any], has_image: bool) -> None:
    yard = _YARD
    instance = Instance(picture() if has_image else None, {"op": op, "n": 1, **wish} if op == "sample" else wish, {})

    (answer,) = yard.ask(instance)

    assert yard.handler.weigh(instance) >= 0
    assert isinstance(answer, InstanceInvalid) or json.dumps(answer, allow_nan=False)


_YARD = serve_vae()
