from __future__ import annotations

import base64
import io
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.builders.gan_networks import CGAN, DCGAN, LAPGAN, LATENT, POINTS, STYLEGAN, serve
from workers.families.base import Instance, InstanceInvalid
from workers.families.gan.handler import make_golden
from workers.families.latent import draw, renormalise
from workers.families.latent_wish import MAX_PICTURES

Answer = dict[str, Any]


class Yard:
    """A served generator, asked as a server asks it."""

    def __init__(self, config: Any, **options: Any) -> None:
        self.network, self.spec, self.handler = serve(config, **options)

    def ask(self, *wishes: Any, **params: Any) -> list[Any]:
        return self.handler.predict([Instance(None, wish, params) for wish in wishes], self.network)

    def one(self, **wish: Any) -> Answer:
        (answer,) = self.ask(wish)
        assert not isinstance(answer, InstanceInvalid), answer
        return dict(answer)


@pytest.fixture(scope="module")
def yard() -> Yard:
    return Yard(DCGAN)


def png(encoded: dict[str, str]) -> bytes:
    return base64.b64decode(encoded["b64"])


def pixels(encoded: dict[str, str]) -> np.ndarray[Any, Any]:
    with Image.open(io.BytesIO(png(encoded))) as picture:
        return np.array(picture)


def test_the_same_seed_gives_the_same_bytes_alone_in_a_batch_and_beside_others(yard):
    (alone,) = yard.one(seed=5)["images"]
    row = yard.one(seed=3, n=4)
    _, beside = yard.ask({"seed": 1, "n": 3}, {"seed": 5})

    assert row["seeds"] == [3, 4, 5, 6]
    assert png(row["images"][2]) == png(alone) == png(beside["images"][0])
    assert len({png(one) for one in row["images"]}) == 4


def test_an_answer_s_latents_draw_its_pictures_again(yard):
    sampled = yard.one(seed=7, n=3, truncation=0.5)
    decoded = yard.one(op="decode", z=json.loads(json.dumps(sampled["z"])), truncation=0.5)

    assert decoded["images"] == sampled["images"]
    assert yard.one(op="decode", z=7, truncation=0.5)["images"] == sampled["images"][:1]


def test_a_picture_is_a_png_of_the_network_s_values(yard):
    (encoded,) = yard.one(seed=1)["images"]

    with torch.inference_mode():
        values = yard.network.generator(draw([1], LATENT))[0]
    expected = ((values + 1) * 127.5).round().permute(1, 2, 0).numpy()
    assert pixels(encoded).shape == (16, 16, 3)
    assert (pixels(encoded) == expected).all()


def test_a_walk_s_ends_are_the_pictures_of_what_it_was_given(yard):
    walked = yard.one(**{"op": "walk", "from": 1, "to": 2, "steps": 5})
    one, other = yard.one(seed=1), yard.one(seed=2)

    assert [walked["images"][0], walked["images"][-1]] == [*one["images"], *other["images"]]
    assert [walked["z"][0], walked["z"][-1]] == [*one["z"], *other["z"]]
    assert len(walked["images"]) == 5
    strip = pixels(walked["sheet"])
    assert strip.shape == (16, 5 * 16 + 4 * 2, 3)
    assert (strip[:, :16] == pixels(one["images"][0])).all()
    assert (strip[:, -16:] == pixels(other["images"][0])).all()


def test_arithmetic_draws_the_renormalised_sum_of_the_groups_means(yard):
    terms = [{"group": [1, 2, 3]}, {"sign": -1, "group": [4, 5]}, {"seed": 6}]
    z = draw([1, 2, 3], LATENT).mean(0) - draw([4, 5], LATENT).mean(0) + draw([6], LATENT)[0]

    exact = yard.one(op="arithmetic", terms=terms)
    raw = yard.one(op="arithmetic", terms=terms, renorm=False)
    jittered = yard.one(op="arithmetic", terms=terms, jitter=0.3, n=4, seed=2)

    assert torch.allclose(torch.tensor(exact["z"][0]), renormalise(z))
    assert torch.allclose(torch.tensor(raw["z"][0]), z)
    assert torch.allclose(torch.tensor(jittered["z"]), renormalise(z) + 0.3 * draw([2, 3, 4, 5], LATENT))
    assert len({png(one) for one in jittered["images"]}) == 4


