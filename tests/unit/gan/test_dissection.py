from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from workers.families.config import Origin
from workers.families.gan.config import DcganConfig
from workers.families.gan.dissection import Dissection, differing, in_deviations, inside
from workers.families.gan.generators import Generator
from workers.families.gan.units_config import FindUnitsConfig

SIZE = 8


class Painter(Generator):
    """Grey, and a white spot at the top left where z[0] is positive: map 0 draws it, map 1 a stripe by z[1]."""

    latent_size = 4

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Identity()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        maps = torch.zeros(len(z), 4, SIZE, SIZE)
        maps[:, 0, :3, :3] = z[:, 0, None, None].relu().sign()
        maps[:, 1, :, 6] = z[:, 1, None].relu().sign()
        maps[:, 2:] = 0.1 * z[:, 2:, None, None]
        drawn: Tensor = self.maps(maps)
        return (drawn[:, :2].sum(1, keepdim=True) * self.scale).clamp(-1, 1)

    def hidden_layers(self) -> list[str]:
        return ["maps"]


def judge(images: Tensor) -> Tensor:
    """Return logits of: a spot, a stripe, and what no picture has."""
    spot, stripe = images[:, 0, 1, 1] - 0.5, images[:, 0, 7, 6] - 0.5
    return torch.stack([spot, stripe, -torch.ones(len(images))], 1)


def dissection(generator: Generator | None = None, **search: object) -> Dissection:
    config = FindUnitsConfig.model_validate({"search": search, "eval": {"num_images": 200, "num_samples": 4}})
    return Dissection((generator or Painter()).eval(), judge, config, device=torch.device("cpu"))


@pytest.mark.parametrize("boxes", [{}, {"spot": (0.0, 0.0, 0.375, 0.375)}], ids=["differences", "a box"])
def test_the_unit_that_draws_a_thing_is_found_and_takes_it_along(boxes):
    spot, stripe = dissection(boxes=boxes).find(["spot", "stripe", "nothing"])

    assert (spot.attribute, stripe.attribute) == ("spot", "stripe")
    assert spot.weights.argmax() == 0
    assert stripe.weights.argmax() == 1
    assert 0 in spot.units
    assert 1 not in spot.units
    assert (spot.kept, stripe.kept) == (0.0, 0.0)
    assert 0.3 < spot.share < 0.7
    # All latents shown are of samples that have it.
    assert bool((spot.z[:, 0] > 0).all())


class Gated(Painter):
    """Draws the spot only where map 3, which is the same in all places of all samples, is there, too."""

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        maps = torch.zeros(len(z), 4, SIZE, SIZE)
        maps[:, 0, :3, :3] = z[:, 0, None, None].relu().sign()
        maps[:, 1, :, 6] = z[:, 1, None].relu().sign()
        maps[:, 3] = 1
        drawn: Tensor = self.maps(maps)
        return (drawn[:, :1] * drawn[:, 3:] + drawn[:, 1:2]).clamp(-1, 1) * self.scale


class Twice(Painter):
    """Draws the spot by map 2 as well, so that neither is missed where the other is there."""

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        maps = torch.zeros(len(z), 4, SIZE, SIZE)
        maps[:, 0, :3, :3] = maps[:, 2, :3, :3] = z[:, 0, None, None].relu().sign()
        maps[:, 1, :, 6] = z[:, 1, None].relu().sign()
        drawn: Tensor = self.maps(maps)
        return (drawn[:, :3].sum(1, keepdim=True) * self.scale).clamp(-1, 1)


@pytest.mark.parametrize(("generator", "units"), [(Gated(), {0, 3}), (Twice(), {0, 2})], ids=["missed", "told apart"])
def test_a_unit_counts_for_what_is_missed_without_it_and_for_where_it_is_active(generator, units):
    spot = next(one for one in dissection(generator).find(["spot", "stripe"]) if one.attribute == "spot")

    assert units <= set(spot.units)
    assert 1 not in spot.units
    assert spot.kept == 0.0


def test_figures_are_compared_in_their_deviations():
    assert in_deviations(torch.tensor([3.0, -1.0, 1.0])).tolist() == pytest.approx([1.837, -0.612, 0.612], abs=1e-3)
    assert in_deviations(torch.ones(3)).tolist() == [0, 0, 0]


def test_directions_lead_to_the_attribute():
    (spot,) = dissection().find(["spot"])

    assert spot.direction[0] > 1
    assert spot.direction[1:].abs().max() < 0.5


def test_random_units_are_a_fair_control():
    (spot,) = dissection(min_weight=0.01).find(["spot"])

    assert len(spot.random_units) == len(spot.units)
    assert spot.kept_random > spot.kept


def test_only_the_named_units_are_silenced():
    one = dissection()
    z = torch.tensor([[1.0, 1.0, 0.0, 0.0]])

    before, after = one.draw(z, None), one.draw(z, None, (0,))

    assert before[0, 0, 1, 1] == before[0, 0, 7, 6] == 1
    assert after[0, 0, 1, 1] == 0
    assert torch.equal(before[..., 3:], after[..., 3:])


def test_boxes_become_the_cells_they_touch():
    assert inside((0.0, 0.0, 0.5, 0.25), (4, 4)).nonzero().tolist() == [[0, 0], [0, 1]]
    assert inside((0.6, 0.9, 0.7, 1.0), (4, 4)).nonzero().tolist() == [[3, 2]]
    assert inside((0.0, 0.0, 1.0, 1.0), (3, 5)).all()


def test_places_that_differ_are_found_at_the_layer_s_size():
    one, other = torch.zeros(3, 8, 8), torch.zeros(3, 8, 8)
    one[:, :4, 4:] = 0.8
    one[:, 6, 0] = 0.3

    assert differing(one, other, (2, 2)).tolist() == [[False, True], [False, False]]


def test_a_job_takes_the_generator_it_starts_from():
    config = FindUnitsConfig.preset("tiny")
    other = DcganConfig.model_validate({"data": {"image_size": [16, 16]}}).model_dump(mode="json")

    adopted = config.adopt(Origin("m/1", "model", "gan/dcgan", other))

    assert adopted.generator.restored().data.image_size == (16, 16)
    assert adopted.limits == config.limits
    with pytest.raises(ValueError, match="points"):
        config.adopt(Origin("m/1", "model", "gan/vanilla", {}))


@pytest.mark.parametrize(
    ("search", "reason"),
    [
        pytest.param({"boxes": {"a": (0.5, 0, 0.5, 1)}}, "left < right", id="an empty box"),
        pytest.param({"boxes": {"a": (0, 0, 2, 1)}}, "less than or equal to 1", id="a box in pixels"),
        pytest.param({"layers": "x"}, "extra", id="a typo"),
    ],
)
def test_a_bad_search_is_refused(search, reason):
    with pytest.raises(ValueError, match=reason):
        FindUnitsConfig.model_validate({"search": search})
