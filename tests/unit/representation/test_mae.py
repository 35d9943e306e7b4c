from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from tests.unit.representation.conftest import lively, mae_config
from workers.families.positions import wave_positions
from workers.families.representation.config import MaeConfig
from workers.families.representation.data import from_input, to_input, unit_scale
from workers.families.representation.mae_network import MaeNetwork, ServedMae
from workers.families.representation.patches import moments, seen_first, to_images, to_patches


def images_of(count: int = 3) -> Tensor:
    return torch.randn(count, 3, 8, 12, generator=torch.Generator().manual_seed(0))


def network_of(config: MaeConfig) -> MaeNetwork:
    torch.manual_seed(0)
    network = MaeNetwork(config)
    lively(network)
    return network


@pytest.mark.parametrize(
    ("preset", "encoder", "decoder"),
    [
        # ViT-B/16 and ViT-L/16 without heads and learned positions; eight blocks of 512 and their ends.
        pytest.param("full", 85_647_360, 26_008_320, id="ViT-B"),
        pytest.param("vit_l", 303_099_904, 26_139_392, id="ViT-L"),
    ],
)
def test_it_has_the_parameters_of_the_paper_s_networks(preset: str, encoder: int, decoder: int) -> None:
    with torch.device("meta"):
        network = MaeNetwork(MaeConfig.preset(preset))

    assert sum(parameter.numel() for parameter in network.encoder.parameters()) == encoder
    assert sum(parameter.numel() for parameter in network.decoder.parameters()) == decoder


def test_a_quarter_of_the_patches_is_seen_by_default() -> None:
    config = MaeConfig()

    seen, hidden = seen_first(torch.rand(5, config.num_patches), config.num_seen)

    assert config.num_patches == 196
    assert seen.shape == (5, 49)
    assert hidden.sum(1).tolist() == [147] * 5
    assert not hidden.gather(1, seen).any()


def test_patches_of_least_noise_are_seen() -> None:
    seen, hidden = seen_first(torch.tensor([[0.5, 0.1, 0.9, 0.3]]), 2)

    assert seen.tolist() == [[1, 3]]
    assert hidden.tolist() == [[True, False, True, False]]


def test_cutting_into_patches_is_undone_by_putting_them_together() -> None:
    images = images_of()
    patches = to_patches(images, 4)

    assert patches.shape == (3, 6, 48)
    assert torch.equal(to_images(patches, 4, (8, 12)), images)
    # The second patch of the first row, channels last.
    assert torch.equal(patches[0, 1], images[0, :, :4, 4:8].permute(1, 2, 0).flatten())


def test_moments_leave_each_patch_with_mean_zero_and_deviation_one() -> None:
    patches = to_patches(images_of(), 4)
    mean, deviation = moments(patches)
    plain = (patches - mean) / deviation

    torch.testing.assert_close(plain.mean(-1), torch.zeros(3, 6), atol=1e-6, rtol=0)
    torch.testing.assert_close(plain.std(-1), torch.ones(3, 6))
    flat_mean, flat_deviation = moments(torch.full((1, 1, 48), 0.3))
    assert ((torch.full((1, 1, 48), 0.3) - flat_mean) / flat_deviation).abs().max() < 1e-3


def test_positions_are_sines_and_cosines_of_columns_then_rows() -> None:
    positions = wave_positions(8, 2, 3)[0]

    assert positions.shape == (6, 8)
    # The first: sin 0 and cos 0 for both directions; the last: column 2 and row 1, rates 1 and 1/100.
    assert positions[0].tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    angles = [2, 0.02, 1, 0.01]
    expected = [math.sin(a) for a in angles[:2]] + [math.cos(a) for a in angles[:2]]
    expected += [math.sin(a) for a in angles[2:]] + [math.cos(a) for a in angles[2:]]
    torch.testing.assert_close(positions[5], torch.tensor(expected))
    assert len({tuple(row) for row in positions.tolist()}) == 6