def test_a_direction_is_given_by_groups_or_numbers_and_moves_by_its_alphas(yard):
    way = draw([1, 2], LATENT).mean(0) - draw([3], LATENT)[0]

    groups = yard.one(op="direction", seed=9, plus=[1, 2], minus=[3], alpha=[0, 1, 2])
    vector = yard.one(op="direction", seed=9, direction=way.tolist(), alpha=2)

    assert groups["alphas"] == [0, 1, 2]
    assert groups["images"][0] == yard.one(seed=9)["images"][0]
    assert groups["images"][2] == vector["images"][0]
    assert torch.allclose(torch.tensor(groups["z"][1]), draw([9], LATENT)[0] + way)


def test_ablation_answers_pictures_with_and_without_the_units(yard):
    layer, units = yard.handler.model.layout.layers[-1]
    answer = yard.one(op="ablate", seed=4, n=2, layer=layer, units=list(range(units)))

    assert answer["before"] == yard.one(seed=4, n=2)["images"]
    # No unit of the last hidden layer is left, and the last layer has no bias.
    assert all((pixels(one) == 128).all() for one in answer["after"])
    assert pixels(answer["sheet"]).shape == (2 * 16 + 2, 2 * 16 + 2, 3)


def test_ablation_silences_exactly_the_units_asked_for(yard):
    layer, units = yard.handler.model.layout.layers[0]
    seen: list[torch.Tensor] = []
    following = yard.network.generator.get_submodule("blocks.1")
    handle = following.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))

    answer = yard.one(op="ablate", layer=layer, units=[1, 3, 1])
    handle.remove()

    before, after = seen
    kept = [unit for unit in range(units) if unit not in (1, 3)]
    assert answer["units"] == [1, 3]
    assert torch.equal(after[:, kept], before[:, kept])
    assert after[:, [1, 3]].count_nonzero() == 0 < before[:, [1, 3]].count_nonzero()


def test_stored_concepts_and_directions_go_by_their_names():
    yard = Yard(DCGAN)
    layer = yard.handler.model.layout.layers[-1][0]
    way = draw([1], LATENT)[0].tolist()
    yard.spec.constants["units"]["glasses"] = {"layer": layer, "units": [0, 2]}
    yard.spec.constants["directions"]["smile"] = way

    named = yard.one(op="ablate", concept="glasses")
    listed = yard.one(op="ablate", layer=layer, units=[2, 0])

    assert (named["after"], named["units"]) == (listed["after"], [0, 2])
    assert yard.one(op="direction", name="smile") == yard.one(op="direction", direction=way)


def test_classes_go_by_name_or_number_and_take_turns_by_default():
    yard = Yard(CGAN, classes=["zero", "one", "two"])

    turns = yard.one(n=4)
    named, numbered = yard.one(**{"seed": 1, "class": "one"}), yard.one(**{"seed": 1, "class": 1})

    assert turns["labels"] == ["zero", "one", "two", "zero"]
    assert named == numbered
    assert named["images"][0] == turns["images"][1]
    assert yard.one(n=2, labels=["two", 0])["labels"] == ["two", "zero"]
    assert yard.one(labels=["two", 0]) == yard.one(n=2, labels=["two", 0])
    # A seed is drawn as the same class whatever it is drawn beside.
    assert yard.one(seed=2)["images"][0] == turns["images"][2]


def test_mix_draws_every_coarse_with_every_fine_style():
    yard = Yard(STYLEGAN)

    table = yard.one(op="mix", coarse=[1, 2], fine=[3, 4, 5], cut=2, truncation=0.5)

    assert len(table["images"]) == 6
    assert pixels(table["sheet"]).shape[:2] == (2 * 16 + 2, 3 * 16 + 4)
    assert table["images"][4] == yard.one(op="mix", coarse=2, fine=4, cut=2, truncation=0.5)["images"][0]
    assert (table["cut"], table["truncation"]) == (2, 0.5)
    assert yard.one(op="mix", coarse=1, fine=1)["images"] == yard.one(seed=1)["images"]


