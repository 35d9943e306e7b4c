from __future__ import annotations

import copy

import pytest
import torch

from tests.builders.gan_networks import CGAN, DCGAN, LATENT, RECIPES, STYLEGAN, serve
from workers.families.gan.served import Row, RowLayout
from workers.families.latent import draw


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_a_row_draws_what_the_generator_draws(recipe):
    classes = ["a", "b", "c"] if recipe == "gan/cgan" else []
    served, _, _ = serve(RECIPES[recipe], classes=classes)
    z = draw([3], served.layout.latent_size)
    labels = torch.tensor([2]) if classes else None

    with torch.inference_mode():
        row = Row(z[0], label=2 if classes else None).pack(served.layout)
        assert torch.equal(served(row[None]), served.generator(z, labels))


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_the_network_can_be_exported_with_everything_a_row_sets(recipe):
    served, _, _ = serve(RECIPES[recipe], classes=["a", "b"] if recipe == "gan/cgan" else [])
    program = torch.export.export(copy.deepcopy(served), (torch.zeros(1, served.layout.width),)).module()
    z = draw([1], served.layout.latent_size)[0]
    gains = {name: torch.full((units,), 0.5) for name, units in served.layout.layers[:1]}
    row = Row(z, label=1, truncation=0.5, gains=gains).pack(served.layout)[None]

    with torch.inference_mode():
        assert torch.allclose(program(row), served(row), atol=1e-5)


def test_a_class_reaches_the_generator():
    served, _, _ = serve(CGAN, classes=["a", "b", "c"])
    z = draw([1], LATENT)[0]

    with torch.inference_mode():
        drawn = served(torch.stack([Row(z, label=k).pack(served.layout) for k in range(3)]))

    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[1], drawn[2])


def test_gains_reach_the_layer_they_are_for():
    served, _, _ = serve(DCGAN)
    z = draw([1], LATENT)[0]
    last, units = served.layout.layers[-1]

    with torch.inference_mode():
        silent = served(Row(z, gains={last: torch.zeros(units)}).pack(served.layout)[None])

    # The last layer has no bias, so without any map it draws middle grey.
    assert silent.count_nonzero() == 0


def test_truncation_leads_to_the_mean_style_and_leaves_styles_alone_at_one():
    served, _, _ = serve(STYLEGAN)
    served.generator.mean_w.normal_()
    one, other = draw([1, 2], LATENT)

    with torch.inference_mode():
        mean = [served(Row(z, truncation=0.0).pack(served.layout)[None]) for z in (one, other)]
        whole = served(Row(one).pack(served.layout)[None])

        assert torch.equal(*mean)
        assert torch.equal(whole, served.generator(one[None]))


def test_mixing_takes_the_coarse_style_below_the_cut_and_the_fine_from_it_on():
    served, _, _ = serve(STYLEGAN)
    generator, (one, other) = served.generator, draw([1, 2], LATENT)
    count = served.layout.style_count

    with torch.inference_mode():
        coarse, fine = generator.mapping(one[None]), generator.mapping(other[None])
        for cut in range(1, count):
            drawn = served(Row(one, fine=other, cut=cut).pack(served.layout)[None])
            ws = torch.stack([coarse if k < cut else fine for k in range(count)], 1)
            assert torch.equal(drawn, generator.synthesis(ws))


def test_a_layout_survives_json():
    layout = RowLayout(8, 3, 5, (("b.1", 4), ("a.0", 2)))

    assert RowLayout.from_json(layout.to_json()) == layout
    assert layout.width == 8 + 8 + 5 + 1 + 3 + 4 + 2
