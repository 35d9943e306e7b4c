"""The networks at the papers' sizes: what they count, what they see, and that codes reach where they should."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from workers.families.translation.bicycle_networks import Encoder, ManyWays, ScaledDiscriminator, many_rows
from workers.families.translation.config import BicycleModel
from workers.families.translation.cyclegan import TwoWays
from workers.families.translation.discogan import DiscoDiscriminator, DiscoGenerator
from workers.families.translation.handler import two_way_rows
from workers.families.translation.networks import (
    NORMS,
    PatchDiscriminator,
    ResidualBlock,
    ResnetGenerator,
    Unet,
    batch_norm,
    count_parameters,
    patch_side,
)


def test_the_u_net_of_256_pixels_is_the_paper_s() -> None:
    network = Unet(width=64, depth=8, norm=batch_norm, dropout=0.5)

    assert count_parameters(network) == 54_413_955
    assert sum(isinstance(module, nn.Dropout) for module in network.modules()) == 3
    assert network(torch.zeros(2, 3, 256, 256)).shape == (2, 3, 256, 256)


def test_a_u_net_halves_to_one_pixel_and_its_first_and_last_stage_have_no_norm() -> None:
    network = Unet(width=4, depth=5, norm=batch_norm)
    sides: list[int] = []
    for stage in network.down:
        stage.register_forward_hook(lambda _module, _inputs, maps: sides.append(maps.shape[-1]))

    network(torch.zeros(2, 3, 32, 32))

    assert sides == [16, 8, 4, 2, 1]
    has_norm = [any(isinstance(layer, nn.BatchNorm2d) for layer in stage) for stage in network.down]
    assert has_norm == [False, True, True, True, False]


def test_a_u_net_s_stages_reach_their_mirrors_past_the_bottom() -> None:
    network = Unet(width=4, depth=4)
    for parameter in network.up[0].parameters():
        nn.init.zeros_(parameter)
    images = torch.rand(2, 3, 16, 16)

    with torch.no_grad():
        one, other = network(images)

    # Nothing comes through the bottom; what differs came past it.
    assert (one - other).abs().max() > 1e-3


def test_a_residual_block_that_does_nothing_leaves_its_maps_as_they_are() -> None:
    block, maps = ResidualBlock(4), torch.rand(1, 4, 8, 8)
    for parameter in block.parameters():
        nn.init.zeros_(parameter)

    assert torch.equal(block(maps), maps)


@pytest.mark.parametrize(
    "new",
    [
        pytest.param(lambda: Unet(width=4, depth=4), id="u-net"),
        pytest.param(lambda: ResnetGenerator(width=4, blocks=1), id="residual"),
        pytest.param(lambda: DiscoGenerator(side=16, width=4, bottleneck=0), id="discogan"),
    ],
)
def test_what_is_drawn_stays_in_the_range_of_pictures(new: Callable[[], nn.Module]) -> None:
    network = new()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=2.0)

    with torch.no_grad():
        drawn = network(torch.randn(2, 3, 16, 16))

    assert 0.9 < float(drawn.abs().max()) <= 1


def test_the_generator_of_nine_blocks_has_11_million_parameters() -> None:
    assert count_parameters(ResnetGenerator(width=64, blocks=9)) == 11_378_179


@pytest.mark.parametrize("side", [32, 40])
def test_a_residual_generator_keeps_the_size(side: int) -> None:
    assert ResnetGenerator(width=4, blocks=1)(torch.zeros(1, 3, side, side)).shape == (1, 3, side, side)


@pytest.mark.parametrize(
    ("channels", "has_scale", "expected"),
    [
        pytest.param(6, True, 2_768_705, id="pix2pix: input and answer"),
        pytest.param(3, False, 2_764_737, id="CycleGAN: norms without scale and shift"),
    ],
)
def test_discriminators_of_patches_count_what_the_authors_do(channels: int, has_scale: bool, expected: int) -> None:
    network = PatchDiscriminator(channels=channels, width=64, layers=3, norm=batch_norm if has_scale else None)

    assert count_parameters(network) == expected


def test_between_convolutions_of_a_discriminator_there_are_leaky_rectifiers() -> None:
    network = PatchDiscriminator(channels=3, width=2, layers=3, norm=None)

    slopes = [layer.negative_slope for layer in network.steps if isinstance(layer, nn.LeakyReLU)]
    assert slopes == [0.2] * 4
    assert isinstance(network.steps[-2], nn.LeakyReLU)


@pytest.mark.parametrize("norm", NORMS)
def test_either_normalisation_has_a_scale_and_a_shift_of_each_map(norm: str) -> None:
    assert count_parameters(NORMS[norm](7)) == 14


@pytest.mark.parametrize(("layers", "side"), [(1, 16), (2, 34), (3, 70)])
def test_a_logit_sees_a_patch_of_the_paper_s_size(layers: int, side: int) -> None:
    network = PatchDiscriminator(channels=3, width=2, layers=layers, norm=lambda _: nn.Identity())
    images = torch.zeros(1, 3, 256, 256, requires_grad=True)

    logits = network(images)
    logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2].backward()

    assert images.grad is not None
    rows = images.grad.abs().sum((0, 1, 3)).nonzero()
    assert patch_side(layers) == side
    assert int(rows.max() - rows.min()) + 1 == side


@pytest.mark.parametrize(("where", "reached"), [("all", [True] * 4), ("input", [True, False, False, False])])
def test_a_code_is_joined_to_every_stage_or_to_the_picture(where: str, reached: list[bool]) -> None:
    network = Unet(width=4, depth=4, norm=lambda _: nn.Identity(), code=(8, where))

    one, other = network(torch.zeros(2, 3, 16, 16), torch.tensor([[1.0], [2.0]]).expand(2, 8))

    inputs = [next(layer for layer in stage if isinstance(layer, nn.Conv2d)).in_channels for stage in network.down]
    assert inputs == [plain + 8 * is_joined for plain, is_joined in zip([3, 4, 8, 16], reached, strict=True)]
    assert not torch.equal(one, other)


@pytest.mark.parametrize("bottleneck", [0, 100])
def test_discogan_halves_64_pixels_four_times(bottleneck: int) -> None:
    generator = DiscoGenerator(side=64, width=64, bottleneck=bottleneck)
    logits, *features = DiscoDiscriminator(side=64, width=64)(torch.zeros(2, 3, 64, 64))

    convolutions = [module for module in generator.modules() if isinstance(module, nn.Conv2d)]
    assert [conv.out_channels for conv in convolutions] == [64, 128, 256, 512] + [100] * bool(bottleneck)
    assert generator(torch.zeros(2, 3, 64, 64)).shape == (2, 3, 64, 64)
    assert logits.shape == (2, 1, 1, 1)
    assert [tuple(one.shape[1:]) for one in features] == [(128, 16, 16), (256, 8, 8), (512, 4, 4)]


def test_the_encoder_of_256_pixels_is_64_to_256_wide_and_ends_at_8_by_8() -> None:
    encoder = Encoder(width=64, blocks=5, latent_size=8)
    sizes: list[tuple[int, ...]] = []
    for layer in encoder.body:
        layer.register_forward_hook(lambda _module, _inputs, maps: sizes.append(tuple(maps.shape[1:])))

    mean, log_variance = encoder(torch.zeros(2, 3, 256, 256))

    assert sizes[:5] == [(64, 128, 128), (128, 64, 64), (192, 32, 32), (256, 16, 16), (256, 8, 8)]
    assert mean.shape == log_variance.shape == (2, 8)


def test_discriminators_at_half_the_side_have_half_the_maps() -> None:
    judge = ScaledDiscriminator(BicycleModel())

    logits = judge(torch.zeros(1, 3, 256, 256))

    assert [tuple(one.shape[2:]) for one in logits] == [(30, 30), (14, 14)]
    widths = [
        next(module for module in one.modules() if isinstance(module, nn.Conv2d)).out_channels for one in judge.scales
    ]
    assert widths == [64, 32]


class _Constant(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(value))

    def forward(self, images: Tensor) -> Tensor:
        return images * 0 + self.bias


def test_both_ways_are_one_network_also_as_an_exported_graph() -> None:
    network = TwoWays(_Constant(1.0), _Constant(2.0)).eval()
    rows = [two_way_rows(torch.zeros(1, 3, 16, 16), way) for way in (0, 1)]

    with torch.no_grad():
        exported = torch.export.export(network, (rows[0],)).module()

        for way in (0, 1):
            assert network(rows[way]).unique().tolist() == [1.0 + way]
            assert exported(rows[way]).unique().tolist() == [1.0 + way]


def test_a_row_says_which_code_is_used_also_as_an_exported_graph() -> None:
    torch.manual_seed(0)
    network = ManyWays(Unet(width=4, depth=4, code=(3, "all")), Encoder(width=4, blocks=3, latent_size=3)).eval()
    image, style = torch.rand(2, 3, 16, 16)
    z = torch.tensor([[0.5, -1.0, 2.0]])
    drawn, styled = many_rows(image, z), many_rows(image, z, style=style)
    assert network.encoder is not None

    with torch.no_grad():
        exported = torch.export.export(network, (drawn,)).module()
        code = network.encoder(style[None])[0]

        for net in (network, exported):
            picture, used = net(drawn)
            assert torch.equal(used, z)
            assert torch.allclose(picture, network.generator(image[None], z), atol=1e-6)
            picture, used = net(styled)
            assert torch.allclose(used, code, atol=1e-6)
            assert torch.allclose(picture, network.generator(image[None], code), atol=1e-5)