def test_mix_answers_the_pair_of_latents_of_every_picture():
    yard = Yard(STYLEGAN)

    table = yard.one(op="mix", coarse=[1, 2], fine=[3, 4, 5])
    coarse, fine = json.loads(json.dumps(table["z"]))[4]
    again = yard.one(op="mix", coarse=coarse, fine=fine)

    assert len(table["z"]) == len(table["images"])
    assert [coarse, fine] == [yard.one(seed=seed)["z"][0] for seed in (2, 4)]
    assert again["images"] == [table["images"][4]]
    assert again["z"] == [[coarse, fine]]


def test_truncation_narrows_what_is_drawn():
    for config in (STYLEGAN, DCGAN):
        yard = Yard(config)
        spread = [
            np.std([pixels(one) for one in yard.one(n=16, truncation=psi)["images"]], axis=0).mean()
            for psi in (1.0, 0.5, 0.0)
        ]
        assert spread[0] > spread[1] > spread[2] == 0


def test_points_are_answered_as_numbers():
    yard = Yard(POINTS)

    answer = yard.one(n=3)

    assert np.asarray(answer["points"]).shape == (3, 2)
    assert "images" not in answer


def test_long_latents_are_left_out_of_long_answers():
    yard = Yard(LAPGAN)

    assert "z" in yard.one(n=1)
    assert "z" not in yard.one(n=MAX_PICTURES)