def test_hidden_pixels_change_nothing_that_is_found() -> None:
    config = mae_config()
    network, images = network_of(config), images_of()
    seen, hidden = seen_first(torch.rand(3, config.num_patches), config.num_seen)
    patches = to_patches(images, 2)
    other = to_images(torch.where(hidden[:, :, None], patches + 5, patches), 2, (8, 12))

    with torch.no_grad():
        assert torch.equal(network(images, seen, hidden), network(other, seen, hidden))
        assert not torch.equal(network(images, seen, hidden), network(images.flip(0), seen, hidden))


def test_where_a_patch_lies_matters_to_what_is_seen_of_an_image() -> None:
    network, images = network_of(mae_config()), images_of()
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    shuffled = to_images(to_patches(images, 2)[:, order], 2, (8, 12))

    with torch.no_grad():
        assert (network.embedding(images) - network.embedding(shuffled)).abs().max() > 0.01


def test_each_patch_is_found_at_its_own_place() -> None:
    config = mae_config()
    network, images = network_of(config), images_of()
    decoder = network.decoder
    # Without blocks nothing goes from place to place.
    decoder.blocks = nn.ModuleList()
    seen, hidden = seen_first(torch.rand(3, 24), config.num_seen)

    with torch.no_grad():
        found = network(images, seen, hidden)
        places = decoder.positions.expand(3, -1, -1)
        known = decoder.embed(network.encoder(images, seen)[:, 1:])
        tokens = decoder.hidden_token + places
        tokens = tokens.scatter(
            1,
            seen[:, :, None].expand_as(known),
            known + torch.stack([one[where] for one, where in zip(places, seen, strict=True)]),
        )

        torch.testing.assert_close(found, decoder.pixels(decoder.norm(tokens)))


def test_the_served_network_finds_what_the_trained_one_finds_for_any_mask() -> None:
    config = mae_config()
    network, images = network_of(config), images_of()
    served = ServedMae(network)
    for num_seen in (1, 6, 23):
        seen, hidden = seen_first(torch.rand(3, config.num_patches), num_seen)
        plane = to_images(hidden.float()[:, :, None].expand(-1, -1, 4), 2, (8, 12))

        with torch.no_grad():
            expected = to_images(network(images, seen, hidden), 2, (8, 12))
            found, _ = served(torch.cat([images, plane], 1))

        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_the_served_embedding_of_a_whole_image_is_the_class_token() -> None:
    network, images = network_of(mae_config()), images_of()

    with torch.no_grad():
        _, embedding = ServedMae(network)(torch.cat([images, torch.zeros(3, 1, 8, 12)], 1))

        torch.testing.assert_close(embedding, network.embedding(images), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_come_back_from_what_the_network_sees(channels: int) -> None:
    pixels = torch.arange(channels * 64).reshape(1, channels, 8, 8).to(torch.uint8)
    shift = to_input(pixels + 1) - to_input(pixels)

    assert torch.equal(from_input(to_input(pixels)[0]), pixels[0])
    torch.testing.assert_close(shift[0] * unit_scale(channels), torch.full((channels, 8, 8), 1 / 255))


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        pytest.param({"data": {"image_size": (225, 224)}}, "multiples of model.patch 16", id="patches"),
        pytest.param({"loss": {"mask_ratio": 0.999}}, "leaves none seen", id="nothing seen"),
        pytest.param({"model": {"heads": 5}}, "model.dim 768 must be a multiple of model.heads 5", id="heads"),
        pytest.param({"model": {"decoder_dim": 34, "decoder_heads": 17}}, "model.decoder_dim must be", id="waves"),
        pytest.param({"data": {"crop_scale": (0.5, 0.2)}}, r"data.crop_scale must be \[low, high\]", id="crops"),
        pytest.param({"data": {"stored_size": 100}}, "data.stored_size must be at least 224", id="stored"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        MaeConfig.model_validate(sections)