HOSTILE = [
    pytest.param({"op": "paint"}, "op must be one of sample", id="an operation nobody knows"),
    pytest.param({"op": ["sample"]}, "op must be one of", id="an operation of another kind"),
    pytest.param({"sed": 1}, "unknown parameter 'sed'", id="a typo has no silent effect"),
    pytest.param({"n": 0}, "n must be a whole number from 1 to 256", id="no samples"),
    pytest.param({"n": 10**9}, "n must be a whole number from 1 to 256", id="more than fit"),
    pytest.param({"n": True}, "n must be", id="a truth for a number"),
    pytest.param({"seed": -1}, "seed must be", id="a negative seed"),
    pytest.param({"seed": 1.5}, "seed must be", id="half a seed"),
    pytest.param({"seed": 2**31}, "seed must be", id="a seed that is too large"),
    pytest.param({"truncation": 1.5}, "truncation must be a number from 0 to 1", id="beyond the variety"),
    pytest.param({"truncation": math.nan}, "truncation must be", id="no number"),
    pytest.param({"sheet": 1}, "sheet must be true or false", id="a number for a truth"),
    pytest.param({"class": "cat"}, "class: this generator has no classes", id="a class of a generator without"),
    pytest.param({"op": "decode"}, "z is missing: give a seed", id="nothing to decode"),
    pytest.param({"op": "decode", "z": []}, "list of 8 numbers", id="an empty latent"),
    pytest.param({"op": "decode", "z": [0.1] * 9}, "not a list of 9", id="a latent that is too long"),
    pytest.param({"op": "decode", "z": [[0.1] * 8, [1e30] * 8]}, r"z\[1\]", id="the bad one of two is named"),
    pytest.param({"op": "decode", "z": [math.inf] * 8}, "from -100 to 100", id="an infinite latent"),
    pytest.param({"op": "decode", "z": ["1"] * 8}, "z", id="text for numbers"),
    pytest.param({"op": "decode", "z": [[[0.1] * 8]]}, "z", id="nested too deep"),
    pytest.param({"op": "decode", "z": list(range(300))}, "at most 256", id="more seeds than fit"),
    pytest.param({"op": "walk", "from": 1}, "to is missing: give a seed", id="a walk to nowhere"),
    pytest.param({"op": "walk", "from": 1, "to": 2, "steps": 1}, "steps must be at least 2", id="no room for two ends"),
    pytest.param({"op": "walk", "from": 1, "to": 2, "mode": "fly"}, "mode must be slerp or lerp", id="an unknown mode"),
    pytest.param(
        {"op": "walk", "from": [1.0] * 8, "to": [-1.0] * 8}, "opposite", id="no one arc between opposite latents"
    ),
    pytest.param({"op": "walk", "from": [0.0] * 8, "to": 1}, "zero vector", id="zero has no direction"),
    pytest.param({"op": "arithmetic"}, "terms must be a list", id="nothing to add"),
    pytest.param({"op": "arithmetic", "terms": [3]}, r"terms\[0\] must be", id="a term of another kind"),
    pytest.param({"op": "arithmetic", "terms": [{"group": []}]}, r"terms\[0\].group", id="an empty group"),
    pytest.param({"op": "arithmetic", "terms": [{"group": [1]}] * 17}, "1 to 16", id="too many terms"),
    pytest.param(
        {"op": "arithmetic", "terms": [{"seed": 1, "z": 2}]}, r"terms\[0\] must", id="two latents in one term"
    ),
    pytest.param({"op": "arithmetic", "terms": [{"seed": 1, "sign": 2}]}, r"terms\[0\].sign", id="no sign"),
    pytest.param(
        {"op": "arithmetic", "terms": [{"group": [1, "x"]}]}, r"group\[1\] must be a seed", id="bad in a group"
    ),
    pytest.param(
        {"op": "arithmetic", "terms": [{"seed": 1}, {"sign": -1, "seed": 1}]}, "zero vector", id="a sum that cancels"
    ),
    pytest.param({"op": "arithmetic", "terms": [{"seed": 1}], "n": 2}, "without jitter", id="the same picture twice"),
    pytest.param({"op": "arithmetic", "terms": [{"seed": 1}], "jitter": -1}, "jitter must be", id="negative jitter"),
    pytest.param({"op": "direction"}, "give one of: name, direction", id="no direction"),
    pytest.param({"op": "direction", "plus": [1]}, "groups plus and minus", id="half a direction"),
    pytest.param({"op": "direction", "name": "smile"}, "unknown direction 'smile'", id="a direction nobody stored"),
    pytest.param({"op": "direction", "name": "a", "plus": [1], "minus": [2]}, "give one of", id="two directions"),
    pytest.param({"op": "direction", "plus": [1], "minus": [2], "alpha": "x"}, "alpha must", id="no alpha"),
    pytest.param(
        {"op": "direction", "n": 200, "plus": [1], "minus": [2], "alpha": [1, 2]}, "more than 256", id="too many"
    ),
    pytest.param({"op": "ablate"}, "layer must be a hidden layer", id="no units"),
    pytest.param(
        {"op": "ablate", "layer": "blocks.9", "units": [1]}, "this generator has blocks.0", id="no such layer"
    ),
    pytest.param({"op": "ablate", "layer": "blocks.0"}, "units must be a list", id="a layer without units"),
    pytest.param({"op": "ablate", "layer": "blocks.0", "units": [10**6]}, "units must be", id="no such unit"),
    pytest.param({"op": "ablate", "layer": "blocks.0", "units": [True]}, "units must be", id="a truth for a unit"),
    pytest.param({"op": "ablate", "concept": "x"}, "train gan/find_units", id="a concept nobody found"),
    pytest.param({"op": "ablate", "concept": "x", "units": [1]}, "not both", id="a concept and units"),
    pytest.param({"op": "ablate", "layer": "blocks.0", "units": [1], "n": 200}, "at most 256", id="twice too many"),
    pytest.param({"op": "ablate", "layer": "blocks.0", "units": [1], "z": 1, "n": 2}, "not both", id="two bases"),
    pytest.param({"op": "mix", "coarse": 1, "fine": 2}, "stylegan2", id="styles of a generator without"),
]


@pytest.mark.parametrize(("wish", "reason"), HOSTILE)
def test_a_bad_wish_names_the_field_and_what_to_send_and_spoils_no_other(yard, wish, reason):
    good, bad, other = yard.ask({"seed": 1}, wish, {"seed": 2})

    assert isinstance(bad, InstanceInvalid)
    with pytest.raises(InstanceInvalid, match=reason):
        raise bad
    assert len(str(bad)) < 400
    assert good["images"] == yard.one(seed=1)["images"]
    assert other["images"] == yard.one(seed=2)["images"]


def test_bad_classes_and_cuts_are_refused_too():
    conditional, styled = Yard(CGAN, classes=["a", "b"]), Yard(STYLEGAN)

    errors = [
        *conditional.ask(
            {"class": "c"}, {"class": 2}, {"n": 3, "labels": [0, 1]}, {"n": 2, "labels": [0, "x"]}, {"class": True}
        ),
        *styled.ask({"op": "mix", "coarse": 1, "fine": 2, "cut": 0}, {"op": "mix", "coarse": 1}),
    ]

    reasons = ["class has", "class has", "labels must be", r"labels\[1\]", "class has", "cut must", "fine is missing"]
    assert all(isinstance(error, InstanceInvalid) for error in errors)
    assert [reason for reason, error in zip(reasons, errors, strict=True) if reason.strip("\\") not in str(error)] == [
        r"labels\[1\]"
    ]
    assert "labels[1]" in str(errors[3])


def test_an_image_is_refused_with_what_to_send_instead(yard):
    (error,) = yard.handler.predict([Instance(b"\x89PNG", {}, {})], yard.network)

    assert isinstance(error, InstanceInvalid)
    assert "takes no image" in str(error)


def test_fields_go_over_the_parameters_of_the_request(yard):
    first, second = yard.ask({}, {"seed": 4}, seed=3, n=2)

    assert first["seeds"] == [3, 4]
    assert second["seeds"] == [4, 5]


def test_an_instance_weighs_what_it_draws(yard):
    def weight(**wish: Any) -> int:
        return yard.handler.weigh(Instance(None, wish, {}))

    assert weight(n=4) == 4 * weight() > 0
    assert weight(op="ablate", layer="blocks.0", units=[0]) == 2 * weight()
    assert weight(n=-1) == 0


def test_values_that_are_not_finite_are_no_picture(yard):
    def broken(rows: torch.Tensor) -> torch.Tensor:
        return yard.network(rows) * math.nan

    (error,) = yard.handler.predict([Instance(None, {}, {})], broken)

    assert isinstance(error, InstanceInvalid)


@pytest.mark.parametrize("config", [DCGAN, STYLEGAN, POINTS], ids=["pictures", "styles", "points"])
def test_golden_answers_hold_for_the_same_network_and_for_no_other(config):
    yard, other = Yard(config), Yard(config, seed=1)
    golden = make_golden(yard.network, yard.spec, device=torch.device("cpu"), count=4)

    def reports(asked: Yard) -> list[Any]:
        wishes = [json.loads(body)["instances"][0] for body in golden.inputs]
        return [yard.handler.compare(*pair) for pair in zip(golden.answers, asked.ask(*wishes), strict=True)]

    assert len(golden.inputs) == 4
    assert all(report.passed and not any(report.differences.values()) for report in reports(yard))
    assert not any(report.passed for report in reports(other))


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "op",
                "n",
                "seed",
                "z",
                "from",
                "to",
                "steps",
                "terms",
                "plus",
                "minus",
                "layer",
                "units",
                "class",
                "sheet",
            ]
        ),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers(-3, 3)
            | st.floats()
            | st.sampled_from(["walk", "decode", "ablate"]),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["group", "z"]), inner),
            max_leaves=6,
        ),
        max_size=5,
    )
)
def test_no_wish_breaks_the_handler(wish):
    yard = Yard(DCGAN)

    (answer,) = yard.ask(wish)

    assert isinstance(answer, InstanceInvalid) or json.dumps(answer, allow_nan=False)
